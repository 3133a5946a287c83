"""Finding the assistant turns in a rendered conversation: where each starts, and where it ends."""
