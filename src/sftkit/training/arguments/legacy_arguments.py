"""Training arguments of older transformers that command lines still carry, and what each becomes today.

A name that the installed transformers still has is left to it: this table only speaks for the others.
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
    """Values on their way to TrainingArguments, with what is to be said about them.

    values: key -> value; a removed key has been taken out before its rule runs.
    environment: variables that took the place of an argument.
    """

    values: dict[str, Any]
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)

    def mapping(self, key: str) -> dict[str, Any]:
        """The keys and values under `key`, made where there are none yet; ready to be added to."""
        current = self.values.get(key)
        if isinstance(current, str):
            self.problems.append(f"{key} is a file here; write what the older option says into {current}")
            return {}
        result: dict[str, Any] = dict(current or {})
        self.values[key] = result
        return result


Rule = Callable[[Any, Translation], None]


@dataclass(frozen=True)
class RemovedArgument:
    """A name transformers has dropped: how it is shown and read, and what happens to its value."""

    argument: TrainingArgument
    rule: Rule


def translate(translation: Translation, removed: Mapping[str, RemovedArgument]) -> None:
    """Turn every removed key among the values into what stands for it today."""
    for name, entry in removed.items():
        if name in translation.values:
            value = translation.values.pop(name)
            if value is not None:
                entry.rule(value, translation)


def _becomes(new: str) -> Rule:
    def rule(value: Any, translation: Translation) -> None:
        translation.values.setdefault(new, value)

    return rule


def _no_effect(name: str, reason: str, harmless: Any) -> Rule:
    """Nothing stands for it: say so, unless the value asks for what happens anyway."""

    def rule(value: Any, translation: Translation) -> None:
        if value != harmless:
            translation.warnings.append(f"{name} has no effect: {reason}")

    return rule


def _when_true(new: str, setting: Any) -> Rule:
    def rule(value: Any, translation: Translation) -> None:
        if value:
            translation.values.setdefault(new, setting)

    return rule


def _into(section: str, key: str) -> Rule:
    def rule(value: Any, translation: Translation) -> None:
        translation.mapping(section).setdefault(key, value)

    return rule


def _warmup_ratio(value: float, translation: Translation) -> None:
    if not 0 <= value <= 1:
        translation.problems.append(f"warmup_ratio must lie between 0 and 1, not {value}")
    elif not translation.values.get("warmup_steps"):
        # Below 1, warmup_steps is the ratio; the whole run is the largest number below 1. Given steps always won.
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
_MIXED = "mixed precision is chosen with bf16 or fp16 alone"

_CHOICES = {"evaluation_strategy": ("no", "steps", "epoch")}

# name, annotation, what it becomes, rule
_RENAMED: tuple[tuple[str, str, str, Rule], ...] = (
    ("evaluation_strategy", "str", "eval_strategy", _becomes("eval_strategy")),
    ("warmup_ratio", "float | None", "warmup_steps below 1, unless warmup_steps is given", _warmup_ratio),
    ("per_gpu_train_batch_size", "int | None", "per_device_train_batch_size", _becomes("per_device_train_batch_size")),
    ("per_gpu_eval_batch_size", "int | None", "per_device_eval_batch_size", _becomes("per_device_eval_batch_size")),
    ("no_cuda", "bool", "use_cpu", _becomes("use_cpu")),
    ("group_by_length", "bool", "train_sampling_strategy=group_by_length",
     _when_true("train_sampling_strategy", "group_by_length")),
    ("logging_dir", "str | None", "the directory of TensorBoard's event files", _logging_dir),
    ("adafactor", "bool", "optim=adafactor", _when_true("optim", "adafactor")),
    ("dispatch_batches", "bool | None", "accelerator_config.dispatch_batches",
     _into("accelerator_config", "dispatch_batches")),
    ("include_inputs_for_metrics", "bool", "include_for_metrics=inputs",
     _when_true("include_for_metrics", ["inputs"])),
    ("push_to_hub_model_id", "str | None", "hub_model_id", _becomes("hub_model_id")),
    ("push_to_hub_token", "str | None", "hub_token", _becomes("hub_token")),
    ("torchdynamo", "str | None", "torch_compile_backend", _torchdynamo),
    ("fsdp_min_num_params", "int", "fsdp_config.min_num_params", _into("fsdp_config", "min_num_params")),
    ("fsdp_transformer_layer_cls_to_wrap", "str | None", "fsdp_config.transformer_layer_cls_to_wrap", _layer_classes),
)  # fmt: skip

# name, annotation, why nothing happens, the value that needs no word
_WITHOUT_EFFECT: tuple[tuple[str, str, str, Any], ...] = (
    ("overwrite_output_dir", "bool", "an output_dir is always written to, and nothing else in it is touched", False),
    ("save_safetensors", "bool", "weights are always saved as safetensors", True),
    ("use_mps_device", "bool", "an Apple GPU is used where there is one", False),
    ("use_ipex", "bool", _GONE, False),
    ("jit_mode_eval", "bool", _GONE, False),
    ("half_precision_backend", "str", _MIXED, "auto"),
    ("fp16_backend", "str", _MIXED, "auto"),
    ("fp16_opt_level", "str", _MIXED, "O1"),
    ("tpu_num_cores", "int | None", _GONE, None),
    ("tpu_metrics_debug", "bool", _GONE, False),
    ("past_index", "int", _GONE, -1),
    ("mp_parameters", "str", _GONE, ""),
    ("ray_scope", "str | None", "there is no hyperparameter search here", "last"),
    ("sharded_ddp", "str", "use fsdp", ""),
    ("push_to_hub_organization", "str | None", "name the organization in hub_model_id", None),
    ("use_legacy_prediction_loop", "bool", _GONE, False),
)


def _table() -> dict[str, RemovedArgument]:
    table: dict[str, RemovedArgument] = {}
    for name, annotation, becomes, rule in _RENAMED:
        shown = f"Of older transformers; becomes {becomes}."
        argument = TrainingArgument(name, annotation, shown, "None", _CHOICES.get(name, ()))
        table[name] = RemovedArgument(argument, rule)
    for name, annotation, reason, harmless in _WITHOUT_EFFECT:
        shown = f"Of older transformers; no effect: {reason}."
        argument = TrainingArgument(name, annotation, shown, "None")
        table[name] = RemovedArgument(argument, _no_effect(name, reason, harmless))
    return table


REMOVED_ARGUMENTS: Mapping[str, RemovedArgument] = MappingProxyType(_table())
