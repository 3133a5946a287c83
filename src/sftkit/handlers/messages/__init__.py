"""Reads conversations in the forms found in data sets, and makes messages of them as chat templates take them."""
