"""What limits on the length of rows cut off: counted by source, wherever a row is cut, and shown."""

from __future__ import annotations

import io
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from reliability.material import sftkit
from sftkit.cli.console.reports.show_preprocess import print_result
from sftkit.core.accounting.cuts import Cuts
from sftkit.core.rows import Row
from sftkit.preprocessing.accounting.row_counts import RowAccountingError, check_row_accounting
from sftkit.shards.manifest import Manifest, read_manifest
from support import dataset, examples, handler, preprocess, shard_bytes, write_jsonl, written
from template_zoo.conversations import assistant, user

CHAT = "tokenize_and_apply_chat_template_with_masking"


def row(*parts: int, first: int = 1) -> Row:
    """A row of alternating untrained and trained parts of these lengths, with ids from `first`."""
    ids = list(range(first, first + sum(parts)))
    trained = [place % 2 == 1 for place, length in enumerate(parts) for _ in range(length)]
    return {"input_ids": ids, "labels": [each if own else -100 for each, own in zip(ids, trained, strict=True)]}


def shown(manifest: Manifest) -> list[str]:
    screen = io.StringIO()
    print_result(manifest, "out", Console(file=screen, width=300))
    return [" ".join(line.split()) for line in screen.getvalue().splitlines()]


# --- Where rows are cut -----------------------------------------------------------------------------------


def test_ten_rows_of_3000_tokens_at_512(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [row(400, 600, 1000, 1000)] * 10)
    manifest = preprocess(tmp_path / "out", dataset(source), max_seq_length=512)
    cuts = Cuts(rows=10, tokens=24_880, trained_tokens=10 * (600 - 112 + 1000), rows_losing_answers=10)
    assert (manifest.cuts, manifest.sources[0].cuts) == (cuts, cuts)
    assert "10 rows read, 10 written" in shown(manifest)
    sentence = "10 of 10 rows cut, 14,880 trained tokens lost (of 24,880 tokens cut off); 10 rows lost whole answers"
    assert sentence in shown(manifest)
    text = sftkit("inspect-shards", tmp_path / "out", "--rows", 0).out
    assert f"cut: {sentence}\n" in text
    assert f"source: {source}: 10 read, 10 kept, 10 cut (14,880 trained tokens lost)\n" in text
    document = json.loads(sftkit("inspect-shards", tmp_path / "out", "--rows", 0, "--format", "json").out)
    origin = document["summary"]["origin"]
    assert origin["cuts"] == origin["sources"][0]["cuts"] == asdict(cuts)
    assert "cuts.tokens" not in sftkit("inspect-shards", tmp_path / "out", "--verify", "true").out


