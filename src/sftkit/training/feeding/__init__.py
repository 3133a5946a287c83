"""Shards -> the micro-batches of each process."""
