"""What is on disk: staged units, Parquet shards, the manifest, the output directory; writing and reading them."""
