"""What a chat template does with messages, found out by rendering made-up conversations."""
