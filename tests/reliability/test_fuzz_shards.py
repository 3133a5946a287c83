"""Each command works with any manifest and any Parquet files, or reports what is wrong with them.

`train` runs up to the point where the model would be loaded, and reads all rows.

SFTKIT_EXAMPLES=100 in the environment tries a hundred times as many examples, new ones each time.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import resource
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from foreign_files import FORMATS, packs
from reliability.error_rules import faults_of
from reliability.material import Outcome, budget, changed_bytes, copy_tokenizer, row_of, sftkit, within
from sftkit.config.binding import Problem, bind_config
from sftkit.config.commands import TrainConfig
from sftkit.core.progress import SilentProgress
from sftkit.errors import SftkitError
from sftkit.preprocessing.training_shards import check_training_data, find_or_build_shards
from sftkit.sample import sample_path
from support import write_jsonl

PACKED = ("--packing", "bfd", "--pack_length", "96")


def preprocess(folder: Path, *options: object, out: str) -> Outcome:
    if "--training_data_path" not in options:
        options = ("--training_data_path", folder / "pairs.jsonl", *options)
    tokenizer = folder / "tokenizer"
    return sftkit("preprocess", "--tokenizer_name_or_path", tokenizer, *options, "--output_dir", folder / out)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer and two data sets, of rows and of packs, with a validation split. Tests change copies of them."""
    made = tmp_path_factory.mktemp("shards")
    copy_tokenizer(made / "tokenizer")
    write_jsonl(made / "pairs.jsonl", [{key: row_of(n)[key] for key in ("input", "output")} for n in range(24)])
    validation = ("--validation_data_path", made / "pairs.jsonl")
    assert preprocess(made, *validation, "--num_dataset_shards", 2, out="rows").code == 0
    assert preprocess(made, *validation, *PACKED, out="packs").code == 0
    (made / "canary").write_text("untouched")
    return made


# --- What is done with them -------------------------------------------------------------------------------------------


def inspected(place: Path, *options: object) -> Outcome:
    return sftkit("inspect-shards", place, "--tokenizer_name_or_path", place.parent / "tokenizer", *options)


def read_as_source(place: Path) -> Outcome:
    return preprocess(place.parent, "--training_data_path", place, out="second")


def written_into(place: Path, *options: object) -> Outcome:
    return preprocess(place.parent, *options, out=place.name)


def fed(place: Path, *options: object) -> Outcome:
    """What `train` does with shards before it loads the model, and then reading every row."""
    from sftkit.training.data.rows.open_split import open_split
    from sftkit.training.models.run_tokenizer import load_run_tokenizer

    values = {
        "training_data_path": [str(place)],
        "tokenizer_name_or_path": str(place.parent / "tokenizer"),
        "model_name_or_path": str(sample_path("sample:model")),
        "output_dir": str(place.parent / "trained"),
        "cache_dir": str(place.parent / "cache"),
        **dict(zip(options[::2], options[1::2], strict=True)),
    }
    problems: list[Problem] = []
    config = bind_config(TrainConfig, values, problems)
    assert config is not None, problems
    try:
        with within():
            check_training_data(config)
            shards = find_or_build_shards(config, SilentProgress())
            load_run_tokenizer(config, shards)
            for split in shards.splits:
                rows = open_split(shards, split, 4096, None, 1 << 20)
                for group in range(len(rows.locations)):
                    rows.group(group)
    except SftkitError as error:
        return Outcome(error.exit_code, "", f"error: {error}")
    return Outcome(0, "", "")


COMMANDS: dict[str, tuple[Callable[..., Outcome], tuple[object, ...]]] = {
    "inspect": (inspected, ("--rows", 3)),
    "inspect the last row": (inspected, ("--row", 5, "--format", "json", "--show_whitespace", "true")),
    "search": (inspected, ("--search", "answer", "--rows", 2)),
    "audit": (inspected, ("--audit", "true", "--fail_on", "error")),
    "verify": (inspected, ("--verify", "true")),
    "verify as json": (inspected, ("--verify", "true", "--format", "json")),
    "preprocess from": (read_as_source, ()),
    "preprocess into": (written_into, ()),
    "preprocess over": (written_into, ("--overwrite", "true", "--num_dataset_shards", 3)),
    "train": (fed, ()),
    "train on packs": (fed, ("packing", "bfd", "pack_length", 64)),
    "train all the same": (fed, ("allow_mismatch", True)),
}
REPORTS_DIFFERENCES = ("audit", "verify", "verify as json")  # exit code 1 without an error


