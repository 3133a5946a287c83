"""What `compat: fms` and the command lines of fms-hf-tuning mean in terms of the keys of this package."""
