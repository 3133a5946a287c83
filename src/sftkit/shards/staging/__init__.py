"""Staged units: the finished rows of a work unit, written and read."""
