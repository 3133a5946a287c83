"""What correct rows look like for a tokenizer, its chat template and a run."""
