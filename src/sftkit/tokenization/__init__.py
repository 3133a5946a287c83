"""Text -> tokens and their loss masks: chat rendering, encoding, spans. The only code that writes -100."""
