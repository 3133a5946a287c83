"""Source formats: JSON Lines, JSON arrays, CSV, TSV, Parquet and Arrow.

A format is a subclass of `SourceFormat` with a `registered_as` in a module of this folder.
"""
