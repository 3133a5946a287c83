"""Models that do more than text, trained on text: their class, the parts that compute text, and their other files."""
