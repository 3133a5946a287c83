"""Every handler on a few rows, compared with literal results and with the transformers tokenizer, row by row."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

import chat_templates as templates
from sftkit.config.schema.data_config import HandlerConfig
from sftkit.core.row_log import RowLog
from sftkit.core.rows import Batch, Row
from sftkit.errors import ConfigError, TokenizerError
from sftkit.handlers.registry import HANDLERS, build_handlers
from sftkit.handlers.user_function import UserFunction, check_trusted
from sftkit.tokenization.chat_tokenizer import ChatTokenizer
from sftkit.tokenization.chat_tokenizer_spec import ChatTokenizerSpec
from support import ALL_TOKENIZERS, WATCHED, dataset

MakeChatTokenizer = Callable[..., ChatTokenizer]
Apply = Callable[..., tuple[list[Row], RowLog]]


def config(name: str, arguments: dict[str, Any] | None = None, **fn_kwargs: Any) -> HandlerConfig:
    return HandlerConfig(name=name, arguments={**(arguments or {}), "fn_kwargs": fn_kwargs})


@pytest.fixture
def apply(chat_tokenizer: MakeChatTokenizer) -> Apply:
    """Runs rows through handlers; returns the remaining rows, with token columns as lists, and the log."""

    def run(
        rows: list[Row],
        *handlers: HandlerConfig,
        name: str = "bpe",
        template: str | None = None,
        **options: Any,
    ) -> tuple[list[Row], RowLog]:
        batch, log = Batch(rows, np.arange(1, len(rows) + 1)), RowLog()
        for link in build_handlers(dataset("unused", data_handlers=handlers), 0):
            batch = link.bind(chat_tokenizer(template, name=name, **options))(batch, log)
        tokens = {name: [column[i].tolist() for i in range(len(batch))] for name, column in batch.tokens.items()}
        return [
            {**row, **{name: values[i] for name, values in tokens.items()}} for i, row in enumerate(batch.rows)
        ], log

    return run


# --- Columns ------------------------------------------------------------------------------------------


def test_columns_are_duplicated_renamed_retained_and_removed(apply: Apply) -> None:
    rows = [{"a": 1, "b": [2], "c": None}]
    assert apply(rows, config("duplicate_columns", old_column="b", new_column="d"))[0] == [
        {"a": 1, "b": [2], "c": None, "d": [2]}
    ]
    assert apply(rows, config("rename_columns", columns={"a": "x", "c": "y"}))[0] == [{"x": 1, "b": [2], "y": None}]
    assert apply(rows, config("rename_columns", columns={"a": "b", "b": "a"}))[0] == [{"b": 1, "a": [2], "c": None}]
    assert apply(rows, config("retain_columns", columns=["c", "a"]))[0] == [{"a": 1, "c": None}]
    assert apply(rows, config("remove_columns", columns=["c", "a"]))[0] == [{"b": [2]}]


def test_token_columns_are_copied_renamed_and_removed_like_others(apply: Apply) -> None:
    tokenized, _ = apply([{"text": "cat"}], config("tokenize", dataset_text_field="text"))
    ids = tokenized[0]["input_ids"]
    chain = [
        config("tokenize", dataset_text_field="text"),
        config("duplicate_columns", old_column="input_ids", new_column="copy"),
        config("rename_columns", columns={"input_ids": "ids"}),
        config("remove_columns", columns=["attention_mask", "text"]),
    ]
    assert apply([{"text": "cat"}], *chain)[0] == [{"copy": ids, "ids": ids}]
    assert apply([{"text": "cat"}], *chain, config("retain_columns", columns=["ids"]))[0] == [{"ids": ids}]


@pytest.mark.parametrize(
    ("handler", "column"),
    [
        (config("duplicate_columns", old_column="nope", new_column="d"), "nope"),
        (config("rename_columns", columns={"nope": "x"}), "nope"),
        (config("retain_columns", columns=["a", "nope"]), "nope"),
        (config("remove_columns", columns=["nope"]), "nope"),
        (config("skip_large_text", column_name="nope", max_length=3), "nope"),
        (config("add_tokenizer_eos_token", dataset_text_field="nope"), "nope"),
        (config("tokenize", dataset_text_field="nope"), "nope"),
        (config("tokenize_and_apply_input_masking", input_field_name="a", output_field_name="nope"), "nope"),
        (config("tokenize_and_apply_chat_template_with_masking"), "messages"),
        (config("apply_tokenizer_chat_template", dataset_text_field="t", conversation_column="nope"), "nope"),
        (config("apply_custom_data_formatting_template", dataset_text_field="t", template="{{nope}}"), "nope"),
    ],
    ids=lambda value: value.name if isinstance(value, HandlerConfig) else "",
)
def test_a_row_without_the_column_is_quarantined_with_its_columns(
    apply: Apply, handler: HandlerConfig, column: str
) -> None:
    rows, log = apply([{"a": "x", "b": "y"}], handler, template=templates.CHATML)
    assert rows == []
    assert [(bad.number, bad.reason) for bad in log.bad] == [(1, f"column {column!r} not found; columns here: a, b")]
    assert json.loads(log.bad[0].content) == {"a": "x", "b": "y"}


TEXT_HANDLERS = [
    config("add_tokenizer_eos_token", dataset_text_field="text"),
    config("tokenize", dataset_text_field="text"),
    config("tokenize_and_apply_input_masking", input_field_name="text", output_field_name="out"),
    config("tokenize_and_apply_input_masking", input_field_name="out", output_field_name="text"),
]


@pytest.mark.parametrize("handler", TEXT_HANDLERS, ids=lambda handler: str(handler.name))
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "column 'text' is null where text should be"),
        (5, "column 'text' must be text, not int"),
        (["a"], "column 'text' must be text, not list"),
        ({"a": 1}, "column 'text' must be text, not dict"),
    ],
)
def test_a_value_that_is_not_text_is_quarantined_and_other_rows_pass(
    apply: Apply, handler: HandlerConfig, value: Any, reason: str
) -> None:
    rows, log = apply([{"text": "a", "out": "b"}, {"text": value, "out": "b"}, {"text": "c", "out": "b"}], handler)
    assert len(rows) == 2
    assert [(bad.number, bad.reason) for bad in log.bad] == [(2, reason)]


# --- skip_large_text ----------------------------------------------------------------------------------


def test_text_is_measured_in_characters_and_must_be_strictly_shorter(apply: Apply) -> None:
    rows, log = apply(
        [{"t": "12"}, {"t": "你好吗"}, {"t": "1234"}], config("skip_large_text", column_name="t", max_length=3)
    )
    assert rows == [{"t": "12"}]
    assert dict(log.dropped) == {"skip_large_text: t has 3 or more": 2}
    assert log.bad == []


def test_rows_of_exactly_the_limit_stay_with_skip_samples_with_large_columns(apply: Apply) -> None:
    rows, log = apply(
        [{"t": "abc"}, {"t": "abcd"}, {"t": "ab"}],
        config("skip_samples_with_large_columns", column_name="t", max_allowed_length=3),
    )
    assert rows == [{"t": "abc"}, {"t": "ab"}]
    assert list(log.dropped) == ["skip_samples_with_large_columns: t has more than 3"]


def test_input_ids_are_measured_in_tokens(apply: Apply, reference: Callable[[str], Any]) -> None:
    texts = ["cat", "the cat sat on", "the cat sat on the mat and the dog"]
    count = len(reference("bpe")(texts[1])["input_ids"])
    tokenize = config("tokenize", dataset_text_field="text")
    rows = [{"text": text} for text in texts]
    assert len(apply(rows, tokenize, config("skip_large_text", column_name="input_ids", max_length=count))[0]) == 1
    assert len(apply(rows, tokenize, config("skip_large_text", column_name="input_ids", max_length=count + 1))[0]) == 2
    lists = [{"input_ids": [1, 2]}, {"input_ids": [1, 2, 3]}]
    assert apply(lists, config("skip_large_text", column_name="input_ids", max_length=3))[0] == [{"input_ids": [1, 2]}]


def test_a_value_without_a_length_is_quarantined(apply: Apply) -> None:
    rows, log = apply([{"t": None}, {"t": 7}], config("skip_large_text", column_name="t", max_length=3))
    assert rows == []
    assert [bad.reason for bad in log.bad] == [
        "column 't' must be text or a list to be measured, not null",
        "column 't' must be text or a list to be measured, not int",
    ]


# --- Text ---------------------------------------------------------------------------------------------


def test_the_eos_token_is_appended(apply: Apply) -> None:
    rows = [{"t": "a"}, {"t": "b</s>"}, {"t": ""}]
    added = apply(rows, config("add_tokenizer_eos_token", dataset_text_field="t"))[0]
    assert added == [{"t": "a</s>"}, {"t": "b</s></s>"}, {"t": "</s>"}]
    only = apply(rows, config("add_tokenizer_eos_token", dataset_text_field="t", only_if_missing=True))[0]
    assert only == [{"t": "a</s>"}, {"t": "b</s>"}, {"t": "</s>"}]


def test_a_formatting_template_inserts_columns(apply: Apply) -> None:
    row = {"a": "x", "b c": 3, "d-e.f_g": {"k": "ü"}, "list": [1, None], "flag": True}
    template = "{{a}}|{{ a }}|{{b c}}|{{ d-e.f_g }}|{{list}}|{{flag}}|{a}|{{a!}}|{{{a}}}"
    rows, _ = apply([row], config("apply_custom_data_formatting_template", dataset_text_field="t", template=template))
    assert rows[0]["t"] == 'x|x|3|{"k": "ü"}|[1, null]|True|{a}|{{a!}}|{x}</s>'
    assert {name: rows[0][name] for name in row} == row


def test_placeholders_inside_values_are_not_replaced(apply: Apply) -> None:
    row = {"a": "{{b}} \\1 \\g<0>", "b": "no"}
    template = config(
        "apply_custom_data_formatting_template", dataset_text_field="t", template="{{a}}", add_eos_token=False
    )
    assert apply([row], template)[0][0]["t"] == "{{b}} \\1 \\g<0>"


def test_a_null_in_a_formatting_template_is_quarantined(apply: Apply) -> None:
    template = config("apply_custom_data_formatting_template", dataset_text_field="t", template="{{a}}")
    rows, log = apply([{"a": None}], template)
    assert rows == []
    assert log.bad[0].reason == "column 'a' is null where text should be"


def test_a_jinja_template_sees_the_columns_and_the_row(apply: Apply) -> None:
    template = "{{ a | upper }} {% for x in b %}{{ x }},{% endfor %} {{ element['c d'] }}\n"
    row = {"a": "x", "b": [1, 2], "c d": "e"}
    jinja = config("apply_custom_jinja_template", dataset_text_field="t", template=template)
    assert apply([row], jinja)[0][0]["t"] == "X 1,2, e\n</s>"
    bare = config("apply_custom_jinja_template", dataset_text_field="a", template="{{ a }}!", add_eos_token=False)
    assert apply([row], bare)[0] == [{"a": "x!", "b": [1, 2], "c d": "e"}]


@pytest.mark.parametrize(
    ("template", "add_eos_token", "text"),
    [
        ("{{ a }}{{ eos_token }}", True, "x</s>"),
        ("{{ a }}{{ eos_token }}", False, "x</s>"),
        ("{{ a }}{{ eos_token }}\n", True, "x</s>"),  # the line end of a YAML block
        ("{{ a }}{{ eos_token }}\n\n", True, "x</s>\n"),
        ("{{ a }}</s>", True, "x</s>"),
        ("{{ a }}</s>", False, "x</s>"),
        ("{{ bos_token }}{{ a }}", True, "<s>x</s>"),
        ("{{ a }}{{ eos_token }}{{ b }}", True, "x</s>y</s>"),
        ("{{ a }}{{ eos_token }}{{ b }}", False, "x</s>y"),
        ("{{ element['a'] }}{{ element['Tweet text'] }}", False, "xz"),
        ("{{ a }}: {{Tweet text}}\n", True, "x: z\n</s>"),
        ("{{- Tweet text -}} !", False, "z!"),
        ("{{ unk_token if a else b }}", False, "<unk>"),
    ],
)
def test_a_jinja_template_knows_the_special_tokens_and_ends_with_one_eos(
    apply: Apply, template: str, add_eos_token: bool, text: str
) -> None:
    jinja = config(
        "apply_custom_jinja_template", dataset_text_field="t", template=template, add_eos_token=add_eos_token
    )
    rows, _ = apply([{"a": "x", "b": "y", "Tweet text": "z"}], jinja)
    assert rows[0]["t"] == text


def test_a_column_named_like_a_special_token_is_the_column(apply: Apply) -> None:
    jinja = config("apply_custom_jinja_template", dataset_text_field="t", template="{{ eos_token }}{{ bos_token }}")
    assert apply([{"eos_token": "!"}], jinja)[0][0]["t"] == "!<s></s>"


def test_the_last_line_end_of_a_jinja_template_is_dropped_as_fms_hf_tuning_does(apply: Apply) -> None:
    jinja = config("apply_custom_jinja_template", dataset_text_field="t", template="{{ a }}\n", add_eos_token=False)
    assert apply([{"a": "x"}], jinja)[0][0]["t"] == "x\n"
    assert apply([{"a": "x"}], jinja, compat="fms")[0][0]["t"] == "x"


def test_an_unknown_column_in_a_jinja_template_is_quarantined(apply: Apply) -> None:
    jinja = config("apply_custom_jinja_template", dataset_text_field="t", template="{{ nope }}")
    rows, log = apply([{"a": 1}], jinja)
    assert rows == []
    assert log.bad[0].reason == "the template uses a missing value: 'nope' is undefined; columns here: a"


@pytest.mark.parametrize(
    "template", ["{{ a.__class__.__mro__ }}", "{{ b.append(1) }}", "{{ a / 0 }}", "{{ range(10**9) }}"]
)
def test_a_jinja_template_runs_in_a_sandbox_and_its_errors_quarantine_the_row(apply: Apply, template: str) -> None:
    row: Row = {"a": 1, "b": []}
    rows, log = apply([row], config("apply_custom_jinja_template", dataset_text_field="t", template=template))
    assert rows == []
    assert log.bad[0].reason.startswith("the template ")
    assert row == {"a": 1, "b": []}


def test_an_invalid_jinja_template_is_a_config_error(apply: Apply) -> None:
    with pytest.raises(ConfigError, match="template is not valid Jinja: line 2: "):
        apply([], config("apply_custom_jinja_template", dataset_text_field="t", template="ok\n{% if %}"))


def test_the_chat_template_renders_a_column_or_the_whole_row(apply: Apply) -> None:
    messages = [{"role": "user", "content": "hi"}]
    by_column = config("apply_tokenizer_chat_template", dataset_text_field="t", conversation_column="chat")
    assert apply([{"chat": messages}], by_column, template=templates.CHATML)[0] == [
        {"chat": messages, "t": "<|im_start|>user\nhi<|im_end|>\n"}
    ]
    by_row = config("apply_tokenizer_chat_template", dataset_text_field="t")
    rows, _ = apply([{"chat": messages}], by_row, template="{{ messages['chat'][0].content }}")
    assert rows[0]["t"] == "hi"


@pytest.mark.parametrize("column", ["messages", "conversations", "conversation", "chat", "turns"])
def test_the_chat_template_finds_the_column_of_the_conversation(apply: Apply, column: str) -> None:
    row = {"id": 1, column: [{"role": "user", "content": "hi"}]}
    handler = config("apply_tokenizer_chat_template", dataset_text_field="t")
    assert apply([row], handler, template=templates.CHATML)[0][0]["t"] == "<|im_start|>user\nhi<|im_end|>\n"
    whole = f"{{% for message in messages['{column}'] %}}{{{{ message.content }}}}{{% endfor %}}"
    assert apply([row], handler, template=whole)[0][0]["t"] == "hi"


def test_the_first_column_that_holds_messages_is_the_conversation(apply: Apply) -> None:
    said = [{"role": "user", "content": "hi"}]
    row = {"messages": None, "turns": [{"role": "user", "content": "other"}], "chat": said}
    handler = config("apply_tokenizer_chat_template", dataset_text_field="t")
    assert apply([row], handler, template="{{ messages[0].content }}")[0][0]["t"] == "hi"


@pytest.mark.parametrize("name", ["apply_tokenizer_chat_template", "tokenize_and_apply_chat_template_with_masking"])
def test_a_tokenizer_without_a_chat_template_is_an_error_before_any_row(apply: Apply, name: str) -> None:
    arguments = {"dataset_text_field": "t"} if name == "apply_tokenizer_chat_template" else {}
    with pytest.raises(TokenizerError, match=r"has no chat template; set dataprocessor\.chat_template"):
        apply([], config(name, **arguments))


@pytest.mark.parametrize(
    "handler",
    [
        config("add_tokenizer_eos_token", dataset_text_field="t"),
        config("tokenize_and_apply_input_masking", input_field_name="a", output_field_name="b"),
        config("apply_custom_jinja_template", dataset_text_field="t", template="x"),
        config("apply_custom_data_formatting_template", dataset_text_field="t", template="x"),
    ],
    ids=lambda handler: str(handler.name),
)
def test_a_tokenizer_without_an_eos_token_is_an_error_if_one_is_needed(
    tmp_path: Path, tokenizer_path: Callable[[str], str], handler: HandlerConfig
) -> None:
    from transformers import AutoTokenizer

    from sftkit.tokenization.loading.tokenizer_loading import TokenizerSpec

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_path("bpe"))
    tokenizer.eos_token = None
    tokenizer.save_pretrained(tmp_path)
    tools = ChatTokenizer(ChatTokenizerSpec(TokenizerSpec(str(tmp_path)), "assistant", WATCHED))
    [link] = build_handlers(dataset("unused", data_handlers=[handler]), 0)
    with pytest.raises(TokenizerError, match="has no eos token, which texts must end with"):
        link.bind(tools)


# --- Tokens -------------------------------------------------------------------------------------------

PAIRS = [
    ("Tweet: I love it", "no complaint"),
    ("ends with space ", "x"),
    ("ends with newline\n", "x"),
    ("ends with tab\t", "x"),
    ("q", " starts with space"),
    ("q", "\nstarts with newline"),
    ("q", "\tstarts with tab"),
    ("", "no input"),
    ("no output", ""),
    ("Köln 你好", "😀 ok"),
    ("nbsp\u00a0", "x"),
    ("Text: great movie\nLabel: ", "positive"),
    ("def f():\n    ", "return 1"),
    ("two  ", "words"),
    ("composed e\n", "\u0301"),
]


@pytest.mark.parametrize("name", ALL_TOKENIZERS)
@pytest.mark.parametrize("add_eos_token", [True, False])
@pytest.mark.parametrize("compat", ["none", "fms"])
def test_input_masking_equals_tokenizing_row_by_row(
    apply: Apply, reference: Callable[[str], Any], name: str, add_eos_token: bool, compat: str
) -> None:
    tokenizer = reference(name)
    masking = config(
        "tokenize_and_apply_input_masking",
        {"remove_columns": "all"},
        input_field_name="in",
        output_field_name="out",
        add_eos_token=add_eos_token,
    )
    expected, merged = [], set()
    for number, (source, target) in enumerate(PAIRS, 1):
        spaced = source[-1:] in (" ", "\n", "\t") or target[:1] in (" ", "\n", "\t")
        space = "" if spaced else " "
        text = source + space + target + (tokenizer.eos_token if add_eos_token else "")
        ids, alone = tokenizer(text)["input_ids"], tokenizer(source)["input_ids"]
        masked = min(len(alone), len(ids))
        if ids[:masked] != alone:
            offsets = trimmed(tokenizer, text)
            over = [start < len(source) < end for start, end in offsets]
            merged |= {number} if any(over) else set()
            if compat == "none":
                masked = next(index for index, (_, end) in enumerate(offsets) if end > len(source))
        labels = [-100] * masked + ids[masked:]
        expected.append({"input_ids": ids, "labels": labels, "attention_mask": [1] * len(ids)})
    rows, log = apply([{"in": a, "out": b} for a, b in PAIRS], masking, name=name, compat=compat)
    assert rows == expected
    empty = {number for number, (_, target) in enumerate(PAIRS, 1) if not target}
    assert log.flagged == {"empty_answer": empty, **({"boundary_merged": merged} if merged else {})}


def trimmed(tokenizer: Any, text: str) -> list[tuple[int, int]]:
    """The characters of each token, white space included also where the tokenizer leaves it out of its offsets."""
    backend = Tokenizer.from_str(
        tokenizer.backend_tokenizer.to_str().replace('"trim_offsets":true', '"trim_offsets":false')
    )
    offsets: list[tuple[int, int]] = backend.encode(text).offsets
    return offsets


@pytest.mark.parametrize("name", ALL_TOKENIZERS)
@pytest.mark.parametrize("source", ["Label: ", "Label:", "Label:\n", "Label:\t", "Is it? "])
def test_the_answer_of_a_pair_carries_a_loss_from_its_first_character(
    apply: Apply, reference: Callable[[str], Any], name: str, source: str
) -> None:
    masking = config("tokenize_and_apply_input_masking", input_field_name="in", output_field_name="out")
    [row], _ = apply([{"in": source, "out": "positive"}], masking, name=name)
    trained = [label for label in row["labels"] if label != -100]
    assert reference(name).decode(trained, skip_special_tokens=True).strip() == "positive"


def test_input_masking_in_literal_tokens(apply: Apply, reference: Callable[[str], Any]) -> None:
    masking = config("tokenize_and_apply_input_masking", input_field_name="in", output_field_name="out")
    [row], _ = apply([{"in": "input", "out": "complaint"}], masking)
    tokens = reference("bpe").convert_ids_to_tokens(row["input_ids"])
    assert "".join(tokens) == "inputĠcomplaint</s>"
    trained = [token for token, label in zip(tokens, row["labels"], strict=True) if label != -100]
    assert "".join(trained) == "Ġcomplaint</s>"


@pytest.mark.parametrize("name", ALL_TOKENIZERS)
def test_tokenize_equals_calling_the_tokenizer(apply: Apply, reference: Callable[[str], Any], name: str) -> None:
    texts = ["the cat sat on the mat", "", "你好 </s> x", "the cat " * 3000]
    truncated = {"truncation": True, "max_length": 3}
    for arguments in ({}, truncated, {"truncation": True}, {"truncation": False, "max_length": 3}):
        cut = arguments if arguments.get("truncation") else {}
        expected = [dict(reference(name)(text, **cut)) for text in texts]
        rows, _ = apply(
            [{"t": text} for text in texts], config("tokenize", dataset_text_field="t", **arguments), name=name
        )
        assert [(row["input_ids"], row["attention_mask"]) for row in rows] == [
            (made["input_ids"], made["attention_mask"]) for made in expected
        ]
        assert [row["t"] for row in rows] == texts


CALLS = [
    {"truncation": True, "max_length": 4},
    {"max_length": 4},
    {"truncation": "longest_first", "max_length": 4, "padding": True, "return_tensors": None},
    {"truncation": False, "max_length": 4},
    {"truncation": "do_not_truncate"},
    {"add_special_tokens": False},
    {"add_special_tokens": False, "truncation": True, "max_length": 4},
    {"truncation": True},
]


@pytest.mark.parametrize("name", ALL_TOKENIZERS)
@pytest.mark.parametrize("call", CALLS, ids=str)
def test_tokenizer_kwargs_are_arguments_of_the_tokenizer_call(
    apply: Apply, reference: Callable[[str], Any], name: str, call: dict[str, Any]
) -> None:
    tokenizer = reference(name)
    plain = {key: value for key, value in call.items() if key not in ("padding", "return_tensors")}
    texts = ["the cat sat on the mat and the dog ran", "the", ""]
    tokenize = config("tokenize", dataset_text_field="t", tokenizer_kwargs=call)
    rows, _ = apply([{"t": text} for text in texts], tokenize, name=name)
    assert [row["input_ids"] for row in rows] == [tokenizer(text, **plain)["input_ids"] for text in texts]
    masking = config(
        "tokenize_and_apply_input_masking", input_field_name="a", output_field_name="b", tokenizer_kwargs=call
    )
    pairs = [("the cat", "sat on the mat"), ("the cat sat on the mat", "ran"), ("a", "b")]
    expected = []
    for source, target in pairs:
        ids = tokenizer(f"{source} {target}{tokenizer.eos_token}", **plain)["input_ids"]
        masked = len(tokenizer(source, **plain)["input_ids"])
        expected.append((ids, [-100] * masked + ids[masked:]))
    rows, _ = apply([{"a": source, "b": target} for source, target in pairs], masking, name=name, compat="fms")
    assert [(row["input_ids"], row["labels"]) for row in rows] == expected


def test_what_tokenizer_kwargs_cut_off_pairs_is_counted(apply: Apply) -> None:
    call = {"truncation": True, "max_length": 3}
    masking = config(
        "tokenize_and_apply_input_masking", input_field_name="a", output_field_name="b", tokenizer_kwargs=call
    )
    [row], log = apply([{"a": "the", "b": "cat sat on the mat"}], masking)
    assert len(row["input_ids"]) == 3
    assert list(log.cut_rows) == [1]
    assert log.cut_rows[1].trained_tokens > 0


@pytest.mark.parametrize(
    ("keywords", "problem"),
    [
        (
            {"tokenizer_kwargs": {"stride": 2}},
            "tokenize: tokenizer_kwargs: 'stride' is not supported; set truncation, ",
        ),
        ({"tokenizer_kwargs": {"max_lenght": 2}}, r"'max_lenght' is not supported \(did you mean 'max_length'\?\)"),
        ({"tokenizer_kwargs": {"max_length": 0}}, "max_length must be a whole number of 1 or more, not 0"),
        ({"tokenizer_kwargs": {"truncation": "only_second"}}, "truncation must be true or false, not 'only_second'"),
        ({"tokenizer_kwargs": {"add_special_tokens": "x"}}, "add_special_tokens must be true or false, not 'x'"),
        ({"tokenizer_kwargs": {"max_length": 2}, "max_length": 3}, "max_length is given twice, in tokenizer_kwargs"),
    ],
)
def test_tokenizer_kwargs_that_cannot_be_used_are_named(apply: Apply, keywords: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        apply([], config("tokenize", dataset_text_field="t", **keywords))


def test_chat_masking_trains_the_answers_and_cuts_at_max_seq_length(
    apply: Apply, reference: Callable[[str], Any]
) -> None:
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    text = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nhello<|im_end|>\n"
    ids = reference("bos")(text, add_special_tokens=False)["input_ids"]
    prompt = len(reference("bos")(text.split("hello")[0], add_special_tokens=False)["input_ids"])
    newline = len(reference("bos")("\n", add_special_tokens=False)["input_ids"])
    labels = [-100] * prompt + ids[prompt : len(ids) - newline] + [-100] * newline
    masking = config(
        "tokenize_and_apply_chat_template_with_masking", {"remove_columns": ["chat"]}, conversation_column="chat"
    )
    [row], _ = apply([{"chat": messages, "id": 1}], masking, name="bos", template=templates.CHATML)
    assert row == {"id": 1, "input_ids": ids, "labels": labels, "attention_mask": [1] * len(ids)}
    cut = config("tokenize_and_apply_chat_template_with_masking", conversation_column="chat", max_seq_length=prompt + 1)
    [row], _ = apply([{"chat": messages}], cut, name="bos", template=templates.CHATML)
    assert (row["input_ids"], row["labels"]) == (ids[: prompt + 1], labels[: prompt + 1])


# --- Names, aliases and arguments ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (
            config("tokenize_and_apply_input_masking", input_field_name="a", output_field_name="b"),
            config("tokenize_and_apply_input_masking", input_column_name="a", output_column_name="b"),
        ),
        (config("tokenize", dataset_text_field="a"), config("tokenize", text_column_name="a")),
        (
            config("apply_custom_jinja_template", dataset_text_field="t", template="{{ a }}"),
            config("apply_custom_jinja_template", formatted_text_column_name="t", template="{{ a }}"),
        ),
        (
            config("apply_tokenizer_chat_template", dataset_text_field="t", conversation_column="m"),
            config("apply_tokenizer_chat_template", formatted_text_column_name="t", conversation_column_name="m"),
        ),
        (
            config("tokenize_and_apply_chat_template_with_masking", conversation_column="m"),
            config("tokenize_and_apply_chat_template_with_masking", conversation_column_name="m"),
        ),
        (config("retain_columns", columns=["a"]), config("select_columns", column_names=["a"])),
        (config("rename_columns", columns={"a": "c"}), config("rename_columns", column_mapping={"a": "c"})),
        (
            config("skip_samples_with_large_columns", column_name="a", max_length=3),
            config("skip_samples_with_large_columns", column_name="a", max_allowed_length=3),
        ),
        (
            config("skip_samples_with_large_columns", column_name="a", max_length=3),
            config("skip_large_columns", column_name="a", max_length=3),
        ),
        (
            config("duplicate_columns", old_column="a", new_column="c"),
            config("duplicate_columns", existing_column_name="a", new_column_name="c"),
        ),
        (
            config("duplicate_columns", old_column="a", new_column="c"),
            config("duplicate_columns", old_column_name="a", new_column_name="c"),
        ),
        (
            config("tokenize_and_apply_input_masking", input_field_name="a", output_field_name="b"),
            config("tokenize_and_apply_instruction_masking", input_field_name="a", output_field_name="b"),
        ),
        (
            config("add_tokenizer_eos_token", dataset_text_field="a"),
            config("apply_dataset_formatting", dataset_text_field="a"),
        ),
        (
            config("apply_custom_jinja_template", dataset_text_field="t", template="{{ a }}"),
            config("apply_custom_data_formatting_jinja_template", dataset_text_field="t", template="{{ a }}"),
        ),
        (
            config("tokenize_and_apply_chat_template_with_masking", conversation_column="m"),
            config(
                "tokenize_and_apply_chat_template_with_masking",
                conversation_column="m",
                formatted_text_column_name="unused",
            ),
        ),
        (
            config("retain_columns", columns=["a"]),
            HandlerConfig(name="retain_columns", arguments={"columns": ["a"]}),  # as fms-hf-tuning writes it
        ),
        (
            config("tokenize", dataset_text_field="a"),
            config("tokenize", {"batched": True, "batch_size": 2, "num_proc": 4}, dataset_text_field="a"),
        ),
    ],
    ids=lambda handler: str(handler.name),
)
def test_aliases_and_ignored_arguments_give_the_same_rows(
    apply: Apply, ours: HandlerConfig, theirs: HandlerConfig
) -> None:
    rows = [
        {"a": text, "b": "out", "m": [{"role": "user", "content": text}, {"role": "assistant", "content": "y"}]}
        for text in ("cat", "mouse")
    ]
    first, second = (apply(rows, handler, template=templates.CHATML) for handler in (ours, theirs))
    assert first == second
    assert first[0] != rows


@pytest.mark.parametrize(
    ("removed", "left"),
    [
        ("all", {"t"}),
        (["all"], {"t"}),
        (["a"], {"b", "t"}),
        ("b", {"a", "t"}),
        (["t"], {"a", "b", "t"}),
        ([], {"a", "b", "t"}),
        (None, {"a", "b", "t"}),
    ],
)
def test_remove_columns_removes_only_columns_that_the_handler_did_not_write(
    apply: Apply, removed: Any, left: set[str]
) -> None:
    handler = config(
        "apply_custom_data_formatting_template", {"remove_columns": removed}, dataset_text_field="t", template="{{a}}"
    )
    assert set(apply([{"a": "1", "b": "2"}], handler)[0][0]) == left


def test_the_columns_that_duplicate_columns_returns_stay_when_all_are_removed(apply: Apply) -> None:
    rows = [{"t": "cat", "u": 1}]
    tokenize = config("tokenize", {"remove_columns": "all"}, dataset_text_field="t")
    copy = config("duplicate_columns", {"remove_columns": "all"}, old_column="input_ids", new_column="labels")
    [row], _ = apply(rows, tokenize, copy)
    assert set(row) == {"input_ids", "labels"}
    assert row["labels"] == row["input_ids"]


def problems(*handlers: HandlerConfig) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        build_handlers(dataset("unused", data_handlers=handlers), 2)
    return list(caught.value.problems)


def test_an_unknown_handler_lists_the_known_ones() -> None:
    [problem] = problems(config("tokenise"))
    assert problem.startswith("datasets[2].data_handlers[0]: unknown handler 'tokenise' (did you mean 'tokenize'?)")
    assert all(name in problem for name in HANDLERS)
    assert problem.endswith("or package.module:function")


def test_a_handler_for_images_is_refused_with_the_reason() -> None:
    assert problems(config("prepare_multimodal_data_processor")) == [
        "datasets[2].data_handlers[0]: there is no handler 'prepare_multimodal_data_processor': sftkit trains language "
        "models, and has no rows with images; use fms-hf-tuning for vision models"
    ]


def test_every_wrong_argument_of_every_handler_is_named_at_once() -> None:
    found = problems(
        config("tokenize", dataset_text_feild="a"),
        config("skip_large_text", column_name="a", max_length="many"),
        config("retain_columns", {"remove_columns": 5}, columns=["a"]),
        HandlerConfig(name="tokenize", arguments={"fn_kwargs": ["a"]}),
    )
    at = "datasets[2].data_handlers"
    assert found[0] == f"unknown key '{at}[0].tokenize.dataset_text_feild' (did you mean 'dataset_text_field'?)"
    assert found[1].startswith(f"missing key '{at}[0].tokenize.dataset_text_field'")
    assert found[2] == f"{at}[1].skip_large_text.max_length must be a whole number, not 'many'"
    assert found[3] == f"{at}[2].arguments.remove_columns must be all or a list, not 5"
    assert found[4] == f"{at}[3].arguments.fn_kwargs must hold keys and values"
    assert found[5].startswith(f"missing key '{at}[3].tokenize.dataset_text_field'")


def test_an_argument_given_under_two_names_is_an_error() -> None:
    [problem] = problems(
        config("tokenize_and_apply_input_masking", input_field_name="a", input_column_name="b", output_field_name="c")
    )
    assert problem.endswith(": 'input_field_name' is given twice, once as 'input_column_name'")


@pytest.mark.parametrize(
    ("handler", "reason"),
    [
        (config("skip_large_text", column_name="t", max_length=0), "skip_large_text: max_length"),
        (config("tokenize", dataset_text_field="t", truncation=True, max_length=0), "tokenize: max_length"),
        (config("tokenize_and_apply_chat_template_with_masking", max_seq_length=0), "with_masking: max_seq_length"),
    ],
    ids=lambda value: value.name if isinstance(value, HandlerConfig) else "",
)
def test_a_length_below_one_is_a_config_error(apply: Apply, handler: HandlerConfig, reason: str) -> None:
    with pytest.raises(ConfigError, match=f"{reason} must be 1 or more, not 0"):
        apply([], handler, template=templates.CHATML)


@pytest.mark.parametrize("name", ["apply_tokenizer_chat_template", "tokenize_and_apply_chat_template_with_masking"])
def test_an_invalid_chat_template_is_an_error_before_any_row(apply: Apply, name: str) -> None:
    arguments = {"dataset_text_field": "t"} if name == "apply_tokenizer_chat_template" else {}
    with pytest.raises(TokenizerError, match="the chat template is not valid Jinja: line 2: "):
        apply([], config(name, **arguments), template="fine\n{% for %}")


def test_a_lone_surrogate_that_appears_during_processing_is_quarantined(apply: Apply) -> None:
    rows, log = apply([{"text": "a\ud83d"}, {"text": "b"}], config("tokenize", dataset_text_field="text"))
    assert [row["text"] for row in rows] == ["b"]
    assert log.bad[0].reason == "text with a lone surrogate, which UTF-8 cannot encode"
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    row = {"messages": messages, "tools": '[{"name": "\\ud83d"}]'}
    masking = config("tokenize_and_apply_chat_template_with_masking")
    rows, log = apply([row], masking, template="{{ tools[0].name }}" + templates.CHATML)
    assert rows == []
    assert log.bad[0].reason == "text with a lone surrogate, which UTF-8 cannot encode"


# --- User functions ----------------------------------------------------------------------------------

MODULE = """
def shout(row, mark="!"):
    return {**row, "text": row["text"].upper() + mark}

