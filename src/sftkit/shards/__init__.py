"""Everything that is on disk: staged units, Parquet shards, the manifest, and the output directory that holds them."""
