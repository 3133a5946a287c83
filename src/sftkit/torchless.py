"""Keeping torch out of processes that only prepare data: importing it costs seconds and hundreds of megabytes."""

from __future__ import annotations

import os
import sys


def import_transformers_without_torch() -> None:
    """Import transformers as if torch were not installed. Once done, it stays so for the life of this process.

    transformers looks for torch when it is imported and remembers what it found; `None` in `sys.modules` is Python's
    own way to say that a module is not there. It is taken back at once, so that a user's own function may import
    torch. Does nothing where either of them is imported already.
    """
    if "torch" in sys.modules or "transformers" in sys.modules:
        return
    sys.modules["torch"] = None  # type: ignore[assignment]  # typeshed knows modules only
    # It would advise that PyTorch is missing.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    try:
        from transformers import AutoTokenizer

        assert AutoTokenizer is not None
    finally:
        del sys.modules["torch"]
