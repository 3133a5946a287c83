"""Raw data to shards: planning a run, the pipeline that tokenizes a work unit, staging, and the build."""
