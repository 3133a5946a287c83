"""Prepare what a run trains: the model with its tokenizer, and the batches of its data."""
