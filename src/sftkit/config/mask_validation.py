"""Validation of the keys that choose what of messages carries a loss."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

from sftkit.config.schema.option_values import ASSISTANT, PER_TURN, ROLES, SPLIT_TURNS
from sftkit.config.schema.shared_options import DataOptions
from sftkit.core.patterns import PatternError, finder
from sftkit.core.weights.loss_weight_column import loss_weight


def role_problems(config: DataOptions) -> Iterator[str]:
    """Yield what is wrong with `roles_to_train`, alone and beside other keys."""
    roles = config.roles_to_train
    for role in roles:
        if role not in ROLES:
            yield f"roles_to_train has {role!r}; its roles are {', '.join(ROLES)}"
    if not roles:
        yield "roles_to_train is empty, so nothing would carry a loss; name a role, or leave it out"
    if set(roles) == {ASSISTANT}:
        return
    if config.train_on == "all":
        yield "train_on=all trains every token, whatever its role; leave roles_to_train or train_on out"
    elif ASSISTANT not in roles and config.train_on != "assistant":
        yield f"train_on={config.train_on} chooses assistant turns, which roles_to_train leaves out; add assistant"
    if config.response_template is not None:
        yield "roles_to_train is about messages, and cannot be used with response_template; leave one of them out"
    if config.render == PER_TURN or config.overflow == SPLIT_TURNS:
        key = "render=per_turn" if config.render == PER_TURN else "overflow=split_turns"
        yield f"{key} is about assistant turns, and roles_to_train has other roles; set only one of them"


def reasoning_problems(config: DataOptions) -> Iterator[str]:
    """Yield what is wrong with `empty_reasoning` beside other keys."""
    if config.empty_reasoning != "keep" and config.response_template is not None:
        yield (
            f"empty_reasoning={config.empty_reasoning} is about conversations, and cannot be used with "
            "response_template; leave one of them out"
        )


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
