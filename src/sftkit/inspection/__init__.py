"""Inspects shards: a summary, rows shown token by token, an audit, and verification against the manifest."""
