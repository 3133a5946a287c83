"""Training options of fms-hf-tuning that are no keys here: what each sets, or why it has no effect or is refused."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from sftkit.config.commands import TrainConfig
from sftkit.errors import ConfigError
from sftkit.training.arguments.argument_fields import TrainingArgument
from sftkit.training.distributed import warn_on_main_process

_log = logging.getLogger(__name__)

_LORA, _NONE = "lora", "none"


@dataclass
class FmsTranslation:
    """What options of fms-hf-tuning mean here."""

    given: Mapping[str, Any]
    """All of them, by name."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Keys of TrainConfig and their values."""
    defaults: dict[str, Any] = field(default_factory=dict)
    """The same for keys that are not set."""
    report_to: list[str] = field(default_factory=list)
    """Trackers of transformers."""
    environment: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


Rule = Callable[[Any, FmsTranslation], None]


@dataclass(frozen=True)
class FmsArgument:
    """An option of fms-hf-tuning."""

    argument: TrainingArgument
    """How it is shown and read."""
    rule: Rule
    """What happens to its value."""


def fms_problems(given: Mapping[str, Any]) -> list[str]:
    """What is wrong with options of fms-hf-tuning, one sentence each; other keys are passed over."""
    return _translated(given).problems


def with_fms_arguments(config: TrainConfig) -> TrainConfig:
    """Return the config with the keys that options of fms-hf-tuning stand for, and warn of those without effect.

    Raises:
        ConfigError: an option is refused.
    """
    translation = _translated(config.training_arguments)
    if translation.problems:
        raise ConfigError(translation.problems)
    for warning in translation.warnings:
        warn_on_main_process(_log, warning)
    os.environ.update(translation.environment)
    rest = {key: value for key, value in config.training_arguments.items() if key not in FMS_ARGUMENTS}
    if translation.report_to:
        named = rest.get("report_to", [])
        others = [named] if isinstance(named, str) else list(named)
        rest["report_to"] = list(dict.fromkeys([*(each for each in others if each != _NONE), *translation.report_to]))
    unset = {key: value for key, value in translation.defaults.items() if not getattr(config, key)}
    return replace(config, **{**unset, **translation.settings, "training_arguments": rest})


def _translated(given: Mapping[str, Any]) -> FmsTranslation:
    translation = FmsTranslation({name: value for name, value in given.items() if name in FMS_ARGUMENTS})
    for name, value in translation.given.items():
        if value is not None:
            FMS_ARGUMENTS[name].rule(value, translation)
    return translation


def _names(value: Any) -> list[str]:
    """The words of a list option, given as a list, or as text with commas or spaces."""
    items = value if isinstance(value, (list, tuple)) else str(value).replace(",", " ").split()
    return [str(item).strip() for item in items]


def _sets(key: str) -> Rule:
    def rule(value: Any, translation: FmsTranslation) -> None:
        translation.settings.setdefault(key, str(value))

    return rule


def _sets_variable(variable: str) -> Rule:
    def rule(value: Any, translation: FmsTranslation) -> None:
        translation.environment[variable] = str(value)

    return rule


def _without_effect(name: str, instead: str, *harmless: str) -> Rule:
    """Warn, unless the value asks for what happens anyway."""

    def rule(value: Any, translation: FmsTranslation) -> None:
        if str(value).lower() not in harmless:
            translation.warnings.append(f"{name} has no effect: {instead}")

    return rule


def _refused(name: str, reason: str, *harmless: str) -> Rule:
    def rule(value: Any, translation: FmsTranslation) -> None:
        if str(value).lower() not in harmless:
            translation.problems.append(f"{name} is not supported: {reason}")

    return rule


def _peft_method(value: Any, translation: FmsTranslation) -> None:
    method = str(value).lower()
    if method == _LORA:
        translation.settings["use_peft"] = True
    elif method != _NONE:
        translation.problems.append(
            f"peft_method must be lora or none, not {value!r}: there is no prompt tuning and no activated LoRA here"
        )


def _trackers(value: Any, translation: FmsTranslation) -> None:
    for name in _names(value):
        tracker = name.lower()
        if tracker == "aim":
            if not {"aim_url", "aim_remote_server_ip"} & set(translation.given):
                translation.defaults["aim_repo"] = "."
        elif tracker == "hf_resource_scanner":
            translation.warnings.append(
                "trackers: hf_resource_scanner has no effect: the report of the run has its memory and speed"
            )
        elif tracker not in (_NONE, "file_logger"):  # the log file is always written
            translation.report_to.append(tracker)


def _aim_server(value: Any, translation: FmsTranslation) -> None:
    port = translation.given.get("aim_remote_server_port")
    if port is None:
        translation.problems.append("aim_remote_server_ip is given alone; set aim_remote_server_port, too")
    else:
        translation.settings["aim_repo"] = f"aim://{value}:{port}"


def _aim_port(value: Any, translation: FmsTranslation) -> None:
    if translation.given.get("aim_remote_server_ip") is None:
        translation.problems.append("aim_remote_server_port is given alone; set aim_remote_server_ip, too")


