"""The model of a run: loading, new tokens, adapters, frozen parameters, attention, and capabilities."""
