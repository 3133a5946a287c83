"""The header of `.npy` files: data type and shape."""

from __future__ import annotations

import re
from typing import IO, Any

import numpy as np

NUMPY_MAGIC = b"\x93NUMPY"

_HEADER = re.compile(
    rb"\{'descr': '(?P<type>\|O|[<>|=][iufb][1248])', 'fortran_order': (?P<order>True|False), "
    rb"'shape': \((?P<shape>[\d, ]{0,100})\), \}\s*"
)


def read_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Read shape and data type, up to the first byte of the array.

    numpy's own function evaluates the header as Python code, if only a literal.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no array of numbers or objects in version 1.0.
    """
    start = file.read(len(NUMPY_MAGIC) + 4)
    if len(start) < len(NUMPY_MAGIC) + 4 or start[-4:-2] != b"\x01\x00":
        raise ValueError("it has not the header of version 1.0")
    found = _HEADER.fullmatch(file.read(int.from_bytes(start[-2:], "little")))
    if found is None:
        raise ValueError("its header is not that of an array of numbers or objects")
    if found["order"] == b"True" and b"," in found["shape"].strip(b" ,"):
        raise ValueError("its rows are not contiguous (fortran_order)")
    kind = found["type"].decode()
    return tuple(int(size) for size in found["shape"].split(b",") if size.strip()), np.dtype(kind)
