"""A run's settings -> transformers' TrainingArguments, checked before anything is loaded."""
