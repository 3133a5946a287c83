"""Reading source files as bytes and text: decompression, hashing, limits and encodings."""
