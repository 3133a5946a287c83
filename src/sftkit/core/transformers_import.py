"""Importing transformers for tokenizers only: without torch, which costs seconds and hundreds of megabytes, and without
looking through its own sources twice.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

_without_torch = False


def leave_out_torch() -> None:
    """Make `import_transformers` import transformers without torch, from now on in this process."""
    global _without_torch
    _without_torch = True


def import_transformers() -> None:
    """Import transformers the way this process wants it: without torch after `leave_out_torch`, else as usual.

    Commands leave torch out. In a process of somebody else, who may train next, transformers must find it.
    """
    if _without_torch:
        import_transformers_without_torch()


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
    sys.meta_path.insert(0, _ScanOnce)
    try:
        from transformers import AutoTokenizer

        assert AutoTokenizer is not None
    finally:
        del sys.modules["torch"]
        sys.meta_path.remove(_ScanOnce)


class _ScanOnce:
    """An import hook: lets the scan of transformers' models, which reads every file of theirs, remember its results.

    transformers makes it twice, for itself and for `transformers.models`, nearly half a second each. Where the function
    is not what it is in 5.x, nothing is changed.
    """

    @classmethod
    def find_spec(cls, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Find `transformers.utils.import_utils` as usual, and touch up what it defines."""
        if name != "transformers.utils.import_utils":
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_remember(module: ModuleType) -> None:
                execute(module)
                scan = getattr(module, "create_import_structure_from_path", None)
                if callable(scan):
                    module.create_import_structure_from_path = cache(scan)  # type: ignore[attr-defined]

            spec.loader.exec_module = execute_and_remember  # type: ignore[method-assign]
        return spec
