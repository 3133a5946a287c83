"""Verifies a data set against its manifest: files, counts, sources, tokenizer and versions."""
