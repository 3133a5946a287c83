"""A report of shards as one HTML page: counts, findings, pictures, sampled rows, and rows that were removed."""
