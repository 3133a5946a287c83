"""From text to token ids, and which tokens are in given spans of the text: a reference encoder and fast engines."""