def done(name: str, place: Path) -> Outcome:
    function, options = COMMANDS[name]
    return function(place, *options)


def check(name: str, outcome: Outcome) -> None:
    found = outcome.code == 1 and name in REPORTS_DIFFERENCES and "Traceback" not in outcome.err
    assert outcome.clear or found, f"{name}: {outcome.err[-2000:]}"
    _, _, message = outcome.err.partition("error: ")
    assert outcome.clear is False or outcome.code == 0 or faults_of(message.strip()) == []


def copied(folder: Path, kind: str) -> Path:
    """A fresh copy of a data set, to be changed."""
    place = folder.parent / f"{folder.name}-changed"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    for name in ("tokenizer", "pairs.jsonl", "canary"):
        (place / name).symlink_to(folder / name)
    shutil.copytree(folder / kind, place / kind)
    return place / kind


def check_nothing_else_changed(place: Path, folder: Path) -> None:
    assert (folder / "canary").read_text() == "untouched"
    ours = {place.name, "tokenizer", "pairs.jsonl", "canary", "second", "cache"}
    assert {path.name for path in place.parent.iterdir()} <= ours


@pytest.mark.parametrize("kind", ["rows", "packs"])
@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_an_unchanged_data_set_is_accepted_by_every_command(folder: Path, name: str, kind: str) -> None:
    outcome = done(name, copied(folder, kind))
    check(name, outcome)
    refused = {
        "inspect the last row": "row=5: train has" if kind == "packs" else "",
        "preprocess from": "its rows are packs" if kind == "packs" else "",
        "train on packs": "cannot be packed again" if kind == "packs" else "",
        "preprocess into": "holds another data set",
    }.get(name, "")
    assert (outcome.code == 0) == (not refused), outcome
    assert refused in outcome.err


# --- Manifests --------------------------------------------------------------------------------------------------------

leaves = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 40), st.integers(), st.floats(), st.text(max_size=5),
    st.sampled_from([10**30, -1, 0, math.nan, "", "../canary", "/etc/passwd", "canary", "pairs.jsonl", "tokenizer", ".",
                     "train-00000-of-00002.parquet", "bfd", "none", "a\nb", "\x1b[31m", "0" * 64, "sample:model"]),
)  # fmt: skip
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.text(max_size=4), inner, max_size=2)),
    max_leaves=4,
)


@st.composite
def changes(draw: st.DrawFn) -> list[tuple[list[int], str, Any]]:
    """Changes of a manifest: the path to a place (which key at each level), the kind of change, and a value."""
    way = st.lists(st.integers(0, 40), min_size=1, max_size=6)
    what = st.sampled_from(["set", "set", "set", "delete", "add", "swap"])
    return draw(st.lists(st.tuples(way, what, trees), min_size=1, max_size=3))


def changed(manifest: Any, way: list[int], what: str, value: Any) -> None:
    place = manifest
    for step in way:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            break
        key = keys[step % len(keys)]
        if isinstance(place[key], (dict, list)) and step != way[-1]:
            place = place[key]
            continue
        if what == "delete":
            del place[key]
        elif what == "swap":
            other = keys[(step + 1) % len(keys)]
            place[key], place[other] = place[other], place[key]
        elif what == "add" and isinstance(place, dict):
            place["another"] = value
        elif what == "add":
            place.append(value)
        else:
            place[key] = value
        return


@budget(100)
@given(changes(), st.sampled_from(["rows", "packs"]), st.sampled_from(sorted(COMMANDS)), st.booleans())
def test_any_manifest_is_accepted_or_one_clear_error(
    folder: Path, how: list[tuple[list[int], str, Any]], kind: str, name: str, sealed: bool
) -> None:
    place = copied(folder, kind)
    path = place / "manifest.json"
    manifest = json.loads(path.read_text())
    for way, what, value in how:
        changed(manifest, way, what, value)
    if sealed:  # like someone who knows the format
        manifest.pop("digest", None)
    path.write_text(json.dumps(manifest))
    check(name, done(name, place))
    check_nothing_else_changed(place, folder)


