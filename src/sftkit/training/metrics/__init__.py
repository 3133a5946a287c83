"""Measure a run: throughput, floating-point operations, limits of the hardware, and the loss curve."""
