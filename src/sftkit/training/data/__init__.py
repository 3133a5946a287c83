"""Shards -> micro-batches: reading rows, the order of an epoch, batching, and collation."""