@budget(60)
@given(st.data(), trees, st.sampled_from(sorted(COMMANDS)))
def test_any_config_in_a_manifest_is_accepted_or_one_clear_error(
    folder: Path, data: st.DataObject, value: Any, name: str
) -> None:
    place = copied(folder, "rows")
    path = place / "manifest.json"
    manifest = json.loads(path.read_text())
    where = manifest["config"]
    while True:  # at any depth
        key = data.draw(st.sampled_from(sorted(where) if isinstance(where, dict) else range(len(where))))
        if not where[key] or not isinstance(where[key], (dict, list)) or data.draw(st.booleans()):
            break
        where = where[key]
    where[key] = value
    path.write_text(json.dumps(manifest))
    check(name, done(name, place))
    check_nothing_else_changed(place, folder)


@budget(40)
@given(st.data(), st.sampled_from(sorted(COMMANDS)))
def test_any_bytes_as_a_manifest_are_one_clear_error(folder: Path, data: st.DataObject, name: str) -> None:
    place = copied(folder, "rows")
    path = place / "manifest.json"
    deep = st.sampled_from(
        [b"", b"{", b"[" * 3000, b"null", b"[]", b"{}", b"\xff", b'{"format_version": 1}', b"1" * 5000]
    )
    content = data.draw(st.one_of(deep, st.just(None)))
    path.write_bytes(changed_bytes(data.draw, path.read_bytes()) if content is None else content)
    check(name, done(name, place))
    check_nothing_else_changed(place, folder)


# --- Parquet ----------------------------------------------------------------------------------------------------------


def limited() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (32 << 30, 32 << 30))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


