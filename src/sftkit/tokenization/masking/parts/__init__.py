"""The parts of trained spans: reasoning, tool calls, content, stop tokens, and loss weights."""
