"""Values of `train_on`: the built-in ones, and those of other installed packages."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import chat_templates as templates
from plugins_support import install_plugin, run_sftkit
from sftkit.config.fields import option_info
from sftkit.config.schema.shared_options import DataOptions
from sftkit.core.plugins import find_plugins
from sftkit.core.row_log import RowError
from sftkit.errors import ConfigError
from sftkit.tokenization.chat_tokenizer import ChatTokenizer
from sftkit.tokenization.chat_tokenizer_spec import ChatTokenizerSpec
from sftkit.tokenization.loading.tokenizer_loading import TokenizerSpec, load_tokenizer
from sftkit.tokenization.masking.supervision import AssistantTurn, Supervision
from sftkit.tokenization.masking.train_on import TRAIN_ON
from sftkit.tokenization.masking.turn_masks import TurnMasks
from support import WATCHED, write_jsonl, written

REGISTERED = {"sftkit.train_on": {"toy": "toy"}}
FIRST_TURN = "def toy(messages, turns):\n    return turns[:1]\n"
MESSAGES = [{"role": role, "content": role[0]} for role in ("system", *("user", "assistant") * 3)]
TURNS = [AssistantTurn(2, 10, 12), AssistantTurn(4, 20, 22), AssistantTurn(6, 30, 32)]


@pytest.fixture(autouse=True)
def _fresh_plugins() -> Iterator[None]:
    find_plugins.cache_clear()
    yield
    find_plugins.cache_clear()


@pytest.fixture
def supervise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make a `Supervision` by a plugin with the given source."""

    def make(source: str, *, reasoning_masked: bool = False) -> Supervision:
        monkeypatch.delitem(__import__("sys").modules, "toys", raising=False)
        monkeypatch.syspath_prepend(str(install_plugin(tmp_path / "site", source, REGISTERED)))
        find_plugins.cache_clear()
        return Supervision("toy", TurnMasks("mask" if reasoning_masked else "keep"))

    return make


def test_the_config_lists_the_built_in_values() -> None:
    [train_on] = [field for field in dataclasses.fields(DataOptions) if field.name == "train_on"]
    assert option_info(train_on).choices == tuple(TRAIN_ON)


@pytest.mark.parametrize(
    ("train_on", "indices", "spans"),
    [
        ("assistant", [2, 4, 6], [(10, 12), (20, 22), (30, 32)]),
        ("last_assistant", [6], [(30, 32)]),
        ("first_assistant", [2], [(10, 12)]),
        ("all", [2, 4, 6], [(10, 12), (20, 22), (30, 32)]),
    ],
)
def test_built_in_values_choose_turns(train_on: str, indices: list[int], spans: list[tuple[int, int]]) -> None:
    supervision = Supervision(train_on)
    assert supervision.trained_turns(MESSAGES) == indices
    assert supervision.spans("", TURNS, MESSAGES) == spans
    assert supervision.trained_responses("0123456789", [(1, 2), (4, 6)]) == (
        [(1, 2)] if train_on == "first_assistant" else [(1, 2), (4, 6)][-len(spans) :]
    )


def test_a_plugin_chooses_among_turns_by_messages_and_flags_still_exclude_messages(supervise: Any) -> None:
    supervision = supervise("def toy(messages, turns):\n    return {t for t in turns if 'skip' not in messages[t]}\n")
    skipping = [{**message, "skip": 1} if index == 4 else message for index, message in enumerate(MESSAGES)]
    assert supervision.trained_turns(skipping) == [2, 6]
    assert supervision.spans("", TURNS, skipping) == [(10, 12), (30, 32)]
    skipping[2] = {**MESSAGES[2], "weight": 0}
    assert supervision.spans("", TURNS, skipping) == [(30, 32)]


@pytest.mark.parametrize(
    ("chosen", "texts"),
    [("turns[1:2]", ["two<|im_end|>"]), ("turns[1:]", ["two<|im_end|>", "three<|im_end|>"]), ("turns[:1]", None)],
)
def test_a_plugin_chooses_among_all_turns_also_if_one_cannot_be_verified(
    supervise: Any, chosen: str, texts: list[str] | None
) -> None:
    template = templates.CHATML.replace("message['role']", "('helper' if loop.index0 == 2 else message['role'])")
    supervise(f"def toy(messages, turns):\n    return {chosen}\n")
    spec = ChatTokenizerSpec(TokenizerSpec("sample:model", template), "toy", WATCHED)
    contents = ("be", "a", "one", "b", "two", "c", "three")
    talk = [{**message, "content": content} for message, content in zip(MESSAGES, contents, strict=True)]
    tokenizer = ChatTokenizer(spec)
    if texts is None:
        with pytest.raises(RowError, match="message 2 does not start with its generation prompt"):
            tokenizer.conversations.find_trained_spans({"messages": talk}, "messages")
    else:
        text, spans = tokenizer.conversations.find_trained_spans({"messages": talk}, "messages")
        assert [text[start:end] for start, end in spans] == texts


