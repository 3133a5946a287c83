"""The header of `.npy` files of one dimension, which comes before their first value."""

from __future__ import annotations

import io

import numpy.lib.format


def npy_header(descr: str, length: int) -> bytes:
    """Return the header of an array of this data type (as `numpy.dtype.descr` says it) and length.

    Example:
        >>> npy_header("<i4", 3).split(b"{")[1].rstrip()
        b"'descr': '<i4', 'fortran_order': False, 'shape': (3,), }"
    """
    stream = io.BytesIO()
    header = {"descr": descr, "fortran_order": False, "shape": (length,)}
    numpy.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue()
