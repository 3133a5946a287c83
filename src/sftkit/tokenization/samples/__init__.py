"""Which samples a conversation becomes when each turn is trained as the model sees it at inference."""