def only_long(row):
    return row if len(row["text"]) > 3 else None

def broken(row):
    raise KeyError("text")

def junk(row):
    return [row]

def changed(row):
    row["text"] = row["list"][0] = "changed"
    raise ValueError

def leaving(row):
    raise SystemExit(3)

def count(row, tokenizer):
    return {**row, "count": len(tokenizer(row["text"])["input_ids"])}

def last_id(row):
    return {**row, "input_ids": row["input_ids"][-1:]}

constant = 5
"""


@pytest.fixture
def user_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module in the working directory."""
    name = f"mine_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(tmp_path))])
    return name


def test_a_user_function_maps_rows_and_takes_arguments(apply: Apply, user_module: str) -> None:
    rows = [{"text": "a", "n": 1}]
    assert apply(rows, config(f"{user_module}:shout"))[0] == [{"text": "A!", "n": 1}]
    assert apply(rows, config(f"{user_module}:shout", mark="?"))[0] == [{"text": "A?", "n": 1}]


def test_a_user_function_that_returns_none_drops_the_row(apply: Apply, user_module: str) -> None:
    rows, log = apply([{"text": "long enough"}, {"text": "no"}], config(f"{user_module}:only_long"))
    assert rows == [{"text": "long enough"}]
    assert dict(log.dropped) == {f"{user_module}:only_long returned None": 1}


