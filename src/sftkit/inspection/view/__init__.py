"""Selects rows, and prepares them for display: the text of each token, turns and findings."""
