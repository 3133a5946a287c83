"""Trainer callbacks: logs, sample answers, and checkpoints."""
