"""Checks of rows of tokens against the expectations, many rows at once."""
