"""Validation of the keys that choose what of messages carries a loss."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

from sftkit.config.schema.shared_options import DataOptions
from sftkit.core.patterns import PatternError, finder
from sftkit.core.weights.loss_weight_column import loss_weight


def pattern_problems(config: DataOptions) -> Iterator[str]:
    """Yield what is wrong with `mask_pattern` and `pattern_weights`."""
    patterns = patterns_of(config)
    if patterns and config.response_template is not None:
        yield f"{patterns[0][0]} is about messages, and cannot be used with response_template; leave one of them out"
    for pattern, weight in config.pattern_weights.items():
        if loss_weight(weight) is None:
            yield f"pattern_weights: the weight of {pattern!r} must be a number, 0 or more, not {weight:g}"
    if importlib.util.find_spec("re2") is None:
        return  # `validate_config` says so
    for key, pattern in patterns:
        try:
            finder(pattern)
        except PatternError as error:
            yield f"{key} {pattern!r} is no regular expression of RE2: {error}"


def patterns_of(config: DataOptions) -> list[tuple[str, str]]:
    """Return the regular expressions of a config, each after its key."""
    masked = [] if config.mask_pattern is None else [("mask_pattern", config.mask_pattern)]
    return [*masked, *(("pattern_weights", pattern) for pattern in config.pattern_weights)]
