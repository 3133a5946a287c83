"""The settings of `optim=muon` in `optim_args`, read without torch."""

from __future__ import annotations

import math
from typing import Any

from sftkit.config.words import parse_boolean

_KEYS = ("momentum", "nesterov", "ns_steps", "adjust_lr_fn")
_RATE_ADJUSTMENTS = ("match_rms_adamw", "original")
_MOST_STEPS = 99
"""Of Newton-Schulz iterations; `torch.optim.Muon` refuses more."""


def muon_settings(optim_args: str | None) -> dict[str, Any]:
    """The settings of Muon in `optim_args`, and the defaults of others.

    Raises:
        ValueError: a key is unknown, or has a value that it cannot have.

    Example:
        >>> muon_settings("momentum=0.9, nesterov=false")
        {'adjust_lr_fn': 'match_rms_adamw', 'momentum': 0.9, 'nesterov': False}
    """
    found: dict[str, Any] = {"adjust_lr_fn": _RATE_ADJUSTMENTS[0]}
    for pair in filter(None, (part.strip() for part in (optim_args or "").split(","))):
        key, _, text = (part.strip() for part in pair.partition("="))
        if key not in _KEYS:
            raise ValueError(f"muon has no {key!r}; use {', '.join(_KEYS)}")
        found[key] = _value(key, text)
    return found


def _value(key: str, text: str) -> Any:
    if key == "nesterov":
        chosen = parse_boolean(text)
        if chosen is None:
            raise ValueError(f"nesterov must be true or false, not {text!r}")
        return chosen
    if key == "adjust_lr_fn":
        if text not in _RATE_ADJUSTMENTS:
            raise ValueError(f"adjust_lr_fn must be {' or '.join(_RATE_ADJUSTMENTS)}, not {text!r}")
        return text
    number = _number(text)
    if key == "momentum":
        if number is None:
            raise ValueError(f"momentum must be a number, not {text!r}")
        if not 0 <= number < 1:
            raise ValueError(f"momentum must be at least 0 and less than 1, not {text}")
        return number
    if number is None or number != int(number) or not 1 <= number <= _MOST_STEPS:
        raise ValueError(f"ns_steps must be a whole number from 1 to {_MOST_STEPS}, not {text!r}")
    return int(number)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
