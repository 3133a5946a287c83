"""Keep the files of a multimodal model that say how images and sound are prepared.

The tokenizer is saved with a model, its processors are not: nothing here loads them. Without these files, a server such
as vLLM cannot use the trained model.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

PROCESSOR_FILES = (
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "audio_tokenizer_config.json",
)


def find_processor_files(location: str) -> list[Path]:
    """Return the files of a model that configure its processors.

    Args:
        location: directory or Hub id of the model; of the Hub, files are downloaded if they are not in the cache.
    """
    if Path(location).is_dir():
        return [path for name in PROCESSOR_FILES if (path := Path(location) / name).is_file()]
    from transformers.utils.hub import cached_file

    found = []
    for name in PROCESSOR_FILES:
        with suppress(OSError):  # the Hub cannot be reached: the model itself came from the cache
            cached = cached_file(location, name, _raise_exceptions_for_missing_entries=False)
            found += [Path(cached)] if cached is not None else []
    return found


def copy_processor_files(files: Iterable[Path], folder: str | Path) -> None:
    """Copy the files into the directory of a saved model; those that are there already are kept."""
    for file in files:
        target = Path(folder) / file.name
        if not target.exists():
            shutil.copyfile(file, target)
