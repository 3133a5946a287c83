"""The order of rows: splitting, mixing and packing, on integers only."""
