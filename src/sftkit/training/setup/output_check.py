"""Refuse an output directory in which a run would overwrite files of others."""

from __future__ import annotations

import re
from pathlib import Path

from sftkit.config.commands import TrainConfig
from sftkit.errors import OutputError
from sftkit.storage.adapter_files import SETTINGS_NAME
from sftkit.storage.model_location import model_location
from sftkit.storage.training_files import is_training_output
from sftkit.training.adapters.adapter_choice import uses_adapters

_WRITTEN = re.compile(
    r"(config|\w+_config|trainer_state|tokenizer|special_tokens_map|added_tokens|vocab)\.json|training_args\.bin|"
    r"(training_logs|samples)\.jsonl|training_curve\.png|README\.md|chat_template\.jinja|merges\.txt|vocab\.txt|"
    r".+\.(safetensors|safetensors\.index\.json|model)|(pytorch|adapter)_model.*\.bin|merged"
)
"""Names of what a run writes into its output directory, besides checkpoints (see `free_place`)."""


def check_training_output(config: TrainConfig) -> None:
    """Refuse an output directory that is the model itself, or where a run would write through a link.

    A run may go on in the directory of a model that an earlier run wrote there; merging never writes into a model.
    A file with several names (a hard link) would change under all of them.

    Raises:
        OutputError: the directory cannot be used; it says why.
    """
    if config.training_arguments.get("do_train") is False:
        return  # an evaluation only writes a file of its own
    _check("output_dir", Path(config.output_dir), config)
    if config.save_model_dir is not None:
        _check("save_model_dir", Path(config.save_model_dir).expanduser(), config)


def _check(key: str, folder: Path, config: TrainConfig) -> None:
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{key} {folder}: is a file; choose another {key}")
    if folder.is_dir() and (config.merge_only or not is_training_output(folder)):
        adapters = [("adapter_name_or_path", name) for name in config.adapter_name_or_path]
        for source, name in [("model_name_or_path", config.model_name_or_path or ""), *adapters]:
            place = Path(model_location(name))
            if name and place.is_dir() and place.samefile(folder):
                what = "model" if source == "model_name_or_path" else "adapter"
                raise OutputError(
                    f"{key} {folder}: is the directory of the {what} ({source}), whose files the run would replace; "
                    f"choose another {key}"
                )
    if not uses_adapters(config) and (folder / SETTINGS_NAME).exists():
        raise OutputError(
            f"{key} {folder}: holds a LoRA adapter ({SETTINGS_NAME}), for which the saved model would be taken; choose "
            f"another {key}"
        )
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        is_shared = path.is_symlink() or (path.is_file() and path.stat().st_nlink > 1)
        if is_shared and _WRITTEN.fullmatch(path.name):
            raise OutputError(
                f"{path}: is a link, and the run would change the file or directory behind it; remove the link, or "
                f"choose another {key}"
            )
