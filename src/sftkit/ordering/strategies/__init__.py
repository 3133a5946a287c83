"""The built-in packing strategies."""
