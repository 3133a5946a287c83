"""Checks of training arguments before anything is loaded: values, conflicts, missing packages."""
