"""The order of rows: splitting, mixing and packing. Works on integers only: counts, lengths and indices."""
