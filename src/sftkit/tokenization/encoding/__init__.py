"""Text -> token ids, and which tokens lie in given character spans: the reference, and faster engines."""
