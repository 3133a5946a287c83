"""Source files: finding them, dividing them into work units, and reading rows with their row numbers."""
