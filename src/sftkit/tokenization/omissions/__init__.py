"""Finds what of a conversation the chat template did not write."""
