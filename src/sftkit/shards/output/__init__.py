"""The output directory, local or remote: what exists already, and how a data set is published."""
