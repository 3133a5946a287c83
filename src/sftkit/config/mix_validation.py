"""Validation of the keys that mix data sets: which exclude each other, and what each of them needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sftkit.config.fields import did_you_mean
from sftkit.config.schema.data_config import (
    ALL_EXHAUSTED,
    AMOUNT_KEYS,
    FIRST_EXHAUSTED,
    REPEAT,
    ROWS,
    TOKENS,
    WEIGHT,
    DatasetConfig,
    ProcessorConfig,
    StageConfig,
)
from sftkit.config.schema.mix_choices import amount_of, matching_names, stage_weights
from sftkit.config.schema.order_choice import read_row_order
from sftkit.errors import ConfigError

WEIGHT_TOLERANCE = 1e-6
"""How much sampling weights and split fractions may differ from a sum of 1."""

_SAMPLING = "sampling"


def mix_problems(datasets: Sequence[DatasetConfig], processor: ProcessorConfig) -> Iterator[str]:
    """Yield what is wrong with the keys that mix data sets, one sentence each.

    Example:
        >>> both = DatasetConfig(name="a", data_paths=("p",), weight=1, repeat=2)
        >>> list(mix_problems([both], ProcessorConfig()))
        ['datasets[0] (a): weight and repeat exclude each other; set one of them']
    """
    yield from _key_problems(datasets)
    try:
        read_row_order(processor.order)
    except ConfigError as error:
        yield from error.problems
    training = [dataset for dataset in datasets if not _is_for_validation(dataset)]
    mix = _Mix(training, processor)
    yield from _sampling_problems(mix)
    yield from _weight_problems(mix)
    yield from _total_problems(mix)
    if processor.stages:
        yield from _stage_problems(mix)


@dataclass(frozen=True)
class _Mix:
    training: Sequence[DatasetConfig]
    """The data sets with rows for training."""
    processor: ProcessorConfig

    @property
    def is_sampled(self) -> bool:
        return any(dataset.sampling is not None for dataset in self.training)

    @property
    def is_weighted(self) -> bool:
        return bool(self.processor.stages) or any(dataset.weight is not None for dataset in self.training)

    @property
    def amount_keys(self) -> list[str]:
        """The keys that data sets have instead of `sampling`."""
        without = [dataset for dataset in self.training if dataset.sampling is None]
        given = {amount[0] for amount in map(amount_of, without) if amount is not None}
        return [key for key in AMOUNT_KEYS if key in given]


def _is_for_validation(dataset: DatasetConfig) -> bool:
    return dataset.split is not None and (dataset.split.validation == 1 or dataset.split.train == 0)


def _key_problems(datasets: Sequence[DatasetConfig]) -> Iterator[str]:
    for index, dataset in enumerate(datasets):
        where = f"datasets[{index}]"
        given = [key for key in (_SAMPLING, *AMOUNT_KEYS) if getattr(dataset, key) is not None]
        if len(given) > 1:
            yield f"{where} ({dataset.name}): {' and '.join(given)} exclude each other; set one of them"
        for key in (WEIGHT, REPEAT):
            value = getattr(dataset, key)
            if value is not None and value <= 0:
                yield f"{where}.{key} must be more than 0, not {value:g}; to leave the data set out, remove its entry"
        amounts = [key for key in given if key in AMOUNT_KEYS]
        if amounts and _is_for_validation(dataset):
            yield f"{where}.{amounts[0]} has no effect: all rows are for validation, which is not mixed; remove it"


def _sampling_problems(mix: _Mix) -> Iterator[str]:
    if not mix.is_sampled:
        return
    processor = mix.processor
    others = [*mix.amount_keys, *(key for key in ("total_rows", "total_tokens", "stages") if getattr(processor, key))]
    if others:
        yield (
            f"datasets: sampling cannot be combined with {', '.join(others)}; use weight instead of sampling in all "
            "data sets (any positive numbers)"
        )
        return
    if processor.mix_by != ROWS:
        yield f"datasets: sampling counts rows, not {processor.mix_by}; use weight instead (any positive numbers)"
    without = [dataset.name for dataset in mix.training if dataset.sampling is None]
    weights = [dataset.sampling or 0 for dataset in mix.training]
    if without:
        yield (
            f"datasets: sampling is missing for {', '.join(without)}; set it for all data sets or for none"
            f"{_hint_at_compat(mix.training)}"
        )
    elif abs(sum(weights) - 1) > WEIGHT_TOLERANCE:
        yield f"datasets: the sampling weights must sum to 1, not {sum(weights):g}"


def _hint_at_compat(training: Sequence[DatasetConfig]) -> str:
    """Explain a data set that only fms-hf-tuning takes as one for validation."""
    if not any(dataset.split and dataset.split.validation and dataset.split.train is None for dataset in training):
        return ""
    return "; with split: {validation: ...} alone, the rest of the rows is for training, unless you set compat: fms"


def _weight_problems(mix: _Mix) -> Iterator[str]:
    if WEIGHT in mix.amount_keys:
        without = [dataset.name for dataset in mix.training if amount_of(dataset) is None and dataset.sampling is None]
        if without:
            yield (
                f"datasets: weight is missing for {', '.join(without)}; set it, or repeat: 1 to take each of its rows "
                "once besides the weighted data sets"
            )
    strategy = mix.processor.sampling_stopping_strategy
    if mix.is_weighted and strategy not in (None, FIRST_EXHAUSTED, ALL_EXHAUSTED):
        yield (
            f"sampling_stopping_strategy={strategy} is only for sampling; with weight and stages use "
            f"{FIRST_EXHAUSTED} (no row repeats) or {ALL_EXHAUSTED} (each row at least once)"
        )


def _total_problems(mix: _Mix) -> Iterator[str]:
    processor = mix.processor
    totals = [key for key in ("total_rows", "total_tokens") if getattr(processor, key) is not None]
    if len(totals) > 1:
        yield "dataprocessor: total_rows and total_tokens exclude each other; set one of them"
    if mix.is_sampled:
        return
    if totals and not mix.is_weighted:
        yield f"dataprocessor.{totals[0]} needs weights to divide it by; set weight of the data sets, or stages"
    if processor.mix_by != ROWS and not mix.amount_keys and not processor.stages:
        yield (
            f"dataprocessor.mix_by={processor.mix_by} has no effect without weight, repeat or another key of a mix; "
            "set one in `datasets`, or set stages"
        )


def _stage_problems(mix: _Mix) -> Iterator[str]:
    stages, names = mix.processor.stages, [dataset.name for dataset in mix.training]
    if mix.amount_keys and not mix.is_sampled:
        yield (
            f"dataprocessor.stages cannot be combined with {', '.join(mix.amount_keys)} of data sets; name them in the "
            "weights of the stages instead"
        )
    if not names:
        yield "dataprocessor.stages needs data sets with names; set `datasets` in a data config"
        return
    yield from _end_problems(stages)
    wrong = [problem for index, stage in enumerate(stages) for problem in _stage_weight_problems(index, stage, names)]
    yield from wrong
    named = {name for stage in stages for name in stage_weights(stage.weights, names)}
    missing = [name for name in names if name not in named]
    if missing and not wrong:
        yield (
            f"dataprocessor.stages: no stage names {', '.join(missing)}, so no row of it would be used; add it to the "
            "weights of a stage (0 leaves it out)"
        )


def _stage_weight_problems(index: int, stage: StageConfig, names: Sequence[str]) -> Iterator[str]:
    where = f"dataprocessor.stages[{index}].weights"
    negative = [pattern for pattern, weight in stage.weights.items() if weight < 0]
    unknown = [pattern for pattern in stage.weights if not matching_names(pattern, names)]
    for pattern in negative:
        yield f"{where}: the weight of {pattern!r} must be 0 or more, not {stage.weights[pattern]:g}"
    for pattern in unknown:
        yield f"{where}: {pattern!r} matches no data set with rows for training{did_you_mean(pattern, names)}"
    if not negative and not unknown and not any(stage_weights(stage.weights, names).values()):
        yield f"{where}: no data set has a weight; give one of them more than 0"


def _end_problems(stages: Sequence[StageConfig]) -> Iterator[str]:
    before = 0.0
    for index, stage in enumerate(stages):
        where, is_last = f"dataprocessor.stages[{index}]", index == len(stages) - 1
        if is_last and stage.until is not None:
            yield f"{where}.until must be left out: the last stage takes the rest"
        elif not is_last and stage.until is None:
            yield f"{where}.until is missing; set where the stage ends, as a fraction of the whole, such as 0.8"
        elif stage.until is not None and not before < stage.until < 1:
            after = f"more than {before:g}, where the stage before it ends," if before else "more than 0"
            yield f"{where}.until must be {after} and less than 1, not {stage.until:g}"
        before = stage.until if stage.until is not None else before


def keys_about_tokens(datasets: Sequence[DatasetConfig], processor: ProcessorConfig) -> list[str]:
    """Return the keys of a mix that count tokens, with their values where they have one of several.

    Example:
        >>> keys_about_tokens([DatasetConfig(name="a", data_paths=("p",), max_tokens=9)], ProcessorConfig())
        ['max_tokens']
    """
    found = [] if processor.mix_by == ROWS else [f"mix_by={processor.mix_by}"]
    found += ["total_tokens"] if processor.total_tokens is not None else []
    given = {amount[0] for amount in map(amount_of, datasets) if amount is not None}
    return [*found, *(key for key in AMOUNT_KEYS if key in given and key.endswith(TOKENS))]
