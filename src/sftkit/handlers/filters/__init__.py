"""Handlers that only remove rows: by a condition, a function, or their length."""
