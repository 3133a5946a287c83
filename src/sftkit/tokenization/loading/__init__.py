"""Loading the tokenizer of a model, with its chat template and special tokens."""
