"""Formats of rows: which columns hold the question, the answer and what comes before them."""
