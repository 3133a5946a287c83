"""Which characters of a conversation carry a loss, and the labels that follow from them.

`turns.turn_finder.TurnFinder` is the entry point; docs/masking.md explains the method.
"""
