"""Adding new files to a finished data set: `append`."""