def test_a_row_is_quarantined_if_the_function_raises_or_returns_no_row(apply: Apply, user_module: str) -> None:
    rows, log = apply([{"text": "a"}], config(f"{user_module}:broken"))
    assert rows == []
    assert log.bad[0].reason == f"{user_module}:broken raised KeyError: 'text'"
    rows, log = apply([{"text": "a"}], config(f"{user_module}:junk"))
    assert rows == []
    assert log.bad[0].reason == f"{user_module}:junk must return a dict or None, not list"


def test_the_quarantine_shows_the_row_as_it_was_read(apply: Apply, user_module: str) -> None:
    _, log = apply([{"text": "a", "list": [1]}], config(f"{user_module}:changed"))
    assert log.bad[0].content == '{"text": "a", "list": [1]}'


def test_a_function_that_exits_quarantines_its_row_and_does_not_end_the_run(apply: Apply, user_module: str) -> None:
    rows, log = apply([{"text": "a"}], config(f"{user_module}:leaving"))
    assert (rows, log.bad[0].reason) == ([], f"{user_module}:leaving raised SystemExit: 3")


def test_a_parameter_named_tokenizer_gets_the_tokenizer(
    apply: Apply, user_module: str, reference: Callable[[str], Any]
) -> None:
    rows, _ = apply([{"text": "the cat sat"}], config(f"{user_module}:count"))
    assert rows[0]["count"] == len(reference("bpe")("the cat sat")["input_ids"])


