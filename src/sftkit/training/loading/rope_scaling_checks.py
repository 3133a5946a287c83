"""Find values of `rope_scaling` that transformers takes without a word, or only refuses once the model is loaded."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from sftkit.config.fields import did_you_mean

_SCALED_BY_FACTOR = frozenset({"linear", "dynamic", "yarn", "llama3"})
"""Kinds of RoPE scaling that need a factor."""

_ANY_KIND = frozenset({"rope_type", "type", "rope_theta", "partial_rotary_factor"})
_OF_SOME_MODELS = frozenset({"mrope_section", "mrope_interleaved", "interleaved", "llama_4_scaling_beta"})
"""Keys that validation in transformers ignores for models that have them, 5.23."""

_EXTENDED = frozenset({"factor", "original_max_position_embeddings"})
_KEYS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "default": frozenset(),
        "linear": _EXTENDED,
        "dynamic": _EXTENDED,
        "yarn": _EXTENDED | {"attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"},
        "longrope": _EXTENDED | {"attention_factor", "short_factor", "long_factor"},
        "llama3": _EXTENDED | {"low_freq_factor", "high_freq_factor"},
        "proportional": frozenset({"factor"}),
    }
)
"""What each kind reads (`modeling_rope_utils` of transformers, 5.23)."""

_LISTS = frozenset({"short_factor", "long_factor"})
_NUMBERS = frozenset({"rope_theta", "partial_rotary_factor"}).union(*_KEYS.values()) - _LISTS - {"truncate"}
_ABOVE_ZERO = _NUMBERS - {"factor", "mscale", "mscale_all_dim"}
_MAY_BE_NULL = frozenset({"attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim"})


def rope_scaling_problems(scaling: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence for each value of `rope_scaling` that cannot be used; nothing is imported.

    Example:
        >>> list(rope_scaling_problems({"rope_type": "linear", "factor": "x"}))
        ["rope_scaling: factor must be a number, not 'x'"]
    """
    if not scaling:
        return
    kind = scaling.get("rope_type", scaling.get("type"))
    if kind is None:
        yield "rope_scaling needs rope_type; write rope_scaling={rope_type: yarn, factor: 4.0}"
        return
    if not isinstance(kind, str):
        yield f"rope_scaling: rope_type must be a name such as yarn, not {kind!r}"
        return
    if scaling.get("type", kind) != kind:
        yield f"rope_scaling: type={scaling['type']} and rope_type={kind} contradict each other; remove type"
    if kind in _SCALED_BY_FACTOR and "factor" not in scaling:
        yield f"rope_scaling: {kind} needs a factor; write rope_scaling={{rope_type: {kind}, factor: 4.0}}"
    known = _KEYS.get(kind)  # a kind that is unknown is reported with those that transformers has
    if known is not None:
        for key in scaling:
            if key not in known | _ANY_KIND | _OF_SOME_MODELS:
                yield f"rope_scaling: {kind} has no {key}{did_you_mean(key, known | _ANY_KIND)}; remove it"
    for key, value in scaling.items():
        yield from _value_problems(key, value)
    low: Any = scaling.get("low_freq_factor")
    high: Any = scaling.get("high_freq_factor")
    if _is_number(low) and _is_number(high) and low >= high:
        yield f"rope_scaling: high_freq_factor must be more than low_freq_factor ({low}), not {high}"


def _value_problems(key: str, value: Any) -> Iterator[str]:
    if value is None and key in _MAY_BE_NULL:
        return
    if key in _LISTS:
        if not isinstance(value, (list, tuple)) or not all(map(_is_number, value)):
            yield f"rope_scaling: {key} must be a list of numbers, not {value!r}"
    elif key in _NUMBERS and not _is_number(value):
        yield f"rope_scaling: {key} must be a number, not {value!r}"
    elif key == "factor" and value < 1:
        yield f"rope_scaling: factor must be 1 or more, not {value}"
    elif key == "original_max_position_embeddings" and (value < 1 or value != int(value)):
        yield f"rope_scaling: {key} must be a whole number above 0, not {value}"
    elif key in _ABOVE_ZERO and value <= 0:
        yield f"rope_scaling: {key} must be more than 0, not {value}"
    elif key == "truncate" and not isinstance(value, bool):
        yield f"rope_scaling: truncate must be true or false, not {value!r}"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
