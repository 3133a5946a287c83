"""Pauses garbage collection while much is loaded: nothing of it is garbage, and each collection visits all of it."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused_garbage_collection() -> Iterator[None]:
    """Collect no garbage in this block, nor visit what it has loaded when collecting begins again."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():  # otherwise the caller has frozen objects and wants them to stay so
            gc.freeze()
            gc.unfreeze()  # into the oldest generation
        gc.enable()
