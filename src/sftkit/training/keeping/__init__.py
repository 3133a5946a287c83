"""Checkpoints: which are whole, which run they are of, and going on from them."""
