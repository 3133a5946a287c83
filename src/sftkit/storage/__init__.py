"""Files wherever they are: local ones, and those of object stores and other file systems that fsspec reaches."""
