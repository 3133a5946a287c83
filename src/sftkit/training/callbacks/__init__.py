"""Callbacks of the Trainer: sealed checkpoints, logs, and sample answers; and the listener they report to."""
