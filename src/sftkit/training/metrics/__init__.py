"""Throughput, floating-point operations, hardware limits, and the loss curve."""
