"""Make `transformers.TrainingArguments` from the configuration of a training run.

Neither transformers nor torch is imported before every value has been read and checked.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from sftkit.config.commands import TrainConfig
from sftkit.core.error_text import single_line
from sftkit.core.startup.transformers_import import library_log_level
from sftkit.errors import ConfigError, RequirementError, TrainingError
from sftkit.training.arguments.argument_fields import TrainingArgument, source_fields
from sftkit.training.arguments.checks.best_metric import (
    add_early_stopping,
    best_metric_problems,
    is_better_when_greater,
)
from sftkit.training.arguments.checks.optimizer_checks import MUON, rate_problems
from sftkit.training.arguments.checks.optional_packages import missing_packages
from sftkit.training.arguments.checks.setting_conflicts import check_combinations, missing_adapter_packages
from sftkit.training.arguments.checks.value_checks import value_problems
from sftkit.training.arguments.coercion import coerce
from sftkit.training.arguments.fms_arguments import FMS_ARGUMENTS, WORD_LISTS, fms_problems
from sftkit.training.arguments.legacy_arguments import REMOVED_ARGUMENTS, RemovedArgument, Translation, translate
from sftkit.training.arguments.public_values import PublicValues
from sftkit.training.arguments.trackers import missing_trackers, tracker_problems, unknown_trackers
from sftkit.training.arguments.usual_arguments import OWN_DEFAULTS
from sftkit.training.distributed import (
    accelerator_available,
    disable_fsdp_on_cpu,
    silence_other_processes,
    warn_on_main_process,
    world_size,
)

if TYPE_CHECKING:
    from sftkit.training.arguments.run_arguments import RunArguments

_log = logging.getLogger(__name__)

# Deprecated names that transformers still accepts, with a warning: the new name is passed on instead.
_DEPRECATED = {
    "gradient_checkpointing": "activation_checkpointing",
    "gradient_checkpointing_kwargs": "activation_checkpointing_kwargs",
}


@cache
def training_argument_fields() -> Mapping[str, TrainingArgument]:
    """Every key of `sftkit train` that is not its own: the fields of TrainingArguments, removed ones, and options of
    fms-hf-tuning.

    Raises:
        TrainingError: transformers is not installed, or its source does not have the expected form.
    """
    removed = {name: entry.argument for name, entry in _removed().items()}
    of_fms = {name: entry.argument for name, entry in FMS_ARGUMENTS.items()}
    optimizer = source_fields()["optim"]
    with_muon = replace(optimizer, choices=(*optimizer.choices, MUON))
    return MappingProxyType({**of_fms, **source_fields(), "optim": with_muon, **removed})


@cache
def extra_keys() -> Mapping[str, Any]:
    """The same keys with the types that the command line parser needs: bool, words, or str for text converted later."""
    kinds: dict[str, Any] = {
        name: bool if field.is_boolean else str for name, field in training_argument_fields().items()
    }
    return MappingProxyType(kinds | dict.fromkeys(WORD_LISTS, tuple[str, ...]))


def argument_problems(given: Mapping[str, Any]) -> list[str]:
    """What is wrong with the keys and values given for the Trainer, one sentence each."""
    translation = _translated(given)
    values = translation.values
    return [
        *translation.problems,
        *value_problems(values),
        *unknown_trackers(values.get("report_to")),
        *fms_problems(given),
    ]


def check_packages(config: TrainConfig) -> None:
    """Check, without importing anything heavy, that the packages that a run needs are installed.

    What only matters on a GPU is left to `make_training_arguments`. The plan of a run (`dry_run`) does not need the
    package of its optimizer.

    Raises:
        RequirementError: with a sentence for each package that is missing.
    """
    values = _translated(config.training_arguments).values
    missing = [
        *missing_packages({**values, "optim": None} if config.dry_run else values),
        *missing_trackers(values.get("report_to")),
        *missing_adapter_packages(config),
    ]
    if missing:
        raise RequirementError(missing)


def make_training_arguments(config: TrainConfig) -> RunArguments:
    """The Trainer's arguments for a run; arguments that transformers has renamed or removed are translated.

    Also sets up the device of the run and, under a launcher, its process group. Call it before any data is built.

    Raises:
        ConfigError: with every key or value that cannot be used, or with a combination that the Trainer refuses.
        TrainingError: the processes or the device cannot be set up.
    """
    translation = _translated(config.training_arguments)
    public = PublicValues.of(config)
    _add_settings(config, translation, public)
    translation.problems += tracker_problems(translation.values["report_to"])
    translation.problems += rate_problems(config)
    translation.problems += best_metric_problems(translation.values.get("metric_for_best_model"), config.eval_data)
    if translation.problems:
        raise ConfigError(translation.problems)
    for warning in translation.warnings:
        warn_on_main_process(_log, warning)
    silence_other_processes()
    os.environ.update(translation.environment)
    values = translation.values
    if values.get("use_cpu") or not accelerator_available():
        values["use_cpu"] = True
    disable_fsdp_on_cpu(use_cpu=bool(values.get("use_cpu")))
    arguments = _build(values, public)
    check_combinations(config, arguments)
    return arguments


@cache
def _removed() -> Mapping[str, RemovedArgument]:
    """The removed arguments that the installed transformers does not have any more."""
    present = source_fields()
    return MappingProxyType({name: entry for name, entry in REMOVED_ARGUMENTS.items() if name not in present})


def _translated(given: Mapping[str, Any]) -> Translation:
    problems: list[str] = []
    values = coerce(given, training_argument_fields(), problems)
    translation = Translation({key: value for key, value in values.items() if key not in FMS_ARGUMENTS}, problems)
    translate(translation, _removed())
    present = source_fields()
    for old, new in _DEPRECATED.items():
        if new in present and translation.values.get(old) is not None:
            translation.values.setdefault(new, translation.values.pop(old))
    return translation


def _add_settings(config: TrainConfig, translation: Translation, public: PublicValues) -> None:
    """Add the settings that TrainConfig holds for the Trainer, and sftkit's defaults for those not given."""
    values = translation.values
    if config.split_batches:
        translation.mapping("accelerator_config")["split_batches"] = True
        batch = int(values.get("per_device_train_batch_size", 8))
        if batch % world_size():
            translation.problems.append(
                f"split_batches: a batch of {batch} (per_device_train_batch_size) cannot be split evenly"
                f" over {world_size()} processes"
            )
    checkpointing = "activation_checkpointing_kwargs"
    if checkpointing not in source_fields():
        checkpointing = "gradient_checkpointing_kwargs"
    if config.use_reentrant is not None:
        translation.mapping(checkpointing)["use_reentrant"] = config.use_reentrant
    if config.activation_offloading:
        translation.mapping(checkpointing)["offload"] = True
    values["output_dir"] = str(config.output_dir)  # without the text of its interpolation
    values["log_level"] = library_log_level(config.log_level)  # the Trainer uses it for transformers only
    translation.problems += add_early_stopping(config, values)
    if config.eval_data:
        values.setdefault("do_eval", True)
    for name, value in OWN_DEFAULTS.items():
        values.setdefault(name, value)
    best = values.get("metric_for_best_model")
    if best is not None and values.get("greater_is_better") is None:
        values["greater_is_better"] = is_better_when_greater(best)
    values.setdefault("run_name", config.experiment or None)
    if values["run_name"] is not None:
        name = str(values["run_name"])
        values["run_name"] = public.text(config.training_arguments.get("run_name", config.experiment))
        if values["run_name"] != name:
            warn_on_main_process(
                _log,
                f"trackers get {values['run_name']!r} as the name of the run, because they are given nothing from the "
                "environment; set run_name on the command line to show another one",
            )


