"""Counts, lengths and token statistics of a set of shards."""
