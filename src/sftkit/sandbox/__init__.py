"""Limits on untrusted input: the memory, time and output of templates, and operations they may not use."""
