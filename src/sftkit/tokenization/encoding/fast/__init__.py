"""The fast encoder: which tokenizers and texts it encodes exactly as the reference does, and its engines."""
