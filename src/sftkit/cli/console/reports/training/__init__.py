"""Prints plans, progress and outcomes of training runs."""
