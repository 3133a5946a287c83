"""Prints what commands found and did: plans, outcomes, rows, findings and, in `training`, training runs."""
