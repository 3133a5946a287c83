"""`overflow: split_turns` and `truncate_left`: what becomes of rows that are too long, and how they are counted."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_cuts import row, shown

from reliability.material import sftkit
from sftkit import ShardDataset
from sftkit.config.commands import PreprocessConfig
from sftkit.config.validation import validate_config
from sftkit.core.accounting.cuts import Cuts
from sftkit.core.rows import Row
from sftkit.errors import ConfigError, DataError
from sftkit.preprocessing.planning import plan
from sftkit.shards.manifest import Manifest
from support import dataset, examples, handler, preprocess, shard_bytes, write_jsonl, written
from template_zoo.conversations import assistant, system, user

CHAT = "tokenize_and_apply_chat_template_with_masking"
Message = dict[str, Any]


def exchange(number: int, words: int) -> list[Message]:
    return [user(f"Question {number}?"), assistant(f"Answer {number}" + " and so on" * words)]


def joined(parts: Iterable[list[Message]]) -> list[Message]:
    return list(chain.from_iterable(parts))


def split(
    output: Path,
    conversations: list[Any],
    limit: int,
    *,
    name: str = "in",
    columns: dict[str, Any] | None = None,
    **more: Any,
) -> Manifest:
    rows = [{"messages": messages, "id": number, **(columns or {})} for number, messages in enumerate(conversations)]
    source = write_jsonl(output.parent / f"{name}.jsonl", rows)
    data = dataset(source, data_handlers=[handler(CHAT)])
    options: dict[str, Any] = {"model_name_or_path": "sample:model", "overflow": "split_turns"}
    return preprocess(output, data, max_seq_length=limit, **{**options, **more})


def whole(output: Path, conversations: list[Any], **more: Any) -> list[Row]:
    """The rows of conversations, given one by one, without a limit."""
    split(output, conversations, 10**6, name="whole", **more)
    return written(output)


# --- split_turns ------------------------------------------------------------------------------------------


def test_a_long_conversation_becomes_rows_of_whole_exchanges(tmp_path: Path) -> None:
    head = [system("You are brief.")]
    parts = [exchange(number, words) for number, words in enumerate((3, 4, 12, 2, 2))]
    pieces = [[*head, *parts[0], *parts[1]], [*head, *parts[2]], [*head, *parts[3], *parts[4]]]
    expected = whole(tmp_path / "whole", pieces)
    limit = max(len(each["input_ids"]) for each in expected)
    manifest = split(tmp_path / "out", [[*head, *joined(parts)], [*head, *parts[0]]], limit)
    assert written(tmp_path / "out")[:3] == expected
    assert (manifest.rows_read, manifest.rows_added, manifest.rows_written) == (2, 2, 4)
    assert (manifest.sources[0].rows_added, manifest.sources[0].rows_kept) == (2, 4)
    assert manifest.cuts == Cuts()
    assert "2 rows read, 2 added by split_turns, 4 written" in shown(manifest)
    text = sftkit("inspect-shards", tmp_path / "out", "--rows", 0).out
    assert "rows: 2 read, 4 written, 2 added by split_turns\n" in text
    assert "in.jsonl: 2 read, 2 added, 4 kept\n" in text
    document = json.loads(sftkit("inspect-shards", tmp_path / "out", "--rows", 0, "--format", "json").out)
    assert document["summary"]["origin"]["rows_added"] == 2
    assert sftkit("inspect-shards", tmp_path / "out", "--verify", "true").code == 0


def test_retained_columns_are_those_of_the_piece(tmp_path: Path) -> None:
    parts = [exchange(number, 4) for number in range(2)]
    source = write_jsonl(tmp_path / "in.jsonl", [{"messages": joined(parts), "id": 7}])
    data = dataset(source, data_handlers=[handler(CHAT)], retain_columns=("id", "messages"))
    options: dict[str, Any] = {"max_seq_length": 30, "overflow": "split_turns"}
    preprocess(tmp_path / "out", data, model_name_or_path="sample:model", **options)
    assert [(each["id"], each["messages"]) for each in written(tmp_path / "out")] == [(7, part) for part in parts]


def test_a_piece_takes_as_many_exchanges_as_fit(tmp_path: Path) -> None:
    parts = [exchange(number, 3) for number in range(6)]
    two = len(whole(tmp_path / "two", [[*parts[0], *parts[1]]])[0]["input_ids"])
    for limit, count in ((two - 1, 6), (two, 3), (two + 1, 3)):
        assert split(tmp_path / f"out{limit}", [joined(parts)], limit).rows_written == count


def test_tools_variables_and_flags_stay_with_every_piece(tmp_path: Path) -> None:
    template = (
        "{% for tool in tools or [] %}{{ tool | tojson + '\\n' }}{% endfor %}{{ mood | default('') }}"
        "{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    )
    columns = {"tools": [{"name": "search"}], "chat_template_kwargs": {"mood": "calm"}}
    parts = [exchange(number, 6) for number in range(3)]
    parts[1][1]["train"] = False
    parts[1] += [{"role": "tool", "content": "found"}, assistant("Then this.")]
    more: dict[str, Any] = {"columns": columns, "processor": {"chat_template": template}}
    expected = whole(tmp_path / "whole", parts, **more)
    limit = max(len(each["input_ids"]) for each in expected)
    split(tmp_path / "out", [joined(parts)], limit, **more)
    assert written(tmp_path / "out") == expected


@pytest.mark.parametrize(
    ("roles", "pieces"),
    [
        ("u a u a", ["u a", "u a"]),
        ("s d u a u a", ["s d u a", "s d u a"]),
        ("a u a u a", ["a u a", "u a"]),  # a greeting
        ("u u a u u a", ["u u a", "u u a"]),
        ("u a a u a", ["u a a", "u a"]),
        ("u a t a u a", ["u a t a", "u a"]),
        ("u a u a u", ["u a", "u a u"]),  # a question without an answer is no row
        ("s u s u a u a", ["s u s u a", "s u a"]),
    ],
)
def test_where_a_conversation_is_split(tmp_path: Path, roles: str, pieces: list[str]) -> None:
    names = {"u": "user", "a": "assistant", "s": "system", "d": "developer", "t": "tool"}

    def talk(letters: str) -> list[Message]:
        return [{"role": names[letter], "content": f"{letter} " * 5} for letter in letters.split()]

    template = (
        "{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    )
    more: dict[str, Any] = {"processor": {"chat_template": template}}
    expected = whole(tmp_path / "whole", [talk(piece) for piece in pieces], **more)
    limit = max(len(each["input_ids"]) for each in expected)
    split(tmp_path / "out", [talk(roles)], limit, **more)
    assert written(tmp_path / "out") == expected


def test_an_exchange_that_is_too_long_is_dropped_with_its_place_and_the_rest_stays(tmp_path: Path) -> None:
    parts = [exchange(0, 3), exchange(1, 60), exchange(2, 3)]
    conversations = [exchange(9, 1), joined(parts), parts[1]]
    manifest = split(tmp_path / "out", conversations, 40)
    assert written(tmp_path / "out") == whole(tmp_path / "whole", [exchange(9, 1), parts[0], parts[2]])
    assert (manifest.rows_read, manifest.rows_added, manifest.rows_written) == (3, 2, 3)
    reason = "a single exchange is longer than max_seq_length=40"
    assert manifest.dropped_by_handler == {CHAT: {reason: 2}}
    entries = [json.loads(line) for line in (tmp_path / "out" / "dropped.jsonl").read_text().splitlines()]
    assert [(entry["row"], entry["reason"]) for entry in entries] == [(2, reason), (3, reason)]
    assert json.loads(entries[0]["content"])["messages"] == parts[1]


def test_pieces_are_dropped_and_quarantined_like_rows(tmp_path: Path) -> None:
    refuse = "{% if loop.first and message.content == 'NOT FIRST' %}{{ raise_exception('not first') }}{% endif %}"
    template = (
        f"{{% for message in messages %}}{refuse}"
        "{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    )
    empty = [user("Question? " * 6), assistant("")]
    refused = [user("NOT FIRST"), assistant("Answer" + " and so on" * 4)]
    manifest = split(
        tmp_path / "out",
        [[*exchange(0, 4), *empty, *refused, *exchange(1, 4)], exchange(0, 1)],
        30,
        drop_empty_answers=True,
        max_bad_rows=1,
        processor={"chat_template": template},
    )
    assert (manifest.rows_read, manifest.rows_added, manifest.rows_written, manifest.quarantined) == (2, 3, 3, 1)
    assert manifest.dropped == {"empty answer": 1}
    [bad] = [json.loads(line) for line in (tmp_path / "out" / "quarantine.jsonl").read_text().splitlines()]
    assert (bad["row"], bad["reason"]) == (1, "the chat template cannot render this row: not first")
    assert json.loads(bad["content"])["messages"] == refused


@pytest.mark.parametrize("workers", [1, 2])
def test_split_rows_do_not_depend_on_units_workers_and_earlier_runs(tmp_path: Path, workers: int) -> None:
    draw = random.Random(1)
    talks = [
        [system("Be kind."), *joined(exchange(k, draw.randint(0, 9)) for k in range(draw.randint(1, 6)))]
        for _ in range(40)
    ]
    first = split(tmp_path / "one", talks, 60)
    staging = str(tmp_path / "units")
    second = split(tmp_path / "two", talks, 60, unit_size=3000, num_workers=workers, staging_dir=staging)
    third = split(tmp_path / "three", talks, 60, unit_size=3000, num_workers=workers, staging_dir=staging)
    assert first.rows_added == second.rows_added == third.rows_added > 20
    assert third.units_found == third.units > 3
    assert shard_bytes(tmp_path / "one") == shard_bytes(tmp_path / "two") == shard_bytes(tmp_path / "three")
    assert len({len(each["input_ids"]) <= 60 for each in written(tmp_path / "one")}) == 1


def test_small_files_that_share_a_unit_have_their_own_counts(tmp_path: Path) -> None:
    for number in range(120):
        talk = joined(exchange(k, 4) for k in range(number % 4 + 1))
        write_jsonl(tmp_path / "data" / f"{number:03}.jsonl", [{"messages": talk}, {"messages": exchange(0, 40)}])
    manifest = preprocess(
        tmp_path / "out",
        dataset(tmp_path / "data", data_handlers=[handler(CHAT)]),
        model_name_or_path="sample:model",
        max_seq_length=30,
        overflow="split_turns",
    )
    assert manifest.units < 20
    assert [source.rows_added for source in manifest.sources] == [number % 4 for number in range(120)]
    assert [source.rows_kept for source in manifest.sources] == [number % 4 + 1 for number in range(120)]


def test_findings_name_the_row_that_was_split(tmp_path: Path) -> None:
    talk = [*exchange(0, 4), user("Empty?"), assistant(" "), *exchange(2, 4)]
    manifest = split(tmp_path / "out", [exchange(5, 2), talk], 30)
    assert manifest.rows_written == 4
    assert manifest.audit is not None
    [found] = [each for each in manifest.audit.findings if each.rule == "empty_answer"]
    assert found.examples == (f"{tmp_path / 'in.jsonl'}:2",)


def test_packs_hold_the_pieces(tmp_path: Path) -> None:
    talks = [joined(exchange(k, 4) for k in range(5)) for _ in range(3)]
    manifest = split(tmp_path / "out", talks, 30, packing="bfd", pack_length=64)
    assert manifest.splits["train"].sequences == 15 == manifest.rows_read + manifest.rows_added
    assert manifest.cuts == Cuts()


def test_other_rows_that_are_too_long_are_dropped(tmp_path: Path) -> None:
    chats = write_jsonl(tmp_path / "chats.jsonl", [{"messages": exchange(0, 2)}])
    tokens = write_jsonl(tmp_path / "tokens.jsonl", [row(2, 50), row(2, 3)])
    manifest = preprocess(
        tmp_path / "out",
        dataset(chats, data_handlers=[handler(CHAT)]),
        dataset(tokens, name="tokens"),
        model_name_or_path="sample:model",
        max_seq_length=40,
        overflow="split_turns",
    )
    assert manifest.dropped == {"longer than max_seq_length=40, and no conversation to split": 1}
    with pytest.raises(ConfigError, match="overflow=split_turns splits conversations, but no data set has the handler"):
        plan(
            PreprocessConfig(
                output_dir="o", datasets=(dataset(tokens),), max_seq_length=40, overflow="split_turns", num_workers=1
            )
        )


def test_the_limit_of_the_handler_splits_too(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"messages": [*exchange(0, 4), *exchange(1, 4)]}])
    manifest = preprocess(
        tmp_path / "out",
        dataset(source, data_handlers=[handler(CHAT, max_seq_length=30)]),
        model_name_or_path="sample:model",
        max_seq_length=1000,
        overflow="split_turns",
    )
    assert (manifest.rows_written, manifest.cuts) == (2, Cuts())


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({}, "overflow=split_turns needs a length; set max_seq_length"),
        (
            {"max_seq_length": 20, "packing": "bfd", "pack_length": 10},
            "overflow=split_turns splits at max_seq_length=20, which is more than pack_length=10; set max_seq_length "
            "to pack_length or less",
        ),
    ],
)
def test_split_turns_needs_a_length_that_fits(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate_config(PreprocessConfig(output_dir="o", training_data_path=("x",), overflow="split_turns", **options))
    assert caught.value.problems == (problem,)


@settings(max_examples=examples(40), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    talks=st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=6), min_size=1, max_size=6),
    limit=st.integers(15, 90),
    has_system=st.booleans(),
)
def test_every_exchange_is_in_one_row_or_listed(
    tmp_path_factory: pytest.TempPathFactory, talks: list[list[int]], limit: int, has_system: bool
) -> None:
    folder = tmp_path_factory.mktemp("split")
    head = [system("Be kind.")] if has_system else []
    conversations = [[*head, *joined(exchange(k, w) for k, w in enumerate(words))] for words in talks]
    manifest = split(folder / "out", [*conversations, [user("x"), assistant("y")]], limit)
    rows = written(folder / "out")
    assert all(len(each["input_ids"]) <= limit for each in rows)
    path = folder / "out" / "dropped.jsonl"
    dropped = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    kept = manifest.rows_read + manifest.rows_added - len(dropped)
    assert kept == len(rows) == manifest.sources[0].rows_kept
    assert manifest.cuts == Cuts()
    if not dropped:
        everything = whole(folder / "whole", [*conversations, [user("x"), assistant("y")]])
        assert trained(rows) == trained(everything)
    for entry in dropped:
        [alone] = whole(folder / "alone", [json.loads(entry["content"])["messages"]], overwrite=True)
        assert len(alone["input_ids"]) > limit


def trained(rows: list[Row]) -> int:
    return sum(label != -100 for each in rows for label in each["labels"])


# --- truncate_left ----------------------------------------------------------------------------------------


def test_truncate_left_keeps_the_end(tmp_path: Path) -> None:
    rows = [row(3, 4, 2, 5), row(2, 2), row(2, 5, 4, 1), row(2, 4, 9)]
    source = write_jsonl(tmp_path / "in.jsonl", rows)
    manifest = preprocess(tmp_path / "out", dataset(source), max_seq_length=6, overflow="truncate_left")
    expected = [
        {"input_ids": [9, 10, 11, 12, 13, 14], "labels": [-100, 10, 11, 12, 13, 14]},
        rows[1],
        {"input_ids": [7, 8, 9, 10, 11, 12], "labels": [-100, -100, -100, -100, -100, 12]},
    ]
    assert written(tmp_path / "out") == expected
    assert manifest.dropped == {"cut to the last 6 tokens, after the last answer": 1}
    assert manifest.cuts == Cuts(3, 8 + 6 + 9, 4 + 5 + 4, 3)


@pytest.mark.parametrize("workers", [1, 2])
def test_packs_of_truncate_left_hold_the_ends_of_long_rows(tmp_path: Path, workers: int) -> None:
    rows = [row(3, 4, 2, 5), row(2, 2), row(2, 5, 4, 1, first=50), row(2, 4, 9)]
    source = write_jsonl(tmp_path / "in.jsonl", rows)
    options: dict[str, Any] = {"packing": "bfd", "pack_length": 6, "overflow": "truncate_left", "unit_size": 90}
    manifest = preprocess(tmp_path / "out", dataset(source), num_workers=workers, **options)
    packs = sorted(written(tmp_path / "out"), key=lambda pack: pack["input_ids"])
    assert [pack["input_ids"] for pack in packs] == [[1, 2, 3, 4], [9, 10, 11, 12, 13, 14], [56, 57, 58, 59, 60, 61]]
    assert [pack["labels"] for pack in packs] == [
        [-100, -100, 3, 4],
        [-100, 10, 11, 12, 13, 14],
        [-100, -100, -100, -100, -100, 61],
    ]
    assert manifest.cuts == Cuts(3, 8 + 6 + 9, 4 + 5 + 4, 3)
    assert manifest.dropped == {"cut to the last 6 tokens, after the last answer": 1}


def test_kinds_of_tokens_follow_the_labels_at_a_cut(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"messages": exchange(0, 30)}])
    preprocess(
        tmp_path / "out",
        dataset(source, data_handlers=[handler(CHAT)]),
        model_name_or_path="sample:model",
        token_kinds=True,
        max_seq_length=20,
        overflow="truncate_left",
    )
    [found] = written(tmp_path / "out")
    assert len(found["token_kinds"]) == 20
    assert [kind != 0 for kind in found["token_kinds"]] == [label != -100 for label in found["labels"]]
    assert found["labels"][0] == -100 != found["labels"][1]


def test_train_keeps_the_ends_of_rows_and_refuses_to_split_tokens(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "in.jsonl", [row(3, 4, 2, 5)])
    preprocess(tmp_path / "out", dataset(tmp_path / "in.jsonl"))
    [item] = ShardDataset(tmp_path / "out", max_seq_length=6, overflow="truncate_left")
    assert item.input_ids.values.tolist() == [9, 10, 11, 12, 13, 14]
    with pytest.raises(DataError, match=r"14 tokens, more than max_seq_length=6"):
        list(ShardDataset(tmp_path / "out", max_seq_length=6, overflow="split_turns"))
