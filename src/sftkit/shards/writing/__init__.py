"""Staged rows in their final order -> Parquet shards."""
