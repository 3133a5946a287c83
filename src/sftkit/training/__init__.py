"""Supervised fine-tuning on shards: model, collation, Trainer wiring, logs."""