@pytest.fixture(scope="module")
def process() -> Iterator[ProcessPoolExecutor]:
    """Another process, for input that could crash it."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("forkserver"), limited) as pool:
        yield pool


@budget(60)
@given(st.data(), st.sampled_from(["rows", "packs"]), st.sampled_from(sorted(COMMANDS)))
def test_any_bytes_as_a_shard_are_accepted_or_one_clear_error(
    folder: Path, process: ProcessPoolExecutor, data: st.DataObject, kind: str, name: str
) -> None:
    place = copied(folder, kind)
    path = sorted(place.glob("*.parquet"))[0]
    content = path.read_bytes()
    if data.draw(st.booleans()):  # the footer says where everything is
        cut = len(content) - data.draw(st.integers(8, 2500))
        content = content[: max(4, cut)] + changed_bytes(data.draw, content[max(4, cut) : -8]) + content[-8:]
    else:
        content = changed_bytes(data.draw, content)
    path.write_bytes(content)
    if data.draw(st.booleans()):
        (place / "manifest.json").unlink()
    check(name, process.submit(done, name, place).result())
    check_nothing_else_changed(place, folder)


@pytest.fixture(scope="module")
def foreign(folder: Path) -> dict[str, tuple[Path, list[Path]]]:
    """A data set in each format of other tools: what to inspect, and its files."""
    made = {}
    for name, write in FORMATS.items():
        place = folder / "foreign" / name
        place.mkdir(parents=True)
        given = write(place, packs())
        made[name] = (given, sorted(path for path in place.rglob("*") if path.is_file()))
    return made


@budget(60)
@given(st.data(), st.sampled_from(sorted(FORMATS)), st.sampled_from(["inspect", "search", "audit"]))
def test_any_bytes_as_a_file_of_another_tool_are_accepted_or_one_clear_error(
    foreign: dict[str, tuple[Path, list[Path]]], process: ProcessPoolExecutor, data: st.DataObject, kind: str, name: str
) -> None:
    place, files = foreign[kind]
    path = data.draw(st.sampled_from(files))
    content = path.read_bytes()
    try:
        path.write_bytes(changed_bytes(data.draw, content))
        outcome = process.submit(inspect_alone, place, *COMMANDS[name][1]).result()
    finally:
        path.write_bytes(content)
    check(name, outcome)


def inspect_alone(place: Path, *options: object) -> Outcome:
    return sftkit("inspect-shards", place, "--tokenizer_name_or_path", place.parents[2] / "tokenizer", *options)


def columns(count: int) -> st.SearchStrategy[pa.Array]:
    """A column with some number of rows, of a possible type."""
    numbers = st.one_of(st.integers(0, 400), st.integers(-100, 5000), st.sampled_from([2**31, -(2**31), 2**62, -1]))
    lists = st.lists(st.one_of(st.none(), st.lists(st.one_of(numbers, numbers, st.none()), max_size=5)), min_size=count,
                     max_size=count)  # fmt: skip
    kinds = [pa.list_(pa.int32()), pa.list_(pa.int64()), pa.large_list(pa.int64()), pa.list_(pa.uint8()),
             pa.list_(pa.float32()), pa.list_(pa.string()), pa.list_(pa.list_(pa.int64())), pa.list_(pa.int64(), 3),
             pa.list_view(pa.int64())]  # fmt: skip

    def made(rows: list[Any], kind: pa.DataType) -> pa.Array:
        if pa.types.is_fixed_size_list(kind):
            rows = [None if row is None else [*row, 1, 2, 3][:3] for row in rows]
        if kind == pa.list_(pa.list_(pa.int64())):
            rows = [None if row is None else [[each] for each in row] for row in rows]
        if kind == pa.list_(pa.string()):
            rows = [None if row is None else [str(each) for each in row] for row in rows]
        try:
            return pa.array(rows, kind)
        except (pa.ArrowException, OverflowError):
            return pa.array([str(row) for row in rows])

    flat = [pa.array([value] * count, kind) for value, kind in (
        (1, pa.int64()), ("x", pa.string()), (b"\xff", pa.binary()), (None, pa.null()), (1.5, pa.float64()),
        ({"a": 1}, pa.struct([("a", pa.int64())])), ([("a", 1)], pa.map_(pa.string(), pa.int64())))]  # fmt: skip
    flat.append(pa.array(["x"] * count).dictionary_encode())
    return st.one_of(st.builds(made, lists, st.sampled_from(kinds)), st.builds(made, lists, st.just(kinds[0])),
                     st.sampled_from(flat))  # fmt: skip


COLUMNS = ["input_ids", "labels", "attention_mask", "seq_lengths", "text", "x", "\x07"]


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    count = draw(st.integers(0, 4))
    names = draw(st.lists(st.sampled_from(COLUMNS),
                          min_size=1, max_size=4, unique=draw(st.booleans())))  # fmt: skip
    if draw(st.booleans()):
        names = [*{"input_ids": 0, "labels": 0}, *(name for name in names if name not in ("input_ids", "labels"))]
    arrays = [draw(columns(count)) for _ in names]
    if draw(st.booleans()) and len(names) > 1:
        arrays[1] = arrays[0]  # labels as long as ids
    return pa.table(arrays, names=names)


@budget(80)
@given(tables(), st.sampled_from(sorted(COMMANDS)), st.booleans(), st.booleans())
def test_any_table_is_accepted_or_one_clear_error(
    folder: Path, table: pa.Table, name: str, with_manifest: bool, whole: bool
) -> None:
    place = copied(folder, "rows")
    if not with_manifest:
        (place / "manifest.json").unlink()
    try:
        for path in sorted(place.glob("*.parquet"))[: 3 if whole else 1]:
            pq.write_table(table, path, row_group_size=2)
    except pa.ArrowException:
        assume(False)
    check(name, done(name, place))
    check_nothing_else_changed(place, folder)


# --- What was found ---------------------------------------------------------------------------------------------------

TWO_OF_A_NAME = pa.table([pa.array([[1, 2]])] * 3, names=["input_ids", "labels", "input_ids"])
TWO_TEXTS = pa.table([pa.array(["a"])] * 2, names=["text", "text"])


@pytest.mark.parametrize("name", ["inspect", "audit", "train", "preprocess from"])
@pytest.mark.parametrize("table", [TWO_OF_A_NAME, TWO_TEXTS], ids=["ids", "texts"])
def test_two_columns_of_one_name_are_an_error(folder: Path, table: pa.Table, name: str) -> None:
    place = copied(folder, "rows")
    (place / "manifest.json").unlink()
    pq.write_table(table, place / "train-00000-of-00002.parquet")
    outcome = done(name, place)
    assert outcome.code == 1, outcome.err
    assert "error: " in outcome.err


@pytest.mark.parametrize("name", ["inspect", "audit", "verify", "train", "preprocess from", "preprocess into"])
@pytest.mark.parametrize("change", [{"splits": {}}, {"splits": {"train": {}}}, {"tokenizer": 5}], ids=str)
def test_an_incomplete_manifest_is_an_error(folder: Path, name: str, change: dict[str, Any]) -> None:
    place = copied(folder, "rows")
    path = place / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    outcome = done(name, place)
    check(name, outcome)
    assert outcome.code == 1, outcome.err


@pytest.mark.parametrize("name", ["inspect", "verify", "train", "preprocess from", "preprocess into"])
def test_a_deeply_nested_manifest_is_an_error(folder: Path, name: str) -> None:
    place = copied(folder, "rows")
    (place / "manifest.json").write_text("[" * 100_000)
    outcome = done(name, place)
    assert outcome.code == 1, outcome.err
    assert "manifest.json" in outcome.err
