"""What a step is trained on: its cross entropy in chunks of positions, and the auxiliary loss of mixtures."""
