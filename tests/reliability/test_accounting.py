"""Bad rows, planted at random places in every kind of source: exactly those are quarantined, each with its path, row
and reason, and all rows read are accounted for.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import pickle
import random
import sys
import tracemalloc
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from sftkit.cli.console.reports.show_preprocess import print_result
from sftkit.config.commands import PreprocessConfig
from sftkit.core.accounting.removed_row import RemovedRow
from sftkit.core.row_log import RowLog
from sftkit.core.rows import Row
from sftkit.errors import DataError, SftkitError
from sftkit.preprocessing.accounting.row_budget import RowBudget, max_rows_per_unit
from sftkit.preprocessing.accounting.row_counts import RowAccountingError
from sftkit.preprocessing.build import find_finished
from sftkit.preprocessing.pipeline.unit_pipeline import StagingTask
from sftkit.preprocessing.planning import plan
from sftkit.shards.manifest import Manifest, read_manifest
from sftkit.shards.staging.removed_rows import RemovedRowsWriter, bad_rows_path
from sftkit.shards.staging.unit_store import UnitStore
from sftkit.sources.discovery.source_files import find_source_files
from sftkit.sources.work_units import read_unit, scan_files
from support import dataset, handler, preprocess, write_jsonl, written

ROWS = 60

FUNCTIONS = """\
def keep(row):
    if row["text"] == "RAISE":
        raise ValueError("not\\n" + "this one")
    if row["text"] == "LIST":
        return [row]
    return None if row["text"] == "DROP" else row
