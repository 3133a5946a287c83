"""Config keys -> `transformers.TrainingArguments`: their types, old names, and settings that conflict."""
