"""Source formats: JSON Lines, JSON arrays, CSV and TSV, Parquet and Arrow."""
