"""What a chat template does with messages, learned by rendering small made-up conversations."""