def _flash(value: Any, translation: FmsTranslation) -> None:
    if value in ("flash_attention_2", "flash_attention_3"):
        translation.settings["use_flash_attn"] = True
    else:
        translation.settings.setdefault("attn_implementation", str(value))


def _bnb(value: Any, translation: FmsTranslation) -> None:
    kind = (_names(value) or [""])[0].lower()
    if kind == "nf4":
        translation.settings["load_in_4bit"] = True
    else:
        translation.problems.append(f"bnb_qlora must be nf4, not {kind!r}: it is the only type of 4 bits here")


_WORDS = list[str] | str
_IMAGES = "there are no rows with images here; use fms-hf-tuning for vision models"
_PROMPTS = "it belongs to prompt tuning, which is not done here"

# name, type, what it sets or does, rule
_TABLE: tuple[tuple[str, Any, str, Rule], ...] = (
    ("peft_method", str, "lora sets use_peft; none trains the model", _peft_method),
    ("trackers", _WORDS, "sets report_to, and aim_repo for aim; the log file is always written", _trackers),
    ("aim_remote_server_ip", str, "with aim_remote_server_port, sets aim_repo", _aim_server),
    ("aim_remote_server_port", str, "with aim_remote_server_ip, sets aim_repo", _aim_port),
    ("aim_url", str, "sets aim_repo", _sets("aim_repo")),
    ("aim_experiment", str, "sets experiment", _sets("experiment")),
    ("mlflow_tracking_uri", str, "sets the variable MLFLOW_TRACKING_URI", _sets_variable("MLFLOW_TRACKING_URI")),
    ("mlflow_experiment", str, "sets the variable MLFLOW_EXPERIMENT_NAME", _sets_variable("MLFLOW_EXPERIMENT_NAME")),
    ("clearml_project", str, "sets the variable CLEARML_PROJECT", _sets_variable("CLEARML_PROJECT")),
    ("clearml_task", str, "sets the variable CLEARML_TASK", _sets_variable("CLEARML_TASK")),
    ("flash_attn_implementation", str, "sets use_flash_attn, or attn_implementation for other names", _flash),
    ("bnb_qlora", _WORDS, "nf4 sets load_in_4bit", _bnb),
    *(
        (name, kind, f"has no effect: {instead}", _without_effect(name, instead, *harmless))
        for name, kind, instead, harmless in (
            ("multipack", str, "set tokens_per_device_batch to fill batches by tokens, or packing=bfd", ()),
            ("enable_reduce_loss_sum", bool, "the loss of a step is always the sum over its trained tokens, of all "
             "devices and accumulation steps, divided by their number", ("false",)),
            ("fast_kernels", _WORDS, "set use_liger_kernel=true for fused kernels (package liger-kernel)", ()),
            ("fused_lora", _WORDS, "adapters are computed by peft", ()),
            ("fast_moe", str, "experts are computed by transformers, all of them on every device", ()),
            ("dequantize", bool, "weights in MXFP4 or FP8 are always converted back to be trained", ("false",)),
            ("run_uri_export_path", str, "trackers print where their run is", ()),
            ("scanner_output_filename", str, "the report of the run has its memory and speed", ()),
            ("training_logs_filename", str, "the log is training_logs.jsonl in output_dir", ("training_logs.jsonl",)),
            ("num_virtual_tokens", int, _PROMPTS, ()),
            ("prompt_tuning_init", str, _PROMPTS, ()),
            ("prompt_tuning_init_text", str, _PROMPTS, ()),
        )
    ),
    *(
        (name, kind, f"is refused: {reason}", _refused(name, reason, *harmless))
        for name, kind, reason, harmless in (
            ("quantization_method", str, "a model is quantized by bitsandbytes here; set load_in_4bit=true for QLoRA",
             (_NONE, "mxfp4")),
            ("auto_gptq", _WORDS, "the model cannot be held in GPTQ; set load_in_4bit=true for QLoRA", ()),
            ("bias", str, "LoRA trains no biases here; name them in lora_modules_to_save or leave bias out", (_NONE,)),
            ("alora_invocation_string", str, "activated LoRA is not done here; set peft_method=lora", ()),
            ("invocation_string", str, "activated LoRA is not done here; set peft_method=lora", ()),
            ("trainer_controller_config_file", str, "a run is not controlled by rules here; set eval_strategy, "
             "save_strategy and load_best_model_at_end", ()),
            ("mcp", str, "sequences are not divided over devices here", ()),
            ("dataset_image_field", str, _IMAGES, ()),
        )
    ),
)  # fmt: skip

FMS_ARGUMENTS: Mapping[str, FmsArgument] = MappingProxyType(
    {
        name: FmsArgument(TrainingArgument(name, kind | None, f"Of fms-hf-tuning; {what}.", "None"), rule)
        for name, kind, what, rule in _TABLE
    }
)
"""Every such option by name."""

WORD_LISTS = frozenset(name for name, kind, _, _ in _TABLE if kind == _WORDS)
"""Those that take several words on a command line."""
