"""The audit of existing shards, whoever made them."""
