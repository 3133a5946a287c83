"""Limits on untrusted input.

They limit the memory of reading and rendering, the time and output of templates, and the operations they may use.
"""
