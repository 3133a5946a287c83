"""Finding the source files of a data set, and refusing those that cannot be sources."""