def test_conversations_lose_what_transformers_says_they_lose(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    from sftkit.sample import sample_path

    tokenizer = AutoTokenizer.from_pretrained(sample_path("sample:model"))
    talk = [user("What is it?"), assistant("It is a list of words. " * 9), user("And that?"), assistant("A cat.")]
    length = len(tokenizer.apply_chat_template(talk, return_dict=True)["input_ids"])
    last = len(tokenizer.apply_chat_template(talk[:3], add_generation_prompt=True, return_dict=True)["input_ids"])
    source = write_jsonl(tmp_path / "in.jsonl", [{"messages": talk}, {"messages": talk[2:]}])
    line_end = 1  # after the last stop token, without a loss
    for limit, lost, answers in ((last + 2, length - last - 2 - line_end, 0), (last, length - last - line_end, 1)):
        handlers = [handler(CHAT, max_seq_length=limit)]
        by_handler = preprocess(
            tmp_path / f"handler{limit}", dataset(source, data_handlers=handlers), model_name_or_path="sample:model"
        )
        by_option = preprocess(
            tmp_path / f"option{limit}",
            dataset(source, data_handlers=[handler(CHAT)]),
            model_name_or_path="sample:model",
            max_seq_length=limit,
        )
        assert by_handler.cuts == by_option.cuts == Cuts(1, length - limit, lost, answers)
        assert shard_bytes(tmp_path / f"handler{limit}") == shard_bytes(tmp_path / f"option{limit}")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_row_that_is_cut_several_times_counts_once(tmp_path: Path, workers: int) -> None:
    a = write_jsonl(tmp_path / "a.jsonl", [row(4, 4, 4, 8), row(2, 4, 1, 1), row(2, 2)])
    b = write_jsonl(tmp_path / "b.jsonl", [row(2, 30), row(12, 10), row(6, 6, first=100)])
    options: dict[str, Any] = {"max_seq_length": 15, "packing": "bfd", "pack_length": 7}
    manifest = preprocess(tmp_path / "out", dataset(a), dataset(b, name="b"), num_workers=workers, **options)
    # At 15: 20 -> 15, 32 -> 15, 22 -> 15. At 7: all but one of them again, row(2, 4, 1, 1) and row(6, 6).
    assert [source.cuts for source in manifest.sources] == [
        Cuts(2, 5 + 8 + 1, (5 + 3 + 1) + 1, 2),
        Cuts(3, 17 + 8 + 7 + 8 + 5, (17 + 8) + (7 + 3) + 5, 1),
    ]
    assert manifest.cuts == Cuts(5, 59, 50, 3)
    assert manifest.dropped == {"cut at 7 tokens before the first answer": 1}
    lines, header = shown(manifest), "source dataset read kept dropped quarantined cut trained tokens lost"
    assert lines[lines.index(header) + 1 :][:3] == [
        f"{a} data 3 3 0 0 2 10",
        f"{b} b 3 2 1 0 3 40",
        "all 6 5 1 0 5 50",
    ]


@pytest.mark.parametrize("name", ["sample:model", "bos_eos", "metaspace"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_truncation_while_text_is_tokenized_is_counted(
    tmp_path: Path, tokenizer_path: Any, name: str, side: str
) -> None:
    from transformers import AutoTokenizer

    from sftkit.sample import sample_path

    tokenizer = AutoTokenizer.from_pretrained(
        sample_path("sample:model") if name == "sample:model" else tokenizer_path(name), truncation_side=side
    )
    tokenizer.save_pretrained(tmp_path / "model")
    texts = ["The cat sat on the mat. " * count for count in (1, 5, 2, 9)]
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": text} for text in texts])
    handlers = [handler("tokenize", dataset_text_field="text", truncation=True, max_length=16)]
    manifest = preprocess(
        tmp_path / "out",
        dataset(source, data_handlers=handlers),
        model_name_or_path=str(tmp_path / "model"),
        train_on="all",
        max_seq_length=12,
    )
    lengths = [len(tokenizer(text)["input_ids"]) for text in texts]
    expected = [tokenizer(text, truncation=True, max_length=16)["input_ids"][:12] for text in texts]
    assert [each["input_ids"] for each in written(tmp_path / "out")] == expected
    lost = sum(length - 12 for length in lengths if length > 12)
    rows = sum(length > 12 for length in lengths)
    assert rows < 4
    assert manifest.cuts == Cuts(rows, lost, lost, 0)


def test_only_the_last_tokenization_of_a_row_counts(tmp_path: Path) -> None:
    text = "Question: what is it? Answer: a cat, and a cat is an animal."
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": text}])
    handlers = [handler("tokenize", dataset_text_field="text", truncation=True, max_length=5)]
    manifest = preprocess(
        tmp_path / "out",
        dataset(source, data_handlers=handlers),
        model_name_or_path="sample:model",
        response_template="Answer:",
        dataset_text_field="text",
    )
    assert (manifest.cuts, manifest.rows_written) == (Cuts(), 1)
    assert len(written(tmp_path / "out")[0]["input_ids"]) > 10


def test_wrapped_packs_and_dropped_rows_cut_nothing(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [row(2, 30), row(2, 2)])
    for options in ({"packing": "wrapped", "pack_length": 7}, {"overflow": "drop", "max_seq_length": 7}):
        manifest = preprocess(tmp_path / options.get("packing", "drop"), dataset(source), **options)  # type: ignore[arg-type]
        assert manifest.cuts == Cuts()
        assert not any("cut" in line for line in shown(manifest))


def test_a_row_cut_before_its_first_answer_says_so(tmp_path: Path) -> None:
    rows = [row(8, 3), row(3, 8), row(4), row(8, 3, 2, 2)]
    source = write_jsonl(tmp_path / "in.jsonl", rows)
    manifest = preprocess(tmp_path / "out", dataset(source), max_seq_length=6)
    assert manifest.dropped == {"cut at 6 tokens before the first answer": 2, "no trained token": 1}
    assert manifest.cuts == Cuts(3, 5 + 5 + 9, 3 + 5 + 5, 2)


# --- Sums -------------------------------------------------------------------------------------------------


@settings(max_examples=examples(60), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    files=st.lists(
        st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=5), min_size=1, max_size=5), min_size=1, max_size=20
    ),
    limit=st.one_of(st.none(), st.integers(2, 12)),
    pack=st.one_of(st.none(), st.integers(2, 12)),
    overflow=st.sampled_from(["truncate", "drop"]),
)
def test_the_sums_close(
    tmp_path_factory: pytest.TempPathFactory,
    files: list[list[list[int]]],
    limit: int | None,
    pack: int | None,
    overflow: str,
) -> None:
    """By source: what each row loses at the first limit that leaves it no trained token, or at all of them."""
    folder = tmp_path_factory.mktemp("sums")
    rows = [[row(*parts) for parts in file] for file in files]
    kept_row = {**row(1, 1), "id": "whole"}  # so that no run ends without rows
    for number, some in enumerate(rows):
        write_jsonl(folder / "data" / f"{number:02}.jsonl", some)
    write_jsonl(folder / "data" / "last.jsonl", [kept_row])
    limits = [1000 if limit is None else limit, *([] if pack is None else [pack])]
    packing: dict[str, Any] = {} if pack is None else {"packing": "bfd", "pack_length": pack}
    manifest = preprocess(
        folder / "out",
        dataset(folder / "data"),
        max_seq_length=limit,
        overflow=overflow,
        **packing,
    )
    assert len(manifest.sources) == len(files) + 1
    for source, some in zip(manifest.sources, [*rows, [kept_row]], strict=True):
        cuts, kept, dropped = Cuts(), 0, 0
        for each in some:
            labels = whole = [-100, *each["labels"][1:]]
            for length in limits:
                if overflow == "drop" and length < len(labels):
                    labels = []
                labels = labels[:length]
                if set(labels) <= {-100}:
                    break
            is_kept = not set(labels) <= {-100}
            kept, dropped = kept + is_kept, dropped + (not is_kept)
            if 0 < len(labels) < len(whole):
                starts = [place for place in range(1, len(whole)) if whole[place - 1] == -100 != whole[place]]
                cuts += Cuts(
                    rows=1,
                    tokens=len(whole) - len(labels),
                    trained_tokens=sum(label != -100 for label in whole[len(labels) :]),
                    rows_losing_answers=int(any(start >= len(labels) for start in starts)),
                )
        assert source.cuts == cuts
        assert (source.rows_read, source.rows_kept, sum(source.dropped.values())) == (len(some), kept, dropped)
    assert manifest.cuts == sum((source.cuts or Cuts() for source in manifest.sources), Cuts())


def test_staged_units_keep_what_was_cut(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [row(3, 8), row(2, 2), row(3, 5, 2, 2)])
    options: dict[str, Any] = {"max_seq_length": 9, "staging_dir": str(tmp_path / "units")}
    first = preprocess(tmp_path / "one", dataset(source), **options)
    packed = preprocess(tmp_path / "two", dataset(source), **options, packing="bfd", pack_length=6)
    assert (first.cuts, packed.cuts) == (Cuts(2, 2 + 3, 2 + 2, 1), Cuts(2, 5 + 6, 5 + 4, 1))
    assert (first.units_found, packed.units_found) == (0, 1)


def test_wrong_sums_stop_a_run_and_are_found_in_a_manifest(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [row(3, 8)])
    manifest = preprocess(tmp_path / "out", dataset(source), max_seq_length=9)
    path = tmp_path / "out" / "manifest.json"
    path.write_text(path.read_text().replace('"tokens": 2,', '"tokens": 3,', 1))
    found = sftkit("inspect-shards", tmp_path / "out", "--verify", "true").out
    assert "manifest.json: cuts.tokens is 2, its parts sum to 3" in found
    with pytest.raises(RowAccountingError, match="1 tokens cut in all, 2 in parts"):
        check_row_accounting(replace(manifest, cuts=Cuts(1, 1, 2)))


def test_older_manifests_do_not_say_what_was_cut(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [row(3, 8)])
    manifest = preprocess(tmp_path / "out", dataset(source), max_seq_length=9)
    assert manifest.format_version == 5
    path = tmp_path / "out" / "manifest.json"
    record = json.loads(path.read_text())
    for part in (record, *record["sources"]):
        del part["cuts"]
    path.write_text(json.dumps({**record, "format_version": 3}))
    old = read_manifest(tmp_path / "out")
    assert old is not None
    assert (old.cuts, old.sources[0].cuts) == (None, None)
    assert "cut" not in sftkit("inspect-shards", tmp_path / "out", "--rows", 0).out