"""


@pytest.fixture
def own_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "planted_functions.py").write_text(FUNCTIONS)
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    monkeypatch.delitem(sys.modules, "planted_functions", raising=False)  # of the test before
    monkeypatch.chdir(tmp_path)  # functions below the working directory need no trust_packages
    return "planted_functions:keep"


# --- What can be wrong with a row, and how it is reported -----------------------------------------------

# Of rows that can be read. id is what tells rows apart in the shards.
UNUSABLE: dict[str, tuple[Row, str]] = {
    "null": ({"id": "0", "text": None}, "column 'text' is null where text should be"),
    "a number": ({"id": "0", "text": 5}, "column 'text' must be text, not "),
    "a list": ({"id": "0", "text": ["x"]}, "column 'text' must be text, not "),
    "no such column": ({"id": "0"}, "planted_functions:keep raised KeyError: 'text'"),
    "a function that raises": (
        {"id": "0", "text": "RAISE"},
        r"planted_functions:keep raised ValueError: not\nthis one",
    ),
    "a function that gives junk": (
        {"id": "0", "text": "LIST"},
        "planted_functions:keep must return a dict or None, not ",
    ),
    "half a character": ({"id": "0", "text": "\ud83d"}, "text with a lone surrogate"),
}
# Of text that is no row.
UNREADABLE: dict[str, tuple[bytes, str]] = {
    "no value": (b"nonsense", "broken JSON: Expecting value at column 1"),
    "no comma": (b'{"id": "0" "text": "x"}', "broken JSON: Expecting ',' delimiter at column 12"),
    "invalid UTF-8": (b'{"id": "0", "text": "\xff\xfe"}', "invalid UTF-8 at byte 21"),
    "no object": (b'["id", "text"]', "a row must be a JSON object, not "),
}
UNENDED: dict[str, tuple[bytes, str]] = {
    "a string without an end": (b'{"id": "0", "text": "x', "broken JSON: "),
    "an object without an end": (b'{"id": "0", "text": "x"', "broken JSON: Expecting "),
}


@dataclass(frozen=True)
class Item:
    """The data written for a row, and the reason for its quarantine; None for a good row."""

    data: Row | bytes
    reason: str | None = None

    @property
    def line(self) -> bytes:
        return self.data if isinstance(self.data, bytes) else json.dumps(self.data).encode()


def planted(seed: str, *faults: dict[str, tuple[Any, str]]) -> list[Item]:
    """Rows in random order: good ones, each fault twice, and two rows that are dropped."""
    items = [
        Item({"id": str(number), "text": f"row {number}, whole" + " and more" * (number % 7)}) for number in range(ROWS)
    ]
    wrong = [Item(*fault) for some in faults for fault in some.values() for _ in range(2)]
    wrong += [Item({"id": "0", "text": "DROP"})] * 2
    draw = random.Random(seed)
    for item in wrong:
        items.insert(draw.randint(0, len(items)), item)
    return items


# --- Sources --------------------------------------------------------------------------------------------

Made = tuple[Path, list[tuple[int, Item]]]
"""A source, and (row number, item) of its rows."""


def json_lines(folder: Path) -> Made:
    items = planted("jsonl", UNUSABLE, UNREADABLE, UNENDED)
    lines = [item.line for item in items]
    numbered = []
    draw = random.Random("blank")
    for number in sorted(draw.sample(range(len(lines)), 5), reverse=True):
        lines.insert(number, b" ")
    rest = iter(items)
    numbered = [(number, next(rest)) for number, line in enumerate(lines, 1) if line != b" "]
    path = folder / "rows.jsonl"
    path.write_bytes(b"\n".join(lines))
    return path, numbered


def compressed(ending: str, compress: Callable[[bytes], bytes]) -> Callable[[Path], Made]:
    def make(folder: Path) -> Made:
        items = planted(ending, UNUSABLE, UNREADABLE, UNENDED)
        path = folder / f"rows.jsonl{ending}"
        path.write_bytes(compress(b"\n".join(item.line for item in items)))
        return path, list(enumerate(items, 1))

    return make


def json_array(folder: Path) -> Made:
    items = planted("array", UNUSABLE, UNREADABLE)
    path = folder / "rows.json"
    path.write_bytes(b"[" + b", ".join(item.line for item in items) + b"]")
    return path, list(enumerate(items, 1))


def json_array_in_lines(folder: Path) -> Made:
    items = planted("lines", UNUSABLE, UNREADABLE, UNENDED)
    path = folder / "rows.json"
    path.write_bytes(b"[\n " + b",\n ".join(item.line for item in items) + b"\n]\n")
    return path, list(enumerate(items, 1))


def delimited(ending: str, delimiter: bytes) -> Callable[[Path], Made]:
    wrong: dict[str, tuple[Any, str]] = {
        "a field": (b"0", "1 fields where the header has 2"),
        "fields": (delimiter.join([b"0", b"x", b"y"]), "3 fields where the header has 2"),
        "invalid UTF-8": (delimiter.join([b"0", b"x \xff"]), "invalid UTF-8"),
        **{name: UNUSABLE[name] for name in ("a function that raises", "a function that gives junk")},
    }

    def make(folder: Path) -> Made:
        items = planted(ending, wrong)
        lines = [b"id" + delimiter + b"text"]
        for item in items:
            fields = item.data if isinstance(item.data, dict) else {}
            quoted = delimiter.join(b'"%s"' % str(value).encode() for value in fields.values())
            lines.append(quoted or item.line)
        path = folder / f"rows{ending}"
        path.write_bytes(b"\r\n".join(lines))
        return path, list(enumerate(items, 1))

    return make


def columnar(ending: str, save: Callable[[pa.Table, Path], None]) -> Callable[[Path], Made]:
    wrong: dict[str, tuple[Any, str]] = {
        "invalid UTF-8": (b"x \xff", "invalid UTF-8"),
        **{name: UNUSABLE[name] for name in ("null", "a function that raises", "a function that gives junk")},
    }

    def make(folder: Path) -> Made:
        items = planted(ending, wrong)
        rows = [item.data if isinstance(item.data, dict) else {"id": "0", "text": item.data} for item in items]
        texts = [row["text"].encode() if isinstance(row["text"], str) else row["text"] for row in rows]
        text = pa.array(texts, pa.binary()).view(pa.string())  # unchecked
        path = folder / f"rows{ending}"
        save(pa.table({"id": [row["id"] for row in rows], "text": text}), path)
        return path, list(enumerate(items, 1))

    return make


def save_arrow(table: pa.Table, path: Path) -> None:
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=7)


SOURCES: dict[str, Callable[[Path], Made]] = {
    "jsonl": json_lines,
    "jsonl.gz": compressed(".gz", gzip.compress),
    "jsonl.zst": compressed(".zst", zstandard.compress),
    "jsonl.bz2": compressed(".bz2", bz2.compress),
    "jsonl.xz": compressed(".xz", lzma.compress),
    "json": json_array,
    "json in lines": json_array_in_lines,
    "csv": delimited(".csv", b","),
    "tsv": delimited(".tsv", b"\t"),
    "parquet": columnar(".parquet", lambda table, path: pq.write_table(table, path, row_group_size=7)),
    "arrow": columnar(".arrow", save_arrow),
}
CUT = ("jsonl", "parquet", "arrow")
"""Kinds of sources that are split into several units."""


def entries(output: Path, name: str = "quarantine.jsonl") -> list[dict[str, Any]]:
    path = output / name
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def check_account(manifest: Manifest) -> None:
    """read = kept + dropped + quarantined, for every source and in total."""
    for source in manifest.sources:
        assert source.rows_read == source.rows_kept + sum(source.dropped.values()) + source.quarantined
        assert sum(source.quarantined_by_reason.values()) == source.quarantined
    dropped = sum(manifest.dropped.values())
    kept = manifest.rows_written - manifest.rows_repeated + manifest.rows_left_out
    assert manifest.rows_read == kept + dropped + manifest.quarantined
    assert sum(sum(each.values()) for each in manifest.dropped_by_handler.values()) == dropped
    assert sum(manifest.quarantined_by_reason.values()) == manifest.quarantined


def check_planted(output: Path, manifest: Manifest, *sources: Made) -> None:
    expected = [
        (str(path), number, item) for path, items in sources for number, item in items if item.reason is not None
    ]
    found = entries(output)
    assert [(entry["path"], entry["row"]) for entry in found] == [(path, number) for path, number, _ in expected]
    for entry, (_, _, item) in zip(found, expected, strict=True):
        assert item.reason is not None
        assert entry["reason"].startswith(item.reason)
        if isinstance(item.data, dict):
            assert json.loads(entry["content"]) == item.data
        elif item.data[:1] in b"{[n":  # a CSV record is reported as a list of its fields
            assert entry["content"] == item.data.decode(errors="replace")
    dropped = [
        {"path": str(path), "row": number, "reason": "planted_functions:keep returned None", "content": item.data}
        for path, items in sources
        for number, item in items
        if isinstance(item.data, dict) and item.data.get("text") == "DROP"
    ]
    listed = [{**entry, "content": json.loads(entry["content"])} for entry in entries(output, "dropped.jsonl")]
    assert listed == dropped
    assert len(dropped) == 2 * len(sources)
    fine = [
        item.data["id"]
        for _, items in sources
        for _, item in items
        if item.reason is None and item.data["text"] != "DROP"
    ]  # type: ignore[index, call-overload]
    assert [row["id"] for row in written(output)] == fine
    assert manifest.rows_read == sum(len(items) for _, items in sources)
    assert manifest.dropped_by_handler == {
        "planted_functions:keep": {"planted_functions:keep returned None": 2 * len(sources)}
    }
    assert (manifest.rows_written, manifest.quarantined) == (len(fine), len(expected))
    check_account(manifest)


def made(output: Path, function: str, *paths: Path, **options: Any) -> Manifest:
    options.setdefault("max_bad_rows", 1000)
    data = dataset(*paths, data_handlers=[handler(function)], retain_columns=("id",))
    return preprocess(output, data, **options)


@pytest.mark.parametrize("kind", sorted(SOURCES))
def test_exactly_the_planted_rows_are_in_quarantine(tmp_path: Path, own_function: str, kind: str) -> None:
    source = SOURCES[kind](tmp_path)
    manifest = made(tmp_path / "out", own_function, source[0], unit_size=300)
    assert (manifest.units > 5) is (kind in CUT)
    check_planted(tmp_path / "out", manifest, source)
    bad = manifest.quarantined
    with pytest.raises(DataError, match=rf"(?s)^{bad} rows cannot be used, more than max_bad_rows={bad - 1}:\n  .*"):
        made(tmp_path / "less", own_function, source[0], unit_size=300, max_bad_rows=bad - 1)
    assert entries(tmp_path / "less") == entries(tmp_path / "out")


def test_the_planted_rows_are_in_quarantine_with_any_number_of_workers(tmp_path: Path, own_function: str) -> None:
    (tmp_path / "more").mkdir()
    sources = [
        SOURCES[kind](folder)
        for kind, folder in (("jsonl", tmp_path), ("json", tmp_path), ("jsonl", tmp_path / "more"))
    ]
    paths = [path for path, _ in sources]
    manifest = made(tmp_path / "out", own_function, *paths, unit_size=700, num_workers=2)
    check_planted(tmp_path / "out", manifest, *sources)
    assert [source.quarantined for source in manifest.sources] == [26, 22, 26]


# --- Templates, masks -----------------------------------------------------------------------------------

TEMPLATE = """\
{%- for message in messages %}
{%- if message.content == 'REFUSE' %}{{ raise_exception('not this one') }}{% endif %}
{%- if message.content == 'BARE' %}{{ 'Reply: ' + message.content }}{% else %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}
"""


def chat(answer: Any, **more: Any) -> Row:
    return {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": answer}], **more}


CHATS: dict[str, tuple[Row, str]] = {
    "a template that refuses": (chat("REFUSE"), "the chat template cannot render this row: not this one"),
    "a template that fails": (chat(None), "the chat template cannot render this row: "),
    "a mask that cannot be proven": (
        chat("BARE"),
        "message 1 does not start with its generation prompt; cannot verify its mask",
    ),
    "no messages": ({"messages": "hi"}, "column 'messages' must hold a list of messages, not "),
    "no such column": ({"text": "hi"}, "column 'messages' not found; columns here: text"),
    "a choice that is none": ({**chat("x"), "messages": [{"role": "assistant", "content": "x", "train": "?"}]}, ""),
}


def test_failing_templates_and_unverifiable_masks_name_their_row(tmp_path: Path, tokenizer_path: Any) -> None:
    items = [Item(chat(f"answer {number}")) for number in range(30)]
    draw = random.Random("chats")
    for fault in (*CHATS.values(), *CHATS.values()):
        items.insert(draw.randint(0, len(items)), Item(*fault))
    path = write_jsonl(tmp_path / "chats.jsonl", [item.data for item in items])
    manifest = preprocess(
        tmp_path / "out",
        dataset(
            path,
            data_handlers=[handler("tokenize_and_apply_chat_template_with_masking", conversation_column="messages")],
        ),
        processor={"chat_template": TEMPLATE},
        model_name_or_path=tokenizer_path("bpe"),
        max_bad_rows=100,
        unit_size=500,
    )
    expected = [(number, item) for number, item in enumerate(items, 1) if item.reason is not None]
    found = entries(tmp_path / "out")
    assert [entry["row"] for entry in found] == [number for number, _ in expected]
    for entry, (_, item) in zip(found, expected, strict=True):
        assert entry["reason"].startswith(str(item.reason)), entry
        assert json.loads(entry["content"]) == item.data
    assert (manifest.rows_written, manifest.quarantined) == (30, len(expected))
    check_account(manifest)


# --- How many are too many ------------------------------------------------------------------------------


def broken(path: Path, good: int, bad: int) -> Path:
    """Some bad lines, then some good ones."""
    path.write_text("{broken\n" * bad + "".join(f'{{"text": "row {number}"}}\n' for number in range(good)))
    return path


@pytest.mark.parametrize("limit", [0.3, 3, 0.35, 0.999])
def test_as_many_bad_rows_as_max_bad_rows_are_allowed(tmp_path: Path, limit: float) -> None:
    assert (
        preprocess(tmp_path / "out", dataset(broken(tmp_path / "a.jsonl", 7, 3)), max_bad_rows=limit).quarantined == 3
    )


@pytest.mark.parametrize(
    ("limit", "first_line"),
    [
        (0, "3 rows cannot be used:"),
        (2, "3 rows cannot be used, more than max_bad_rows=2:"),
        (0.29, "3 rows cannot be used of 10 read, more than max_bad_rows=0.29 allows (2):"),
        (0.01, "3 rows cannot be used of 10 read, more than max_bad_rows=0.01 allows (0):"),
    ],
)
def test_more_bad_rows_than_max_bad_rows_fail_the_run(tmp_path: Path, limit: float, first_line: str) -> None:
    path = broken(tmp_path / "a.jsonl", 7, 3)
    with pytest.raises(DataError) as caught:
        preprocess(tmp_path / "out", dataset(path), max_bad_rows=limit)
    lines = str(caught.value).splitlines()
    assert lines[0] == first_line
    assert [line.split(": broken JSON")[0] for line in lines[1:4]] == [f"  {path}:{row}" for row in (1, 2, 3)]
    place = tmp_path / "out" / "quarantine.jsonl"
    assert lines[4:] == [f"All of them are in {place}; fix them, or set max_bad_rows=3 to skip them."]


@given(fraction=st.decimals(0, "0.999", places=3), read=st.integers(0, 10**12))
def test_a_fraction_of_bad_rows_is_exact(fraction: Decimal, read: int) -> None:
    assert RowBudget("max_bad_rows", float(fraction)).allowed(read) == int(fraction * read)


def test_the_error_lists_some_bad_rows_and_the_run_keeps_a_limited_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sftkit.preprocessing.accounting.budget_checks.EXCESS_ROWS", 15)
    path = broken(tmp_path / "a.jsonl", 5, 40)
    with pytest.raises(DataError) as caught:
        preprocess(tmp_path / "out", dataset(path), max_bad_rows=2)
    lines = str(caught.value).splitlines()
    assert len(lines) == 13
    assert lines[11] == "  ... and 30 more"
    assert lines[12].startswith(f"The first 17 of them are in {tmp_path / 'out' / 'quarantine.jsonl'}; fix them, or ")
    assert [entry["row"] for entry in entries(tmp_path / "out")] == list(range(1, 18))


@pytest.mark.parametrize("limit", [3, 0.2])
def test_a_run_stops_once_it_must_have_too_many_bad_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: float
) -> None:
    monkeypatch.setattr("sftkit.preprocessing.stage_units.EXCESS_ROWS", 0)
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "first"}\n' + "".join(f"{{broken {number:03d}\n" for number in range(200)))
    with pytest.raises(DataError, match=r"(?s)^\d+ or more rows cannot be used.*before all rows were read\. Fix these"):
        preprocess(
            tmp_path / "out", dataset(path), max_bad_rows=limit, unit_size=120, staging_dir=str(tmp_path / "units")
        )
    units = len(list((tmp_path / "units").glob("*.account.arrow"))) // 2  # each has a file of bad rows, too
    assert units == (1 if limit == 3 else 5)


@settings(max_examples=15)
@given(
    lines=st.lists(st.sampled_from(["{x", '{"text": "abc"}', "", "[1]"]), min_size=1, max_size=40),
    unit_size=st.integers(1, 90),
)
def test_a_run_does_not_stop_while_it_may_still_succeed(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], unit_size: int
) -> None:
    path = tmp_path_factory.mktemp("lines") / "a.jsonl"
    path.write_text("\n".join(['{"text": "first"}', *lines]))
    files = scan_files(find_source_files(dataset(path)), unit_size)
    most = max_rows_per_unit([unit for file in files for unit in file.units])
    for file in files:
        for unit in file.units:
            log = RowLog()
            assert sum(len(batch) for batch in read_unit(unit, log)) + len(log.bad) <= most[unit.number]
    counts = Counter(lines)
    bad, read = counts["{x"] + counts["[1]"], len(lines) + 1 - counts[""]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sftkit.preprocessing.stage_units.EXCESS_ROWS", 0)
        limit = float(round(Decimal(bad) / read + Decimal("0.0005"), 3))
        manifest = preprocess(path.parent / "out", dataset(path), max_bad_rows=limit, unit_size=unit_size)
    assert (manifest.rows_read, manifest.quarantined) == (read, bad)


def test_a_finished_data_set_with_too_many_bad_rows_is_refused_and_kept(tmp_path: Path) -> None:
    data = dataset(broken(tmp_path / "a.jsonl", 7, 3))
    manifest = preprocess(tmp_path / "out", data, max_bad_rows=3)
    planned = plan(PreprocessConfig(output_dir=str(tmp_path / "out"), datasets=(data,), max_bad_rows=3, num_workers=1))
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    for allowed in (3, 4, 0.3):
        assert find_finished(replace(planned, config=replace(planned.config, max_bad_rows=allowed))) == manifest
    for refused in (0, 2, 0.29):
        with pytest.raises(
            DataError,
            match=r"out: holds this data set, but 3 rows cannot be used.*; they are in .*max_bad_rows=3 to skip",
        ):
            find_finished(replace(planned, config=replace(planned.config, max_bad_rows=refused)))
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


# --- Memory, and what is on disk ------------------------------------------------------------------------


def test_bad_rows_are_kept_on_disk_and_not_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sftkit.sources.source_format.BATCH_BYTES", 256 << 10)
    path = tmp_path / "a.jsonl.gz"  # one unit
    with gzip.open(path, "wb", compresslevel=1) as stream:
        for number in range(4_000):
            stream.write(b'{"text": %d, "long": "%s"}\n' % (number, b"x" * 3000) if number % 2 else b"{" * 2500 + b"\n")
        stream.write(b'{"text": "whole"}\n')
    config = PreprocessConfig(output_dir=str(tmp_path / "out"), datasets=(dataset(path),), max_bad_rows=0.9999)
    planned = plan(config)
    tracemalloc.start()
    store = UnitStore(tmp_path, "run")
    unit = planned.pipeline.stage(store, StagingTask(planned.units[0], "0"))
    first = [row.number for row in unit.bad_rows]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (unit.rows_read, unit.quarantined, unit.rows_kept) == (4_001, 4_000, 1)
    assert first == list(range(1, 4_001))
    assert sum(len(row.content) for row in unit.bad_rows) == 8_000_000
    assert peak < 6 << 20
    assert len(pickle.dumps(unit)) < 2000
    found = store.load(["0"])["0"]
    assert (found.bad_rows.reasons, list(found.bad_rows)) == (unit.bad_rows.reasons, list(unit.bad_rows))


@settings(max_examples=30)
@given(
    unread=st.lists(st.integers(0, 50), unique=True).map(sorted),
    unusable=st.lists(st.integers(51, 99), unique=True).map(sorted),
    text=st.text(st.characters(), max_size=5),
)
def test_bad_rows_are_read_back_in_order(
    tmp_path_factory: pytest.TempPathFactory, unread: list[int], unusable: list[int], text: str
) -> None:
    shuffled = sorted([*unread, *unusable], key=lambda number: number * 7919 % 101)
    numbers = sorted(shuffled[: len(shuffled) // 2]), sorted(shuffled[len(shuffled) // 2 :])
    writer = RemovedRowsWriter(bad_rows_path(tmp_path_factory.mktemp("bad") / "unit-1.arrow"), "run")
    rows = {number: RemovedRow(number, f"reason {number}", text) for number in shuffled}
    for kind, some in zip(("unread", "unusable"), numbers, strict=True):
        if some:
            writer.write(kind, [rows[number] for number in some])
    bad = writer.finish()
    assert list(bad) == [rows[number] for number in sorted(shuffled)]
    assert dict(bad.reasons) == ({"reason N": len(rows)} if rows else {})
    assert bad.path.exists() == bool(rows)


def test_a_changed_file_of_bad_rows_is_not_used(tmp_path: Path) -> None:
    data = dataset(broken(tmp_path / "a.jsonl", 20, 3))
    options: dict[str, Any] = {"max_bad_rows": 3, "unit_size": 100, "staging_dir": str(tmp_path / "units")}
    first = preprocess(tmp_path / "one", data, **options)
    [bad] = (tmp_path / "units").glob("*.bad.account.arrow")
    bad.write_bytes(bad.read_bytes()[:-1] + b"?")
    again = preprocess(tmp_path / "two", data, **options)
    assert (first.units_found, again.units_found) == (0, first.units - 1)
    assert entries(tmp_path / "two") == entries(tmp_path / "one")


def test_the_number_of_reasons_is_bounded(tmp_path: Path) -> None:
    writer = RemovedRowsWriter(tmp_path / "bad.arrow", "run")
    writer.write("unread", [RemovedRow(number, f"{number} is {'x' * number}", "") for number in range(200)])
    reasons = writer.finish().reasons
    assert len(reasons) == 51
    assert reasons["other reasons"] == 150


# --- Bugs of ours ---------------------------------------------------------------------------------------


def test_a_lost_row_stops_the_run_before_anything_is_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"input_ids": [1, 2], "labels": [1, 2]}] * 5)
    monkeypatch.setattr("sftkit.preprocessing.pipeline.finalize._drop_untrained", lambda batch, log: batch.slice(0, 4))
    with pytest.raises(RowAccountingError) as caught:
        preprocess(tmp_path / "out", dataset(path))
    assert str(caught.value).startswith(
        f"the rows do not add up: {path} (data): 5 rows read, 4 kept, 0 dropped, 0 quarantined"
    )
    assert not isinstance(caught.value, SftkitError)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".staging"]


def test_a_unit_record_without_handlers_and_reasons_can_be_read(tmp_path: Path) -> None:
    manifest = preprocess(tmp_path / "out", dataset(broken(tmp_path / "a.jsonl", 7, 3)), max_bad_rows=3)
    path = tmp_path / "out" / "manifest.json"
    record = json.loads(path.read_text())
    for part in (record, *record["sources"]):
        del part["dropped_by_handler"], part["quarantined_by_reason"]
    path.write_text(json.dumps(record))
    old = read_manifest(tmp_path / "out")
    assert old is not None
    assert (old.quarantined_by_reason, old.quarantined, old.splits) == ({}, 3, manifest.splits)


# --- What is shown --------------------------------------------------------------------------------------


def test_the_summary_shows_the_row_counts_of_every_source_and_the_reasons(tmp_path: Path, own_function: str) -> None:
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    one.write_text('{"id": "1", "text": "x"}\n{"id": "2", "text": "DROP"}\n')
    two.write_text('{"id": "3", "text": "y"}\n{"id": "4", "text": "z"}\n{\x1b[2Jbroken\n{"id": "5", "text": 5}\n')
    manifest = made(tmp_path / "out", own_function, one, two)
    screen = io.StringIO()
    print_result(manifest, "out", Console(file=screen, width=300))
    lines = [" ".join(line.split()) for line in screen.getvalue().splitlines()]
    assert "6 rows read, 1 dropped (dropped.jsonl), 2 quarantined (quarantine.jsonl), 3 written" in lines
    assert f"{one} data 2 1 1 0" in lines
    assert f"{two} data 4 2 0 2" in lines
    assert "all 6 3 1 2" in lines
    assert "1 dropped by planted_functions:keep: planted_functions:keep returned None" in lines
    assert any(line.startswith("1 quarantined: column 'text' must be text, not ") for line in lines)
    assert "\x1b[2J" not in screen.getvalue()
