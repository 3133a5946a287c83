"""Text -> tokens and loss masks: rendering, encoding, spans, labels. The only code that writes -100."""
