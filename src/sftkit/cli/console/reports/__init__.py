"""Prints what commands found and did: plans, outcomes, rows, findings and training runs."""
