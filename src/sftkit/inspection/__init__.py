"""Shards -> a report: what they hold, and rows token by token as the model will see them."""
