"""What the keys of a mix say: the amount of a data set, the weights of a stage, and when a mix without a total ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import TypeVar

from sftkit.config.schema.data_config import (
    ALL_EXHAUSTED,
    AMOUNT_KEYS,
    FIRST_EXHAUSTED,
    DatasetConfig,
    ProcessorConfig,
)
from sftkit.config.schema.shared_options import DataOptions

Options = TypeVar("Options", bound=DataOptions)


def amount_of(dataset: DatasetConfig) -> tuple[str, float] | None:
    """Return the key that says how much of a data set is used, and its value; None if none is set.

    Example:
        >>> amount_of(DatasetConfig(name="a", data_paths=("p",), repeat=2.5))
        ('repeat', 2.5)
    """
    return next(((key, getattr(dataset, key)) for key in AMOUNT_KEYS if getattr(dataset, key) is not None), None)


def is_mixed_by_amounts(datasets: Sequence[DatasetConfig], processor: ProcessorConfig) -> bool:
    """Whether a data set has a key that says how much of it is used, besides `sampling`, or there are stages."""
    return bool(processor.stages) or any(amount_of(dataset) is not None for dataset in datasets)


def matching_names(pattern: str, names: Sequence[str]) -> list[str]:
    """Return the names of data sets that a name, or a pattern with `*`, `?` and `[...]`, stands for."""
    return [pattern] if pattern in names else [name for name in names if fnmatchcase(name, pattern)]


def stage_weights(weights: Mapping[str, float], names: Sequence[str]) -> dict[str, float]:
    """Return the weight of each data set that the weights of a stage name.

    A name goes before patterns, and of several patterns the first one decides.

    Example:
        >>> stage_weights({"code-*": 2, "code-c": 1}, ["chat", "code-py", "code-c"])
        {'code-py': 2, 'code-c': 1}
    """
    found: dict[str, float] = {}
    for name in names:
        pattern = name if name in weights else next((each for each in weights if fnmatchcase(name, each)), None)
        if pattern is not None:
            found[name] = weights[pattern]
    return found


def with_stopping_strategy(options: Options) -> Options:
    """Return options in which `sampling_stopping_strategy` is set: to its default if it was not.

    The default depends on the keys of the mix, and a manifest records what was used.
    """
    processor = options.dataprocessor
    if processor.sampling_stopping_strategy is not None:
        return options
    is_weighted = bool(processor.stages) or any(dataset.weight is not None for dataset in options.datasets)
    strategy = FIRST_EXHAUSTED if is_weighted else ALL_EXHAUSTED
    return replace(options, dataprocessor=replace(processor, sampling_stopping_strategy=strategy))
