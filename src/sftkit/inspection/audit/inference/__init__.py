"""Compares the tokens of shards with those that a model has at inference, whichever code made the shards."""
