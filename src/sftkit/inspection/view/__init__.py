"""Rows for display: which ones, their text token by token, their turns and findings."""
