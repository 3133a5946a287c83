"""Decide which adapters a run continues or merges, and into which model, before anything heavy is imported.

Several adapters are treated as in LLaMA-Factory: all but the last are merged into the model, and the last one is
trained further (https://github.com/hiyouga/LLaMA-Factory, `adapter_name_or_path`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from sftkit.config.commands import TrainConfig
from sftkit.config.fms.defaults import FMS_DEFAULTS
from sftkit.config.schema.option_values import FMS
from sftkit.errors import ConfigError, TrainingError
from sftkit.storage.adapter_files import AdapterFiles, open_adapter
from sftkit.storage.model_location import adapter_base, location_problem
from sftkit.training.adapters.variant_checks import variant_problems

NEW_ADAPTERS: Mapping[str, Any] = MappingProxyType(
    {"lora_r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "use_rslora": False, "use_dora": False}
)
"""Key -> its value for adapters that a run adds, if it is not set."""

_NAMES_OF_PEFT: Mapping[str, str] = MappingProxyType(
    {
        "lora_r": "r",
        "lora_alpha": "lora_alpha",
        "lora_target_modules": "target_modules",
        "lora_modules_to_save": "modules_to_save",
        "lora_target_parameters": "target_parameters",
        "lora_rank_pattern": "rank_pattern",
        "lora_alpha_pattern": "alpha_pattern",
        "use_rslora": "use_rslora",
        "use_dora": "use_dora",
    }
)
"""Key -> the entry of adapter_config.json that fixes its value when an adapter is trained further."""

_ALL_LINEAR = ("all-linear",)
_ANOTHER = "to train another one, set create_new_adapter=true, which merges this one into the model first"


def uses_adapters(config: TrainConfig) -> bool:
    """Whether the run trains adapters, which `load_in_4bit` implies."""
    return config.use_peft or config.load_in_4bit


def adapters_to_merge(config: TrainConfig) -> tuple[str, ...]:
    """The adapters that are merged into the model before anything else, in this order."""
    names = config.adapter_name_or_path
    return names[:-1] if continued_adapter(config) is not None else names


def continued_adapter(config: TrainConfig) -> str | None:
    """The adapter that is trained further, or evaluated; None if all are merged into the model."""
    stays_apart = uses_adapters(config) or not _trains(config)
    if config.create_new_adapter or config.merge_only or not stays_apart or not config.adapter_name_or_path:
        return None
    return config.adapter_name_or_path[-1]


def with_adapters(config: TrainConfig) -> TrainConfig:
    """Return the config with the model that its adapters belong to, all of these adapters, and their LoRA settings.

    - An adapter in the place of the model becomes the first adapter, on the model that it was trained for.
    - Adapters that were merged into the base of a named one, as that one records, come before it.
    - The tokenizer is that of the last adapter that has one, unless the config names another.
    - Rank, scale and so on are those of the adapter that is trained further.

    Doing it again changes nothing.

    Raises:
        ConfigError: settings contradict each other, or those that an adapter was trained with.
        TrainingError: there is no adapter of this name, or its base model is missing.
    """
    model = config.model_name_or_path
    is_adapter = model is not None and adapter_base(model) is not None
    names = (*([model] if model is not None and is_adapter else []), *config.adapter_name_or_path)
    if not names:
        if config.create_new_adapter:
            raise ConfigError("create_new_adapter needs an adapter to merge first; set adapter_name_or_path")
        return _with_new_adapters(config)
    if not is_adapter:
        _check_purpose(config)
    adapters = _chain([_opened(name, "model_name_or_path" if is_adapter else "") for name in names])
    resolved = replace(
        config,
        model_name_or_path=_base_of(adapters[0]) if is_adapter or model is None else model,
        adapter_name_or_path=tuple(each.name for each in adapters),
        tokenizer_name_or_path=config.tokenizer_name_or_path or _tokenizer_of(adapters),
    )
    if config.init_from_config:
        raise ConfigError("init_from_config starts from random weights, on which no adapter was trained; remove it")
    key = "load_in_4bit" if config.load_in_4bit else "quantization_config" if config.quantization_config else None
    if key is not None and adapters_to_merge(resolved):
        merged = ", ".join(adapters_to_merge(resolved))
        raise ConfigError(
            f"{key}: adapters cannot be merged into a quantized model ({merged}); merge them first, with "
            "merge_only=true, and name the result as model_name_or_path"
        )
    return _with_new_adapters(resolved) if continued_adapter(resolved) is None else _as_trained(resolved, adapters[-1])


def _check_purpose(config: TrainConfig) -> None:
    if _trains(config) and not uses_adapters(config) and not config.merge_only:
        raise ConfigError(
            "adapter_name_or_path: set use_peft=true to go on training the adapter; to merge it and train the whole "
            "model, name the adapter as model_name_or_path instead"
        )


def _trains(config: TrainConfig) -> bool:
    return str(config.training_arguments.get("do_train")).lower() not in ("false", "0", "no", "off")


def _opened(name: str, key: str) -> AdapterFiles:
    try:
        return open_adapter(name)
    except TrainingError as error:
        raise TrainingError(f"{key or 'adapter_name_or_path'}: {error}") from error


def _chain(given: Sequence[AdapterFiles]) -> list[AdapterFiles]:
    """The given adapters and, before the first one, those that were merged into its base."""
    before = [_recorded(name, digest, given[0]) for name, digest in given[0].merged_first()]
    chain = before
    for adapter in given:
        recorded = [digest for _, digest in adapter.merged_first()]
        known = [each.digest for each in chain]
        if recorded and recorded != known:
            first = ", ".join(name for name, _ in adapter.merged_first())
            raise ConfigError(
                f"adapter_name_or_path: {adapter.name} was trained on its model with {first} merged into it; name "
                f"exactly these before it, or {adapter.name} alone"
            )
        chain.append(adapter)
    return chain


def _recorded(name: str, digest: str, adapter: AdapterFiles) -> AdapterFiles:
    reason = f"{adapter.name} was trained on its model with the adapter {name} merged into it"
    try:
        found = open_adapter(name)
    except TrainingError as error:
        raise TrainingError(
            f"{reason}, which is not there ({error}); put it back, or name all of them in adapter_name_or_path"
        ) from error
    if found.digest != digest:
        raise TrainingError(f"{reason}, but {name} has changed since; use a copy of it from that time")
    return found


def _base_of(adapter: AdapterFiles) -> str:
    name = adapter.base
    remedy = f"set model_name_or_path to its base model, and adapter_name_or_path={adapter.name}"
    if not name:
        raise TrainingError(f"model_name_or_path: the adapter {adapter.name!r} does not name its base model; {remedy}")
    if adapter_base(name) is not None:
        raise TrainingError(
            f"model_name_or_path: the base model of the adapter {adapter.name!r} is itself an adapter, {name!r}; "
            f"{remedy}"
        )
    problem = location_problem(name)
    if problem is not None:
        raise TrainingError(
            f"model_name_or_path: {adapter.name!r} is an adapter of {name!r}, which cannot be loaded from here "
            f"({problem}); {remedy}"
        )
    return name


def _tokenizer_of(adapters: Sequence[AdapterFiles]) -> str | None:
    return next((str(each.folder) for each in reversed(adapters) if each.has_tokenizer), None)


def _with_new_adapters(config: TrainConfig) -> TrainConfig:
    filled = replace(config, **{key: value for key, value in NEW_ADAPTERS.items() if getattr(config, key) is None})
    problems = list(variant_problems(filled, trains_adapters=uses_adapters(config)))
    if problems:
        raise ConfigError(problems)
    return filled


def _as_trained(config: TrainConfig, adapter: AdapterFiles) -> TrainConfig:
    """Give the keys the values that the adapter was trained with, and refuse others."""
    settings = adapter.settings
    only_new = next((key for key in ("init_lora_weights", "lora_exclude_modules") if getattr(config, key)), None)
    if _trains(config) and only_new is not None:
        raise ConfigError(
            f"{only_new} is for new adapters, and {adapter.name} is trained further; remove it, or {_ANOTHER}"
        )
    if config.embedding_size_multiple_of > 1:
        raise ConfigError(
            f"embedding_size_multiple_of: rows cannot be added while {adapter.name} is trained further; remove it, or "
            f"{_ANOTHER}"
        )
    problems = []
    for key, name in _NAMES_OF_PEFT.items():
        wanted, trained = getattr(config, key), settings.get(name)
        if key == "lora_target_modules":
            wanted, trained = sorted({each.rpartition(".")[2] for each in wanted}), adapter.modules
        if _is_given(config, key) and _comparable(wanted) != _comparable(trained):
            problems.append(
                f"{key}: the adapter {adapter.name} was trained with {_shown(trained)}, not {_shown(wanted)}; remove "
                f"the key to go on with it, or {_ANOTHER}"
            )
    if problems:
        raise ConfigError(problems)
    keys: dict[str, Any] = {
        key: settings.get(_NAMES_OF_PEFT[key]) for key in ("lora_r", "lora_alpha", "use_rslora", "use_dora")
    }
    keys["lora_dropout"] = settings.get("lora_dropout") if config.lora_dropout is None else config.lora_dropout
    return replace(config, **{key: NEW_ADAPTERS[key] if value is None else value for key, value in keys.items()})


def _is_given(config: TrainConfig, key: str) -> bool:
    value = getattr(config, key)
    if config.compat == FMS and value == FMS_DEFAULTS.get(key):
        return False
    return value is not None and value != _ALL_LINEAR and value != () and value != {}


def _comparable(value: Any) -> Any:
    """Lists of names are equal in any order; nothing, false and an empty list are the same."""
    if isinstance(value, (list, tuple)):
        return sorted(value) or None
    return value or None


def _shown(value: Any) -> str:
    return "none" if not value else ", ".join(value) if isinstance(value, (list, tuple)) else str(value)
