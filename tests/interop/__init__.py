"""Shards of sftkit in other trainers: the loss of their first batch is ours, and that of each sequence by itself."""
