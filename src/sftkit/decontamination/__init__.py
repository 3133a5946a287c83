"""Finds texts that share words with the questions of evaluation sets."""
