"""What a run saves at its end: the model in the type asked for, adapters for the original base, merged models."""
