"""Estimate the memory of a run on each device, without weights: a step is run on tensors that have no values."""
