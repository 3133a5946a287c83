"""Runs without a data config, where a few options or the columns tell how to tokenize rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chat_templates as templates
from sftkit.config.commands import PreprocessConfig
from sftkit.config.schema.data_config import ProcessorConfig, SplitConfig
from sftkit.core.rows import Batch, Row
from sftkit.errors import ConfigError
from sftkit.preprocessing.plan.infer_datasets import list_datasets, with_inferred_handlers
from support import dataset, handler, preprocess, write_jsonl, written

Locate = Callable[[str], str]

MESSAGES = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
PAIR = [handler("tokenize_and_apply_input_masking", input_field_name="input", output_field_name="output")]


def chosen(columns: list[str], **options: Any) -> list[tuple[str, dict[str, Any]]]:
    """The handlers for rows with these columns, as (name, arguments)."""
    return inferred([dict.fromkeys(columns, "x")], **options)


def inferred(rows: list[Row], *, has_template: bool = True, **options: Any) -> list[tuple[str, dict[str, Any]]]:
    """The handlers for these rows, as (name, arguments)."""
    config = PreprocessConfig(output_dir="out", training_data_path=("in.jsonl",), **options)
    [only] = list_datasets(config)
    samples = [Batch([row], np.array([1])) for row in rows]
    made = with_inferred_handlers(only, config, samples, lambda: has_template)
    return [(each.name, dict(each.arguments["fn_kwargs"])) for each in made.data_handlers]


@pytest.mark.parametrize(
    ("columns", "options", "handlers"),
    [
        (["input_ids", "labels"], {}, []),
        (["input_ids"], {}, []),
        (["input", "output"], {}, [("input", "output")]),
        (["a", "b"], {"input_field_name": "a", "output_field_name": "b"}, [("a", "b")]),
    ],
)
def test_tokens_and_pairs_are_recognized_by_their_columns(
    columns: list[str], options: dict[str, str], handlers: list[tuple[str, str]]
) -> None:
    assert chosen(columns, **options) == [
        ("tokenize_and_apply_input_masking", {"input_field_name": a, "output_field_name": b}) for a, b in handlers
    ]


@pytest.mark.parametrize("column", ["messages", "conversations", "conversation"])
def test_conversations_are_converted_where_needed_and_masked_by_turns_or_by_responses(column: str) -> None:
    convert = (
        "convert_to_messages",
        {"conversation_column": column, "messages_column": column, "only_if_needed": True},
    )
    assert chosen([column]) == [
        convert,
        ("tokenize_and_apply_chat_template_with_masking", {"conversation_column": column}),
    ]
    assert chosen([column], response_template="A:") == [
        convert,
        ("apply_tokenizer_chat_template", {"dataset_text_field": "formatted_text", "conversation_column": column}),
    ]
    assert chosen(["x", column], dataset_conversation_field="x") == [
        ("convert_to_messages", {"conversation_column": "x", "messages_column": "x", "only_if_needed": True}),
        ("tokenize_and_apply_chat_template_with_masking", {"conversation_column": "x"}),
    ]


RENDER = ("tokenize_and_apply_chat_template_with_masking", {"conversation_column": "messages"})
ALPACA = {"instruction": "a", "input": None, "output": "b"}
QUESTION = {"question": "a", "answer": "b"}
INPUT_OUTPUT = {"input": "a", "output": "b"}


def test_the_format_of_the_rows_is_named_unless_they_have_several() -> None:
    assert inferred([ALPACA, ALPACA]) == [
        ("convert_to_messages", {"format": "alpaca", "only_if_needed": True}),
        RENDER,
    ]
    assert inferred([ALPACA, QUESTION]) == [("convert_to_messages", {"only_if_needed": True}), RENDER]
    assert inferred([{"messages": MESSAGES}, QUESTION]) == [("convert_to_messages", {"only_if_needed": True}), RENDER]


def test_questions_and_answers_are_pairs_without_a_chat_template() -> None:
    pair = {"input_field_name": "pair_input", "output_field_name": "pair_output", "separator": ""}
    handlers = [("convert_to_pair", {"format": "alpaca"}), ("tokenize_and_apply_input_masking", pair)]
    assert inferred([ALPACA], has_template=False) == handlers
    assert inferred([ALPACA], chat=False) == handlers
    assert inferred([{"messages": MESSAGES}, ALPACA], has_template=False)[1] == RENDER  # which says what is missing


def test_input_and_output_stay_a_pair_unless_there_is_an_instruction_or_the_config_asks() -> None:
    pair = {"input_field_name": "input", "output_field_name": "output"}
    assert inferred([INPUT_OUTPUT]) == [("tokenize_and_apply_input_masking", pair)]
    assert inferred([INPUT_OUTPUT], chat=True) == [
        ("convert_to_messages", {"format": "input_output", "only_if_needed": True}),
        RENDER,
    ]
    assert inferred([{**INPUT_OUTPUT, "instruction": None}])[0][1]["format"] == "alpaca"
    assert inferred([INPUT_OUTPUT, ALPACA]) == [("convert_to_messages", {"only_if_needed": True}), RENDER]


def test_text_gets_an_eos_token_only_if_it_will_be_tokenized() -> None:
    append = [("add_tokenizer_eos_token", {"dataset_text_field": "text", "only_if_missing": True})]
    assert chosen(["text"]) == []
    assert chosen(["text"], train_on="all") == append
    assert chosen(["text"], response_template="A:") == append


def test_a_formatting_template_makes_the_text() -> None:
    [(name, arguments)] = chosen(["q"], data_formatter_template="Q: {{q}}", response_template="A:")
    assert name == "apply_custom_data_formatting_template"
    assert arguments == {"dataset_text_field": "formatted_text", "template": "Q: {{q}}"}


def test_columns_that_do_not_tell_how_to_tokenize_are_an_error() -> None:
    with pytest.raises(ConfigError, match=r"in\.jsonl: cannot tell how to tokenize its rows \(columns: q, w\)"):
        chosen(["q", "w"])


SIMPLE: list[tuple[Row, dict[str, Any], dict[str, Any]]] = [
    ({"input": "cat", "output": "dog"}, {}, {"data_handlers": PAIR}),
    (
        {"q": "cat", "a": "dog"},
        {"data_formatter_template": "Q: {{q}}\nA: {{a}}", "response_template": "\nA:"},
        {
            "data_handlers": [
                handler(
                    "apply_custom_data_formatting_template",
                    dataset_text_field="formatted_text",
                    template="Q: {{q}}\nA: {{a}}",
                )
            ]
        },
    ),
    ({"messages": MESSAGES}, {}, {"data_handlers": [handler("tokenize_and_apply_chat_template_with_masking")]}),
]


@pytest.mark.parametrize(("row", "options", "keys"), SIMPLE, ids=["pairs", "template", "messages"])
def test_a_run_without_a_data_config_gives_the_shards_of_the_equivalent_config(
    tmp_path: Path, tokenizer_path: Locate, row: Row, options: dict[str, Any], keys: dict[str, Any]
) -> None:
    train = write_jsonl(tmp_path / "train.jsonl", [row] * 3)
    held_out = write_jsonl(tmp_path / "held_out.jsonl", [row])
    common = {"model_name_or_path": tokenizer_path("bpe"), "processor": {"chat_template": templates.CHATML}}
    preprocess(
        tmp_path / "simple",
        training_data_path=(str(train),),
        validation_data_path=(str(held_out),),
        **options,
        **common,
    )
    rules = {name: value for name, value in options.items() if name == "response_template"}
    preprocess(
        tmp_path / "full",
        dataset(train, name="t", **keys),
        dataset(held_out, name="v", split=SplitConfig(validation=1.0), **keys),
        **rules,
        **common,
    )
    for split, count in (("train", 3), ("validation", 1)):
        assert written(tmp_path / "simple", split) == written(tmp_path / "full", split)
        assert len(written(tmp_path / "simple", split)) == count


def test_shards_as_input_include_their_validation_split(tmp_path: Path, tokenizer_path: Locate) -> None:
    pairs = write_jsonl(tmp_path / "in.jsonl", [{"input": f"cat {i}", "output": "dog"} for i in range(10)])
    preprocess(
        tmp_path / "shards",
        dataset(pairs, data_handlers=PAIR, split=SplitConfig(train=0.8, validation=0.2)),
        model_name_or_path=tokenizer_path("bpe"),
    )
    preprocess(tmp_path / "again", training_data_path=(str(tmp_path / "shards"),))
    for split in ("train", "validation"):
        assert written(tmp_path / "again", split) == written(tmp_path / "shards", split)


def test_listed_data_sets_are_unchanged() -> None:
    listed = (dataset("a.jsonl", name="a"), dataset("b.jsonl", name="b"))
    config = PreprocessConfig(output_dir="out", datasets=listed, dataprocessor=ProcessorConfig())
    assert list_datasets(config) == listed
