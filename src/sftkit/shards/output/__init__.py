"""The output directory, local or remote, and how a data set is published in it."""
