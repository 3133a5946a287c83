"""Apply `model_kwargs` to the config of a model, and say which of them is the reason if the model cannot be loaded."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sftkit.config.commands import TrainConfig
from sftkit.config.fields import did_you_mean
from sftkit.core.error_text import single_line
from sftkit.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_LOADING = frozenset(
    {
        *("proxies", "tqdm_class", "offload_folder", "offload_buffers", "subfolder", "variant", "adapter_kwargs"),
        *("adapter_name", "generation_config", "distributed_config", "device_mesh", "tp_size", "allow_all_kernels"),
        *("use_kernels", "kernel_config", "key_mapping", "code_revision", "experts_implementation", "mirror"),
        *("low_cpu_mem_usage", "from_tf", "from_flax", "offload_state_dict", "resume_download", "use_auth_token"),
    }
)
"""Arguments of `from_pretrained` that are not in its signature, transformers 5.23."""

Outline = Callable[[TrainConfig], Any]
"""Makes the model of a run without weights."""


def read_config(location: str, config: TrainConfig) -> tuple[PreTrainedConfig, dict[str, Any]]:
    """Read the config of a model, with the values of it that are in `model_kwargs`.

    Returns:
        The config, and the entries of `model_kwargs` that it does not have: arguments of `from_pretrained`.

    Raises:
        ConfigError: a key is in neither, or the config refuses a value.
    """
    try:
        settings, remaining = _read(location, config, config.model_kwargs)
    except Exception as error:  # of the files of a model, or of the checks in its class
        problem = _refused(location, config, error)
        if problem is None:
            raise
        raise ConfigError(problem) from error
    remaining = {key: value for key, value in remaining.items() if key in config.model_kwargs}
    if not getattr(settings, "auto_map", None):  # code that comes with a model can take any key
        _refuse_unknown(location, config, settings, remaining)
    return settings, remaining


def failure_by_kwargs(config: TrainConfig, outline: Outline, reason: str) -> str | None:
    """Say which entry of `model_kwargs` is the reason why a model cannot be loaded; None if it is none of them.

    Args:
        config: the run.
        outline: makes its model without weights.
        reason: message of the error.
    """
    given, plain = config.model_kwargs, _attempt(outline, config, {})
    if not given or plain is None:
        return None
    if _attempt(outline, config, given) is None:
        refused = (key for key, value in given.items() if _attempt(outline, config, {key: value}) is None)
        key = next(refused, None)
        wrong = given if key is None else {key: given[key]}
        return f"model_kwargs: the model cannot be made with {_assigned(wrong)}: {reason}"
    loading = {key: value for key, value in given.items() if not hasattr(plain.config, key)}
    named = {key: value for key, value in loading.items() if isinstance(value, str) and value and value in reason}
    return f"model_kwargs: the model cannot be loaded with {_assigned(named)}: {reason}" if named else None


def weights_misfit(config: TrainConfig, outline: Outline) -> str | None:
    """Say which entries of `model_kwargs` need other weights than the model has; None if none of them does."""
    given, plain = config.model_kwargs, _attempt(outline, config, {})
    changed = None if plain is None else _attempt(outline, config, given)
    if plain is None or changed is None or not _needs_others(changed, plain):
        return None
    found = {}
    for key, value in given.items():
        alone = _attempt(outline, config, {key: value})
        if alone is not None and _needs_others(alone, plain):
            found[key] = value
    found = found or dict(given)
    before = ", ".join(f"{key}={getattr(plain.config, key)!r}" for key in found if hasattr(plain.config, key))
    return (
        f"model_kwargs: the weights in {config.model_name_or_path} do not fit with {_assigned(found)}"
        f"{f' (they have {before})' if before else ''}; remove {', '.join(found)}"
    )


def _read(location: str, config: TrainConfig, values: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    from transformers import AutoConfig

    read: Any = AutoConfig.from_pretrained
    settings, remaining = read(
        location, trust_remote_code=config.trust_remote_code, return_unused_kwargs=True, **values
    )
    return settings, remaining


def _refused(location: str, config: TrainConfig, error: Exception) -> str | None:
    """Which value the config does not take; None if it cannot be read without `model_kwargs` either."""
    if not config.model_kwargs:
        return None
    try:
        _read(location, config, {})
    except Exception:  # the error is that of the model
        return None
    for key, value in config.model_kwargs.items():
        try:
            _read(location, config, {key: value})
        except Exception as refusal:
            lines = str(refusal).strip().splitlines()
            strict = lines and lines[0].endswith(":")  # "Validation error for field ...:", and then the reason
            reason = lines[-1].strip().removeprefix("TypeError: ") if strict else single_line(refusal)
            return f"model_kwargs: {key} cannot be {value!r}: {reason}"
    return f"model_kwargs: {_assigned(config.model_kwargs)} cannot be used: {single_line(error)}"


def _refuse_unknown(location: str, config: TrainConfig, settings: Any, remaining: Mapping[str, Any]) -> None:
    from transformers import PreTrainedConfig, PreTrainedModel

    name = config.model_name_or_path
    loading = _LOADING | inspect.signature(PreTrainedModel.from_pretrained).parameters.keys()
    for key in config.model_kwargs:
        if (key in remaining and key not in loading) or callable(getattr(type(settings), key, None)):
            raise ConfigError(
                f"model_kwargs: the config of {name} has no {key}{_hint(key, settings, loading)}; remove it"
            )
    nested = {key: value for key, value in config.model_kwargs.items() if isinstance(value, Mapping)}
    plain = _read(location, config, {})[0] if nested else None
    for key, values in nested.items():
        part = getattr(plain, key, None)
        if isinstance(part, PreTrainedConfig):
            for inner in values:
                if not hasattr(part, inner):
                    raise ConfigError(
                        f"model_kwargs: {key} in the config of {name} has no {inner}{_hint(inner, part, ())}; remove it"
                    )


def _hint(key: str, settings: Any, others: Iterable[str]) -> str:
    return did_you_mean(key, [*settings.to_dict(), *settings.attribute_map, *others])


def _attempt(outline: Outline, config: TrainConfig, values: Mapping[str, Any]) -> Any:
    """The model without weights, with these `model_kwargs`; None if it cannot be made."""
    try:
        return outline(replace(config, model_kwargs=values))
    except Exception:  # the caller has the error of the whole model, and asks which value is the reason
        return None


def _needs_others(model: Any, plain: Any) -> bool:
    known = {name: values.shape for name, values in plain.named_parameters()}
    return any(known.get(name) != values.shape for name, values in model.named_parameters())


def _assigned(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in values.items())
