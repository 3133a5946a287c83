"""Finds rows that are equal, or nearly so: from texts or tokens to keys, and from the keys of all rows to groups."""
