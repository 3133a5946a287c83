"""Validation of `render` and of the keys that depend on it."""

from __future__ import annotations

from collections.abc import Iterator

from sftkit.config.schema.option_values import ASSISTANT, AUTO, ONCE, PER_TURN, SPLIT_TURNS
from sftkit.config.schema.shared_options import DataOptions

_LAST_ONLY = {"reasoning": "last_only", "train_on_stop": "last"}
"""Keys and values that are about the last trained turn of a conversation."""


def rendering_of(config: DataOptions) -> str:
    """Return how conversations are rendered: `auto` is `once` beside keys that `per_turn` cannot be combined with.

    Example:
        >>> rendering_of(DataOptions()), rendering_of(DataOptions(train_on="all"))
        ('auto', 'once')
    """
    trains_others = set(config.roles_to_train) != {ASSISTANT}
    return ONCE if config.render == AUTO and (trains_others or any(_conflicts(config))) else config.render


def render_problems(config: DataOptions) -> Iterator[str]:
    """Yield what is wrong with `render: per_turn` beside other keys."""
    if config.render == PER_TURN:
        yield from _conflicts(config)
    elif config.max_samples_per_row is not None and rendering_of(config) == ONCE:
        yield (
            "max_samples_per_row is given, and conversations are rendered once (render=once, or a key that "
            "render=per_turn cannot be combined with); leave it out"
        )


def _conflicts(config: DataOptions) -> Iterator[str]:
    """Yield the keys that samples of turns cannot be combined with."""
    if config.train_on == "all":
        yield "render=per_turn trains assistant turns, and train_on=all trains every token; set only one of them"
    for key, value in _LAST_ONLY.items():
        if getattr(config, key) == value:
            yield (
                f"{key}={value} is about the last trained turn of a conversation, and with render=per_turn every turn "
                "may be the last of a sample; set only one of them"
            )
    if config.overflow == SPLIT_TURNS:
        yield (
            "render=per_turn and overflow=split_turns both make several rows of a conversation; set only one of them "
            "(overflow=truncate_left keeps the trained turns of samples that are too long)"
        )
