"""What test_ray has nodes do."""

from __future__ import annotations

import errno
import os

from sftkit.errors import DataError


def square(number: int) -> int:
    if number == 13:
        raise DataError("in.jsonl:13: an unlucky row; leave it out")
    if number == 28:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), "/somewhere")
    if number == 666:
        os._exit(1)
    return number * number
