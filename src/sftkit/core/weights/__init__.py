"""Weights of tokens in the loss."""
