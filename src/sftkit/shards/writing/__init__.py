"""Writes Parquet shards from staged units, in the final row order."""
