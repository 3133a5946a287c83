"""The data handlers: what a data config can do to each row, such as rendering, tokenizing or renaming columns."""