def test_a_function_sees_token_columns_as_lists(
    apply: Apply, user_module: str, reference: Callable[[str], Any]
) -> None:
    rows, _ = apply(
        [{"text": "the cat"}], config("tokenize", dataset_text_field="text"), config(f"{user_module}:last_id")
    )
    assert rows[0]["input_ids"] == reference("bpe")("the cat")["input_ids"][-1:]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("no_such_module:f", "handler 'no_such_module:f': cannot import no_such_module: "),
        ("{user_module}:nope", "module {user_module} has no 'nope'"),
        ("{user_module}:constant", "constant is not a function"),
        ("__main__:f", "worker processes do not import your script; move f into a module of its own"),
    ],
)
def test_a_function_that_cannot_be_imported_is_a_config_error(
    apply: Apply, user_module: str, path: str, reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason.format(user_module=user_module)):
        apply([], config(path.format(user_module=user_module)))


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [({"c": 3}, "got an unexpected keyword argument 'c'"), ({}, "missing a required argument: 'need'")],
)
def test_invalid_arguments_of_a_function_are_reported_before_data_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], problem: str
) -> None:
    (tmp_path / "own_functions.py").write_text("def f(row, *, need):\n    return row\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match=rf"handler 'own_functions:f' takes \(row, \*, need\): {problem}"):
        UserFunction(path="own_functions:f", fn_kwargs=arguments | ({"need": 1} if arguments else {})).bind(
            ChatTokenizer(ChatTokenizerSpec(None, "assistant", WATCHED))
        )


@pytest.mark.parametrize(
    "path", ["os:system", "builtins:print", "numpy:save", "borrowing:rmtree", "unittest.__main__:main"]
)
def test_a_function_of_an_installed_package_is_refused(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "borrowing.py").write_text("from shutil import rmtree\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"to Python or to an installed package, not a module .* trust_packages="):
        check_trusted(path, ())


def test_a_user_function_is_called_and_one_of_a_trusted_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_own_rows.py").write_text("def keep(row):\n    return row\n")
    monkeypatch.chdir(tmp_path)
    check_trusted("my_own_rows:keep", ())
    check_trusted("numpy:copy", ("numpy",))
