"""Plan a run without loading weights: its steps, learning rates, checkpoints and cost."""
