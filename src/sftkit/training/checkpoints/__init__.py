"""Checkpoints: which are complete, which one a run resumes from, and what identifies a run."""