def _build(values: dict[str, Any], public: PublicValues) -> RunArguments:
    from sftkit.training.arguments.run_arguments import RunArguments

    try:
        if isinstance(values.get("parallelism_config"), dict):
            from accelerate.parallelism_config import ParallelismConfig

            values = values | {"parallelism_config": ParallelismConfig(**values["parallelism_config"])}
        is_muon = values.get("optim") == MUON
        arguments = RunArguments(**(values | {"optim": "adamw_torch"} if is_muon else values))
        if is_muon:  # transformers takes only the optimizers that it makes itself
            arguments.optim = MUON
    except ImportError as error:
        raise RequirementError(_sentence(error, values)) from error
    except (ValueError, TypeError, KeyError, NotImplementedError) as error:
        raise ConfigError(_sentence(error, values)) from error
    except (RuntimeError, OSError) as error:
        file = getattr(error, "filename", None)
        key = next((f"{key}: {file}: " for key, value in values.items() if file is not None and value == file), "")
        reason = str(getattr(error, "strerror", None) or _one_line(error))
        raise TrainingError(f"{key}the run cannot be set up: {reason}") from error
    arguments.public = public
    # `accelerate launch` can set the precision too, and the Trainer records that in mixed_precision only.
    arguments.bf16 = arguments.mixed_precision == "bf16"
    arguments.fp16 = arguments.mixed_precision == "fp16"
    return arguments


def _sentence(error: Exception, values: Mapping[str, Any]) -> str:
    text = _one_line(error)
    named = [key for key in values if key in text]
    return text if named else f"the training arguments cannot be combined: {text}"


def _one_line(error: Exception) -> str:
    text = single_line(error)
    return text or type(error).__name__
