"""`.npy` files: packs of NeMo, two-dimensional arrays of ids, and sets of arrays with the offsets of rows."""
