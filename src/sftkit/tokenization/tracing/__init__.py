"""Chat templates as straight-line programs: what a template does with a conversation, kept for others like it."""
