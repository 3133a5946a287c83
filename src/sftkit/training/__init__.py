"""Supervised fine-tuning on shards with the transformers Trainer."""
