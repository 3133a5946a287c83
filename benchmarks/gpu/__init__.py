"""Correctness and speed of training on one GPU: `make bench-gpu`."""
