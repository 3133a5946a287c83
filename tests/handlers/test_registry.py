"""Which handlers there are, and what each declares about the rows that it makes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from sftkit.audit.expectations.expected import RowOrigin
from sftkit.audit.expectations.row_origin import row_origin
from sftkit.config.schema.data_config import HandlerConfig
from sftkit.core.row_kinds import RowKind
from sftkit.handlers.base import Handler
from sftkit.handlers.registry import HANDLERS, build_handlers, produced_rows, recorded_handlers
from support import dataset, handler

CHAT = handler("tokenize_and_apply_chat_template_with_masking")
PAIR = handler("tokenize_and_apply_input_masking", input_field_name="a", output_field_name="b")
PAIR_WITHOUT_EOS = handler(
    "tokenize_and_apply_input_masking", input_field_name="a", output_field_name="b", add_eos_token="False"
)
RENDERED = handler("apply_tokenizer_chat_template", dataset_text_field="t")
JINJA = handler("apply_custom_jinja_template", dataset_text_field="t", template="{{ a }}")
TEXT = handler("apply_custom_data_formatting_template", dataset_text_field="t", template="{{a}}")
EOS = handler("add_tokenizer_eos_token", dataset_text_field="t")
TOKENS = handler("tokenize", dataset_text_field="t")
COLUMNS = handler("remove_columns", columns=["a"])
CONVERT = handler("convert_to_messages")
OWN = HandlerConfig(name="module:function")


@pytest.mark.parametrize(
    ("handlers", "expected"),
    [
        ([], (None, True)),
        ([COLUMNS, CONVERT], (None, True)),
        ([CONVERT, CHAT, COLUMNS], (RowKind.CONVERSATIONS, True)),
        ([PAIR], (RowKind.PAIRS, True)),
        ([PAIR_WITHOUT_EOS], (RowKind.PAIRS, False)),
        ([JINJA], (RowKind.TEXT, True)),
        ([TEXT, EOS], (RowKind.TEXT, True)),
        ([RENDERED], (RowKind.RENDERED, True)),
        ([RENDERED, EOS], (RowKind.RENDERED, True)),
        ([RENDERED, TOKENS], (RowKind.UNKNOWN, True)),
        ([OWN, CHAT], (RowKind.UNKNOWN, True)),
        ([CHAT, OWN], (RowKind.CONVERSATIONS, True)),
    ],
    ids=lambda value: "-".join(each.name.split("_")[0] for each in value) if isinstance(value, list) else "",
)
def test_handlers_declare_what_rows_are_made_of(
    handlers: list[HandlerConfig], expected: tuple[RowKind | None, bool]
) -> None:
    config = dataset("unused", data_handlers=handlers)
    assert produced_rows(each.handler for each in build_handlers(config, 0)) == expected
    recorded = {"data_handlers": [{"name": each.name, "arguments": each.arguments} for each in handlers]}
    assert produced_rows(recorded_handlers(recorded)) == expected


@pytest.mark.parametrize(
    "recorded",
    [
        {"name": "a_handler_of_another_package"},
        {"name": "tokenize_and_apply_input_masking", "arguments": {"argument_of_another_version": 1}},
    ],
)
def test_the_audit_assumes_nothing_about_rows_of_an_unknown_handler(recorded: dict[str, Any]) -> None:
    entries = [{"name": RENDERED.name, "arguments": RENDERED.arguments}, recorded]
    kind, ends = produced_rows(recorded_handlers({"data_handlers": entries}))
    assert kind is RowKind.UNKNOWN
    assert row_origin({"response_template": "x", "train_on": "all"}, kind, ends_with_stop_token=ends) == RowOrigin()


def test_a_handler_that_does_not_declare_what_it_produces_cannot_be_made() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Forgetful(Handler):
        def bind(self, tokenizer: Any) -> Any:
            return lambda batch, log: batch

    with pytest.raises(TypeError, match="produces"):
        Forgetful()  # type: ignore[abstract]


def test_every_handler_of_the_package_is_registered_under_its_name() -> None:
    assert list(HANDLERS) == [
        "add_tokenizer_eos_token",
        "apply_custom_data_formatting_template",
        "apply_custom_jinja_template",
        "apply_tokenizer_chat_template",
        "convert_to_messages",
        "convert_to_pair",
        "duplicate_columns",
        "filter",
        "filter_length",
        "remove_columns",
        "rename_columns",
        "retain_columns",
        "skip_large_text",
        "skip_samples_with_large_columns",
        "tokenize",
        "tokenize_and_apply_chat_template_with_masking",
        "tokenize_and_apply_input_masking",
        "tokenize_segments",
    ]
