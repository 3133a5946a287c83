"""Keys of a mix that exclude each other, or that lack what they need."""

from __future__ import annotations

from typing import Any

import pytest

from sftkit.config.commands import PreprocessConfig
from sftkit.config.schema.data_config import DatasetConfig, ProcessorConfig, SplitConfig, StageConfig
from sftkit.config.schema.mix_choices import with_stopping_strategy
from sftkit.config.validation import validate_config
from sftkit.errors import ConfigError


def config(*amounts: dict[str, Any], **processor: Any) -> PreprocessConfig:
    datasets = tuple(
        DatasetConfig(name=name, data_paths=("p",), **keys) for name, keys in zip("abc", amounts, strict=False)
    )
    return PreprocessConfig(output_dir="o", datasets=datasets, dataprocessor=ProcessorConfig(**processor))


def stages(*weights: dict[str, float], until: tuple[float | None, ...] = (None,)) -> tuple[StageConfig, ...]:
    return tuple(StageConfig(until=end, weights=each) for end, each in zip(until, weights, strict=True))


W = {"weight": 1.0}
HELD_OUT = {"split": SplitConfig(validation=1.0)}


@pytest.mark.parametrize(
    ("amounts", "processor", "message"),
    [
        ([W | {"repeat": 2.0}], {}, r"datasets\[0\] \(a\): weight and repeat exclude each other; set one of them"),
        ([{"sampling": 1.0, "max_rows": 2}], {}, r"datasets\[0\] \(a\): sampling and max_rows exclude each other"),
        ([{"weight": 0.0}], {}, r"datasets\[0\]\.weight must be more than 0, not 0; to leave the data set out, remove"),
        ([{"repeat": -1.5}], {}, r"datasets\[0\]\.repeat must be more than 0, not -1\.5"),
        ([{"max_rows": 0}], {}, r"datasets\[0\]\.max_rows must be 1 or more, not 0"),
        ([{"target_tokens": -3}], {}, r"datasets\[0\]\.target_tokens must be 1 or more, not -3"),
        ([W, {}, {}], {}, r"weight is missing for b, c; set it, or repeat: 1 to take each of its rows once"),
        ([{"sampling": 0.5}, W], {}, r"sampling cannot be combined with weight; use weight instead of sampling"),
        ([{"sampling": 1.0}], {"total_rows": 9}, r"sampling cannot be combined with total_rows"),
        ([{"sampling": 1.0}], {"mix_by": "tokens"}, r"sampling counts rows, not tokens; use weight instead"),
        ([{"sampling": 1.0}], {"stages": stages({"a": 1})}, r"sampling cannot be combined with stages"),
        ([W, W | HELD_OUT], {}, r"datasets\[1\]\.weight has no effect: all rows are for validation"),
        ([W], {"total_rows": 9, "total_tokens": 9}, r"total_rows and total_tokens exclude each other"),
        ([{}], {"total_rows": 9}, r"dataprocessor\.total_rows needs weights to divide it by; set weight"),
        ([{"repeat": 2.0}], {"total_tokens": 9}, r"dataprocessor\.total_tokens needs weights to divide it by"),
        ([{}], {"mix_by": "tokens"}, r"dataprocessor\.mix_by=tokens has no effect without weight, repeat"),
        (
            [W],
            {"sampling_stopping_strategy": "all_exhausted_without_replacement"},
            r"is only for sampling; with weight",
        ),
        ([W], {"stages": stages({"a": 1})}, r"stages cannot be combined with weight of data sets; name them in the"),
        ([{}, {}], {"stages": stages({"a": 1})}, r"no stage names b, so no row of it would be used; add it to the"),
        ([{}], {"stages": stages({"aa": 1})}, r"stages\[0\]\.weights: 'aa' matches no data set with rows for training"),
        ([{}], {"stages": stages({"a": -1})}, r"stages\[0\]\.weights: the weight of 'a' must be 0 or more, not -1"),
        ([{}], {"stages": stages({"a": 0})}, r"stages\[0\]\.weights: no data set has a weight; give one of them more"),
        (
            [{}],
            {"stages": stages({"a": 1}, until=(0.5,))},
            r"stages\[0\]\.until must be left out: the last stage takes",
        ),
        (
            [{}],
            {"stages": stages({"a": 1}, {"a": 1}, until=(None, None))},
            r"stages\[0\]\.until is missing; set where the stage ends, as a fraction of the whole, such as 0\.8",
        ),
        (
            [{}],
            {"stages": stages({"a": 1}, {"a": 1}, {"a": 1}, until=(0.5, 0.5, None))},
            r"stages\[1\]\.until must be more than 0\.5, where the stage before it ends, and less than 1, not 0\.5",
        ),
        ([{}], {"stages": stages({"a": 1}, {"a": 1}, until=(80, None))}, r"more than 0 and less than 1, not 80"),
    ],
)
def test_each_mistake_is_one_sentence_that_names_the_key(
    amounts: list[dict[str, Any]], processor: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        validate_config(config(*amounts, **processor))
    assert len(error.value.problems) == 1


def test_stages_need_a_data_config() -> None:
    processor = ProcessorConfig(stages=stages({"*": 1}))
    with pytest.raises(ConfigError, match="stages needs data sets with names; set `datasets` in a data config"):
        validate_config(PreprocessConfig(output_dir="o", training_data_path=("p",), dataprocessor=processor))


@pytest.mark.parametrize(
    ("amounts", "processor"),
    [
        ([W, {"weight": 1e-9}], {"mix_by": "trained_tokens", "total_tokens": 10}),
        ([W, {"repeat": 0.25}, {"max_tokens": 7}], {}),
        ([{}, {"max_rows": 7}], {"mix_by": "tokens"}),
        ([W, HELD_OUT], {"sampling_stopping_strategy": "all_exhausted"}),
        ([{}, {}, HELD_OUT], {"stages": stages({"a": 1}, {"*": 1, "b": 0}, until=(0.1, None))}),
    ],
)
def test_combinations_that_make_sense_are_accepted(amounts: list[dict[str, Any]], processor: dict[str, Any]) -> None:
    validate_config(config(*amounts, **processor))


@pytest.mark.parametrize(
    ("amounts", "processor", "strategy"),
    [
        ([{"sampling": 1.0}], {}, "all_exhausted"),
        ([{}], {}, "all_exhausted"),
        ([W], {}, "first_exhausted"),
        ([{}], {"stages": stages({"a": 1})}, "first_exhausted"),
        ([W], {"sampling_stopping_strategy": "all_exhausted"}, "all_exhausted"),
    ],
)
def test_the_default_of_the_strategy_depends_on_the_mix(
    amounts: list[dict[str, Any]], processor: dict[str, Any], strategy: str
) -> None:
    resolved = with_stopping_strategy(config(*amounts, **processor))
    assert resolved.dataprocessor.sampling_stopping_strategy == strategy
