"""`sftkit.merge_adapters`, and what `sftkit train --merge_only` calls with its config."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from sftkit.api.use_cases import ConfigFiles, restored_transformers_logging
from sftkit.config.commands import TrainConfig
from sftkit.config.reading.python_values import load_values
from sftkit.core.panics import panics_as_errors


def merge_adapters(config: TrainConfig | ConfigFiles | None = None, **keys: Any) -> Path:
    """Merge LoRA adapters into their model and save it as a model of its own; the same as `sftkit train --merge_only`.

    Args:
        config: a config object, or the path of a config file, or several paths; later files win.
        **keys: `adapter_name_or_path`, `model_name_or_path`, `output_dir`, `save_dtype`; they win over `config`.

    Returns:
        The directory of the merged model.

    Raises:
        ConfigError: keys or values are wrong, or are about training.
        TrainingError: an adapter does not fit the model, or one of them cannot be found.
        TokenizerError: the tokenizer cannot be loaded.
        OutputError: `output_dir` cannot be written.

    Example:
        >>> sftkit.merge_adapters(  # doctest: +SKIP
        ...     adapter_name_or_path="adapter", model_name_or_path="MODEL", output_dir="merged", save_dtype="bfloat16"
        ... )
        PosixPath('merged')
    """
    from sftkit.training.arguments.build_arguments import argument_problems, extra_keys

    settings = load_values(
        TrainConfig, config, {"merge_only": True, **keys}, extra_keys=extra_keys(), check_extra=argument_problems
    )
    return run_merge(settings)


@panics_as_errors()
def run_merge(settings: TrainConfig) -> Path:
    """Do what `train` does with a config with `merge_only` that is complete."""
    from sftkit.config.validation import validate_config
    from sftkit.tokenization.loading.tokenizer_loading import check_tokenizer_name
    from sftkit.training.adapters.adapter_choice import with_adapters
    from sftkit.training.adapters.merge_conflicts import check_merge_only
    from sftkit.training.arguments.build_arguments import check_packages, make_training_arguments
    from sftkit.training.models.model_name import check_model_name
    from sftkit.training.setup.output_check import check_training_output

    check_merge_only(settings)
    validate_config(settings)
    check_packages(settings)
    settings = with_adapters(settings)
    check_training_output(settings)
    check_model_name(settings)
    check_tokenizer_name(settings)
    arguments = make_training_arguments(replace(settings, training_arguments={"use_cpu": True}))
    from sftkit.training.saving.merged_model import save_merged_only
    from sftkit.training.setup.trainer_setup import errors_of_a_run

    with restored_transformers_logging(), errors_of_a_run(settings.output_dir):
        return save_merged_only(settings, arguments)
