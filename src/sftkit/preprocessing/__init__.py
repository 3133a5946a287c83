"""Raw data and a config -> shards: planning, the pipeline of a work unit, staging, and the build itself."""