def test_a_plugin_chooses_among_responses_in_text(supervise: Any) -> None:
    supervision = supervise("def toy(messages, turns):\n    return [t for t in turns if messages[t]['content'] == '1']")
    assert supervision.trained_responses("0123456789", [(1, 2), (4, 6)]) == [(1, 2)]


@pytest.mark.parametrize(
    ("returned", "reason"),
    [
        ("[3]", "train_on=toy must choose among the assistant messages [2, 4, 6], not 3"),
        ("turns[9]", "train_on=toy raised IndexError: list index out of range"),
        ("None", "train_on=toy raised TypeError: 'NoneType' object is not iterable"),
    ],
)
def test_a_row_that_a_plugin_fails_on_is_a_bad_row(supervise: Any, returned: str, reason: str) -> None:
    with pytest.raises(RowError, match=re.escape(reason)):
        supervise(f"def toy(messages, turns):\n    return {returned}\n").spans("", TURNS, MESSAGES)


@pytest.mark.parametrize(("source", "message"), [("toy = 1", "is not a function"), ("1 / 0", "ZeroDivisionError")])
def test_a_plugin_that_cannot_be_used_is_a_config_error(supervise: Any, source: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        supervise(source)


def preprocess(site: Path, source: Path, output: Path, train_on: str = "toy") -> Any:
    return run_sftkit(
        *(site, "preprocess", "--training_data_path", source, "--dataset_conversation_field", "messages"),
        *("--model_name_or_path", "sample:model", "--output_dir", output, "--train_on", train_on),
        *("--num_workers", 2, "--unit_size", 4096, "--staging_dir", output.parent / "staged"),
    )


def trained_texts(output: Path) -> list[str]:
    tokenizer = load_tokenizer(TokenizerSpec("sample:model", None))
    labels = [[label for label in row["labels"] if label != -100] for row in written(output)]
    return [tokenizer.decode(row) for row in labels]


@pytest.mark.slow
def test_workers_train_the_turns_that_a_plugin_chooses_and_its_changes_invalidate_staged_units(tmp_path: Path) -> None:
    talks = [
        [{"role": role, "content": f"{role} {n} {turn}"} for turn in range(3) for role in ("user", "assistant")]
        for n in range(200)
    ]
    source = write_jsonl(tmp_path / "chats.jsonl", [{"messages": talk} for talk in talks])
    site = install_plugin(tmp_path / "site", FIRST_TURN, REGISTERED)

    done = preprocess(site, source, tmp_path / "first")
    assert done.returncode == 0, done.stderr
    texts = trained_texts(tmp_path / "first")
    assert texts == [f"assistant {n} 0<|im_end|>" for n in range(200)]
    assert json.loads((tmp_path / "first" / "manifest.json").read_text())["audit"]["findings"] == []
    staged = set((tmp_path / "staged").rglob("unit-*"))
    assert len(staged) > 2

    assert preprocess(site, source, tmp_path / "second").returncode == 0
    assert set((tmp_path / "staged").rglob("unit-*")) == staged

    (site / "toys.py").write_text(FIRST_TURN.replace("[:1]", "[1:]"))
    assert preprocess(site, source, tmp_path / "third").returncode == 0
    assert len(set((tmp_path / "staged").rglob("unit-*"))) == 2 * len(staged)
    assert trained_texts(tmp_path / "third")[0] == "assistant 0 1<|im_end|>assistant 0 2<|im_end|>"


def test_an_unknown_value_is_refused_with_the_known_ones_and_no_plugin_is_imported(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "chats.jsonl", [{"messages": MESSAGES}])
    site = install_plugin(tmp_path / "site", f"open({str(tmp_path / 'imported')!r}, 'w').close()", REGISTERED)
    done = preprocess(site, source, tmp_path / "out", train_on="first")
    assert done.returncode == 2
    assert "train_on must be one of assistant, last_assistant, first_assistant, all, toy, not 'first'" in " ".join(
        done.stderr.split()
    )
    assert not (tmp_path / "imported").exists()
