"""data_paths -> source files -> work units -> batches of rows, each row with its number in its source."""
