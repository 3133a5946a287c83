"""What a run changes about a model when it is loaded."""
