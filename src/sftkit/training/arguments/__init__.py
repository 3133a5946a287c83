"""Make `transformers.TrainingArguments` from the config: types, old argument names, and conflicting settings."""
