"""The texts of rows that are compared: with one another, and with evaluation questions."""
