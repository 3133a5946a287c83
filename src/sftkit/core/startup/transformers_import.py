"""Import transformers for tokenizers only: without torch, which takes seconds and hundreds of megabytes, and without
scanning all its models. Keep what it logs out of the terminal.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

from sftkit.core.startup.garbage_collection import paused_garbage_collection
from sftkit.core.startup.unscanned_models import put_off_scan

_LIBRARIES = ("accelerate", "datasets", "huggingface_hub", "peft", "torch", "transformers")

_without_torch = False


def library_log_level(log_level: str) -> str:
    """Return the level of the log lines of transformers for a `log_level` of a command.

    They are about the work of transformers, such as a setting of a tokenizer that it ignores, not about what the user
    asked for; they are shown where debug lines are.

    Example:
        >>> library_log_level("warning"), library_log_level("debug")
        ('error', 'debug')
    """
    return log_level if log_level in ("debug", "critical") else "error"


def quiet_libraries(log_level: str) -> None:
    """Keep log lines and warnings of libraries out of the terminal, in this process and those that it starts.

    What a user sets for this (TRANSFORMERS_VERBOSITY, PYTHONWARNINGS) is kept.

    Args:
        log_level: that of the command; see `library_log_level`.
    """
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", library_log_level(log_level))
    if log_level != "debug" and not sys.warnoptions:
        warnings.filterwarnings("ignore", module=rf"({'|'.join(_LIBRARIES)})(\.|$)")


def leave_out_torch() -> None:
    """Make `import_transformers` leave out torch from now on in this process."""
    global _without_torch
    _without_torch = True


def import_transformers() -> None:
    """Import transformers: without torch after `leave_out_torch`, otherwise as usual.

    Commands leave out torch. In a process of a user of the Python API, who may train next, transformers must find it.
    """
    if _without_torch:
        import_transformers_without_torch()


def import_transformers_without_torch() -> None:
    """Import transformers as if torch were not installed. This holds for the life of the process.

    transformers looks for torch once, when it is imported. `None` in `sys.modules` makes Python treat a module as
    missing; it is removed right after the import, so that user functions can import torch. Does nothing if torch or
    transformers is already imported.
    """
    if "torch" in sys.modules or "transformers" in sys.modules:
        return
    sys.modules["torch"] = None  # type: ignore[assignment]  # typeshed allows only modules
    # Without this, transformers prints that PyTorch is missing.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    sys.meta_path.insert(0, _ScanLater)
    try:
        with paused_garbage_collection():
            from transformers.models.auto.tokenization_auto import AutoTokenizer

        assert AutoTokenizer is not None
    finally:
        del sys.modules["torch"]
        sys.meta_path.remove(_ScanLater)


class _ScanLater:
    """An import hook that puts off the scan of transformers' models (`unscanned_models`)."""

    @classmethod
    def find_spec(cls, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Find `transformers.utils.import_utils` as usual, and replace what scans in it."""
        if name != "transformers.utils.import_utils":
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_replace(module: ModuleType) -> None:
                execute(module)
                put_off_scan(module)

            spec.loader.exec_module = execute_and_replace  # type: ignore[method-assign]  # of this module only
        return spec
