"""Encodes conversations with the tokens of inference where a prompt ends and an answer begins."""
