"""The `sftkit` command: its options, and everything it prints."""
