"""Experts of a mixture on tensors without values."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def grouped_experts() -> Iterator[None]:
    """Within the block, transformers multiplies grouped matrices by its own operation.

    That of torch allocates the same, but without values it takes bfloat16 only.
    """
    from transformers.integrations import moe

    library: Any = moe
    name = "_can_use_grouped_mm"
    before = getattr(library, name, None)
    if before is None:  # in older and newer versions of transformers
        yield
        return
    setattr(library, name, lambda *_arguments: False)
    try:
        yield
    finally:
        setattr(library, name, before)
