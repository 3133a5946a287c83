"""The optimizer of a run: groups of parameters with learning rates of their own, and optimizers of ours."""
