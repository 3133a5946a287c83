"""`mask_pattern`: matches of a regular expression in the contents of assistant turns carry no loss."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

import chat_templates as templates
from reliability.material import sftkit
from sftkit.core.patterns import PatternError, finder
from sftkit.core.row_log import RowError
from sftkit.core.rows import IGNORE_INDEX, Row
from sftkit.tokenization.chat_tokenizer import ChatTokenizer
from support import dataset, handler, preprocess, trained_texts, write_jsonl
from template_zoo.conversations import assistant, user

MakeChatTokenizer = Callable[..., ChatTokenizer]

END = "<|im_end|>"


def trained(tokenizer: ChatTokenizer, messages: list[Row], **row: Any) -> list[str]:
    text, spans = tokenizer.conversations.find_trained_spans({**row, "messages": messages}, "messages")
    return [piece for piece in trained_texts(text, spans) if piece]


@pytest.mark.parametrize(
    ("pattern", "content", "expected"),
    [
        ("[0-9]+", "call 555 or 12", ["call ", " or ", END]),
        ("[0-9]+", "no numbers", [f"no numbers{END}"]),
        ("", "anything", [f"anything{END}"]),
        ("x*", "axxb", ["a", f"b{END}"]),
        ("(?s)<a>.*?</a>", "1<a>\n</a>2<a></a>", ["1", "2", END]),
        (".+", "one\ntwo", ["\n", END]),
        ("😀|é", "é a 😀!", [" a ", f"!{END}"]),
        (r"\p{Han}", "漢字 a", [f" a{END}"]),
        ("(?i)secret", "A Secret", ["A ", END]),
        ("im_end", "im_end", [END]),
    ],
)
def test_matches_carry_no_loss(
    chat_tokenizer: MakeChatTokenizer, pattern: str, content: str, expected: list[str]
) -> None:
    tokenizer = chat_tokenizer(templates.CHATML, mask_pattern=pattern)
    assert trained(tokenizer, [user(content), assistant(content)]) == expected


def test_other_roles_and_excluded_turns_are_not_searched(chat_tokenizer: MakeChatTokenizer) -> None:
    tokenizer = chat_tokenizer(templates.CHATML, mask_pattern="o")
    messages = [user("so"), assistant("no", train=False), user("go"), assistant("do it")]
    assert trained(tokenizer, messages) == ["d", f" it{END}"]
    whole = chat_tokenizer(templates.CHATML, mask_pattern="o", train_on="all")
    assert trained(whole, [user("so"), assistant("do it")]) == [
        f"<|im_start|>user\nso{END}\n<|im_start|>assistant\nd",
        f" it{END}\n",
    ]


def test_matches_and_ranges_add_up(chat_tokenizer: MakeChatTokenizer) -> None:
    tokenizer = chat_tokenizer(templates.CHATML, mask_pattern="[0-9]+")
    message = assistant("a1b2c", train_ranges=[{"begin": 0, "end": 3, "train": True}])
    assert trained(tokenizer, [user("q"), message]) == ["a", "b", END]


def test_a_content_that_the_template_changes_is_refused_only_if_it_has_a_match(
    chat_tokenizer: MakeChatTokenizer,
) -> None:
    source = templates.GENERATION.replace("{{- message.content + '<|im_end|>' }}", "{{- message.content | upper }}")
    tokenizer = chat_tokenizer(source, mask_pattern="[0-9]")
    assert trained(tokenizer, [user("q"), assistant("abc")]) == ["ABC"]
    with pytest.raises(RowError, match="message 1: the chat template writes its content not unchanged"):
        trained(tokenizer, [user("q"), assistant("abc1")])


def runs(tokenizer: ChatTokenizer, messages: list[Row]) -> list[tuple[str, float]]:
    """The runs of tokens of one weight, as text, without those of the weight 0."""
    encoded = tokenizer.encode_prepared([tokenizer.conversations.prepare({"messages": messages}, "messages")])
    weights = encoded.labels.values != IGNORE_INDEX if encoded.weights is None else encoded.weights.values
    assert ((encoded.labels.values != IGNORE_INDEX) == (weights > 0)).all()
    pairs = zip(weights.tolist(), encoded.input_ids.values.tolist(), strict=True)
    grouped = [(weight, [token for _, token in run]) for weight, run in groupby(pairs, key=lambda pair: pair[0])]
    return [(tokenizer.tokenizer.decode(ids), round(weight, 6)) for weight, ids in grouped if weight]


@pytest.mark.parametrize("kinds", [False, True])
@pytest.mark.parametrize(
    ("options", "keys", "expected"),
    [
        ({}, {}, [("a", 1), ("12", 0.5), ("b", 1), ("3", 0.25), (f"c{END}", 1)]),
        ({}, {"weight": 2}, [("a", 2), ("12", 1), ("b", 2), ("3", 0.5), (f"c{END}", 2)]),
        ({"mask_pattern": "b3"}, {}, [("a", 1), ("12", 0.5), (f"c{END}", 1)]),
        ({}, {"train_ranges": [{"begin": 0, "end": 3, "train": True}]}, [("a", 1), ("12", 0.5), (END, 1)]),
        ({"train_on_stop": "none"}, {}, [("a", 1), ("12", 0.5), ("b", 1), ("3", 0.25), ("c", 1)]),
        ({"range_edges": "inner"}, {}, [("a", 1), ("12", 0.5), ("b", 1), ("3", 0.25), (f"c{END}", 1)]),
        ({"train_on": "first_assistant"}, {"train": False}, []),
    ],
)
def test_matches_have_weights(
    chat_tokenizer: MakeChatTokenizer, options: Row, keys: Row, expected: list[Any], kinds: bool
) -> None:
    weights = (("[0-9]+", 0.5), ("3", 0.5), ("c", 1.0))
    tokenizer = chat_tokenizer(templates.CHATML, pattern_weights=weights, token_kinds=kinds, **options)
    assert runs(tokenizer, [user("123"), assistant("a12b3c", **keys)]) == expected


def test_a_pattern_of_weight_0_is_a_mask(chat_tokenizer: MakeChatTokenizer) -> None:
    tokenizer = chat_tokenizer(templates.CHATML, pattern_weights=(("[0-9]+", 0.0),))
    assert trained(tokenizer, [user("q"), assistant("a 12 b")]) == ["a ", f" b{END}"]
    whole = chat_tokenizer(templates.CHATML, pattern_weights=(("1", 0.5),), train_on="all")
    assert runs(whole, [user("1"), assistant("a1")])[1:] == [("1", 0.5), (f"{END}\n", 1)]


def test_no_pattern_takes_long() -> None:
    assert finder("(a*)*$")("a" * 50_000 + "b") == []
    with pytest.raises(PatternError, match="invalid escape sequence"):
        finder(r"(a)\1")


def test_the_audit_expects_answers_in_part(tmp_path: Path, tokenizer_path: Callable[[str], str]) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"messages": [user("q"), assistant("1 is one")]}])
    data = dataset(source, data_handlers=[handler("tokenize_and_apply_chat_template_with_masking")])
    options: dict[str, Any] = {"mask_pattern": "[0-9]", "model_name_or_path": tokenizer_path("bpe")}
    manifest = preprocess(tmp_path / "out", data, processor={"chat_template": templates.CHATML}, **options)
    assert manifest.audit is not None
    assert not manifest.audit.findings


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--mask_pattern", "("], "mask_pattern '(' is no regular expression of RE2: missing ): ("),
        (["--mask_pattern", "(?=a)"],
         "mask_pattern '(?=a)' is no regular expression of RE2: invalid perl operator: (?="),
        (["--mask_pattern", "a", "--response_template", "A:"],
         "mask_pattern is about messages, and cannot be used with response_template; leave one of them out"),
        (["--mask_pattern"], "--mask_pattern needs a value"),
        (["--pattern_weights", "{'(': 0.5}"], "pattern_weights '(' is no regular expression of RE2: missing ): ("),
        (["--pattern_weights", "{a: -1}"], "pattern_weights: the weight of 'a' must be a number, 0 or more, not -1"),
        (["--pattern_weights", "{a: x}"], "pattern_weights.a must be a number, not 'x'"),
        (["--range_edges", "outer"], "range_edges must be one of any, inner, not 'outer'"),
    ],
)  # fmt: skip
def test_a_pattern_that_cannot_be_used_is_refused(tmp_path: Path, arguments: list[str], says: str) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"messages": [user("q"), assistant("a")]}])
    common = ["--training_data_path", str(source), "--model_name_or_path", "sample:model"]
    done = sftkit("preprocess", *common, "--output_dir", str(tmp_path / "out"), *arguments)
    assert (done.code, done.err) == (2, f"error: {says}\n")


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "re2" else find(name, *rest))
    source = write_jsonl(tmp_path / "in.jsonl", [{"messages": [user("q"), assistant("a")]}])
    common = ["--training_data_path", str(source), "--model_name_or_path", "sample:model"]
    done = sftkit("preprocess", *common, "--output_dir", str(tmp_path / "out"), "--mask_pattern", "a")
    assert "mask_pattern needs google-re2, which is not installed; pip install 'sftkit[patterns]'" in done.err
    assert done.code != 0
