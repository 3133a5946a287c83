"""The model of a run: loading, new tokens, adapters, freezing, attention, and what it is capable of."""
