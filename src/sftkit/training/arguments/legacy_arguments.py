"""Training arguments that transformers has renamed or removed, and what each one sets today.

Only arguments that the installed transformers no longer has are translated; it handles the others itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from sftkit.training.arguments.argument_fields import TrainingArgument


@dataclass
class Translation:
    """Values for TrainingArguments while removed arguments are replaced, and messages for the user."""

    values: dict[str, Any]
    """Key -> value. A removed key is taken out before its rule runs."""

    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    environment: dict[str, str] = field(default_factory=dict)
    """Environment variables that replaced an argument."""

    def mapping(self, key: str) -> dict[str, Any]:
        """The mapping under `key`, ready to be added to; created if there is none."""
        current = self.values.get(key)
        if isinstance(current, str):
            self.problems.append(f"{key} names the file {current}; add the setting of the older option to that file")
            return {}
        result: dict[str, Any] = dict(current or {})
        self.values[key] = result
        return result


Rule = Callable[[Any, Translation], None]


@dataclass(frozen=True)
class RemovedArgument:
    """An argument that transformers has removed."""

    argument: TrainingArgument
    """How it is shown and read."""

    rule: Rule
    """What happens to its value."""


def translate(translation: Translation, removed: Mapping[str, RemovedArgument]) -> None:
    """Replace every removed key among the values by its present equivalent."""
    for name, entry in removed.items():
        if name in translation.values:
            value = translation.values.pop(name)
            if value is not None:
                entry.rule(value, translation)


def _renamed(new: str) -> Rule:
    def rule(value: Any, translation: Translation) -> None:
        translation.values.setdefault(new, value)

    return rule


def _no_effect(name: str, reason: str, harmless: Any) -> Rule:
    """Nothing replaced it: warn, unless the value asks for what happens anyway."""

    def rule(value: Any, translation: Translation) -> None:
        if value != harmless:
            translation.warnings.append(f"{name} has no effect: {reason}")

    return rule


def _when_true(new: str, setting: Any) -> Rule:
    def rule(value: Any, translation: Translation) -> None:
        if value:
            translation.values.setdefault(new, setting)

    return rule


def _moved_into(section: str, key: str) -> Rule:
    def rule(value: Any, translation: Translation) -> None:
        translation.mapping(section).setdefault(key, value)

    return rule


def _warmup_ratio(value: float, translation: Translation) -> None:
    if not 0 <= value <= 1:
        translation.problems.append(f"warmup_ratio must be between 0 and 1, not {value}")
    elif not translation.values.get("warmup_steps"):  # as before, a number of steps takes precedence
        # Below 1, warmup_steps is a share of the run; the largest number below 1 stands for the whole run.
        translation.values["warmup_steps"] = min(value, math.nextafter(1.0, 0.0))


def _logging_dir(value: str, translation: Translation) -> None:
    translation.environment["TENSORBOARD_LOGGING_DIR"] = value


def _torchdynamo(value: str, translation: Translation) -> None:
    translation.values.setdefault("torch_compile", True)
    translation.values.setdefault("torch_compile_backend", value)


def _layer_classes(value: str, translation: Translation) -> None:
    names = [name.strip() for name in value.split(",")]
    translation.mapping("fsdp_config").setdefault("transformer_layer_cls_to_wrap", names)


_GONE = "transformers no longer has it"
_MIXED = "set bf16 or fp16 to choose mixed precision"

_CHOICES = {"evaluation_strategy": ("no", "steps", "epoch")}

# name, type, what it sets today, rule
_RENAMED: tuple[tuple[str, Any, str, Rule], ...] = (
    ("evaluation_strategy", str, "eval_strategy", _renamed("eval_strategy")),
    ("warmup_ratio", float | None, "warmup_steps below 1, unless warmup_steps is given", _warmup_ratio),
    ("per_gpu_train_batch_size", int | None, "per_device_train_batch_size", _renamed("per_device_train_batch_size")),
    ("per_gpu_eval_batch_size", int | None, "per_device_eval_batch_size", _renamed("per_device_eval_batch_size")),
    ("no_cuda", bool, "use_cpu", _renamed("use_cpu")),
    ("group_by_length", bool, "train_sampling_strategy=group_by_length",
     _when_true("train_sampling_strategy", "group_by_length")),
    ("logging_dir", str | None, "the directory of TensorBoard's event files", _logging_dir),
    ("adafactor", bool, "optim=adafactor", _when_true("optim", "adafactor")),
    ("dispatch_batches", bool | None, "accelerator_config.dispatch_batches",
     _moved_into("accelerator_config", "dispatch_batches")),
    ("include_inputs_for_metrics", bool, "include_for_metrics=inputs",
     _when_true("include_for_metrics", ["inputs"])),
    ("push_to_hub_model_id", str | None, "hub_model_id", _renamed("hub_model_id")),
    ("push_to_hub_token", str | None, "hub_token", _renamed("hub_token")),
    ("torchdynamo", str | None, "torch_compile_backend", _torchdynamo),
    ("fsdp_min_num_params", int, "fsdp_config.min_num_params", _moved_into("fsdp_config", "min_num_params")),
    ("fsdp_transformer_layer_cls_to_wrap", str | None, "fsdp_config.transformer_layer_cls_to_wrap", _layer_classes),
)  # fmt: skip

# name, type, why it has no effect, the value that needs no warning
_WITHOUT_EFFECT: tuple[tuple[str, Any, str, Any], ...] = (
    ("overwrite_output_dir", bool, "output_dir is always written to, and other files in it are left alone", False),
    ("save_safetensors", bool, "weights are always saved as safetensors", True),
    ("use_mps_device", bool, "an Apple GPU is used automatically", False),
    ("use_ipex", bool, _GONE, False),
    ("jit_mode_eval", bool, _GONE, False),
    ("half_precision_backend", str, _MIXED, "auto"),
    ("fp16_backend", str, _MIXED, "auto"),
    ("fp16_opt_level", str, _MIXED, "O1"),
    ("tpu_num_cores", int | None, _GONE, None),
    ("tpu_metrics_debug", bool, _GONE, False),
    ("past_index", int, _GONE, -1),
    ("mp_parameters", str, _GONE, ""),
    ("ray_scope", str | None, "sftkit has no hyperparameter search", "last"),
    ("sharded_ddp", str, "use fsdp", ""),
    ("push_to_hub_organization", str | None, "name the organization in hub_model_id", None),
    ("use_legacy_prediction_loop", bool, _GONE, False),
)


def _table() -> dict[str, RemovedArgument]:
    table: dict[str, RemovedArgument] = {}
    for name, annotation, replacement, rule in _RENAMED:
        description = f"Removed from transformers; sets {replacement}."
        argument = TrainingArgument(name, annotation, description, "None", _CHOICES.get(name, ()))
        table[name] = RemovedArgument(argument, rule)
    for name, annotation, reason, harmless in _WITHOUT_EFFECT:
        argument = TrainingArgument(name, annotation, f"Removed from transformers; has no effect: {reason}.", "None")
        table[name] = RemovedArgument(argument, _no_effect(name, reason, harmless))
    return table


REMOVED_ARGUMENTS: Mapping[str, RemovedArgument] = MappingProxyType(_table())
"""Every removed argument by name."""
