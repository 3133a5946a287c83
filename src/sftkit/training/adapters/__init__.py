"""LoRA adapters: adding new ones, going on from those of earlier runs, and merging them into the model."""
