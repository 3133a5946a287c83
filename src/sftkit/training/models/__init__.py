"""The model of a run: loading, new tokens, frozen parameters, attention, and capabilities."""
