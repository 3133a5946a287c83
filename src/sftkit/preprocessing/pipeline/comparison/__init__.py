"""Texts and keys by which rows are compared: with one another, and with evaluation questions."""
