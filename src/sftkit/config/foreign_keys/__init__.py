"""The keys of other tools for supervised fine-tuning, and what to write instead."""
