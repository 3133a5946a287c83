"""The model of a run: loaded, fitted with tokens and adapters, and what it can do."""
