"""Faster starts: transformers without torch, without a scan of its models, and without garbage collection."""
