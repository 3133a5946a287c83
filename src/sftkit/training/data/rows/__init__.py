"""The rows of shards and of Parquet files of others, located at the start and read when they are needed."""
