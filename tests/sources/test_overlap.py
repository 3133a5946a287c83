"""Output below sources, sources below output, and what cannot be one and the other."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import sftkit
from sftkit.config.commands import PreprocessConfig, TrainConfig
from sftkit.errors import ConfigError, SftkitError, SourceError
from sftkit.preprocessing.training_shards import check_training_data
from sftkit.shards.output.base_output import Output
from support import dataset, examples, rows, write_jsonl

PAIRS = [{"input": f"q{number}", "output": f"answer {number}"} for number in range(8)]
COLUMNS: dict[str, Any] = {
    "input_field_name": "input",
    "output_field_name": "output",
    "tokenizer_name_or_path": "sample:model",
    "num_workers": 1,
}


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with two source files, one of them in a subdirectory. The working directory is above it."""
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "data" / "a.jsonl", PAIRS[:4])
    write_jsonl(tmp_path / "data" / "sub" / "b.jsonl", PAIRS[4:])
    return tmp_path / "data"


def made(source: str | Path, output: str | Path, **options: Any) -> sftkit.PreprocessResult:
    return sftkit.preprocess(training_data_path=[str(source)], output_dir=str(output), **{**COLUMNS, **options})


def check_unchanged(source: str | Path, output: str | Path, **options: Any) -> None:
    """The first run reads the eight rows; the same command again finds its result complete and unchanged."""
    first = made(source, output, **options)
    assert first.ran
    assert first.manifest is not None
    assert first.manifest.rows_read == len(PAIRS)
    again = made(source, output, **options)
    assert not again.ran
    assert again.manifest == first.manifest


@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("data", "data/shards"),
        ("data", "data/sub/out"),
        ("data", "data/sub"),
        ("data/../data", "data/./sub/../out"),
        ("data", "link/out"),
        ("link", "data/out"),
        ("data/**/*.jsonl", "data"),
        ("data/**/*.json*", "data/out"),
        ("data/**/*.*l", "data/sub"),
        ("data", "."),
        ("data", "data/train"),
    ],
)
def test_the_same_command_is_complete_and_unchanged(data: Path, source: str, output: str) -> None:
    Path("link").symlink_to(data, target_is_directory=True)
    check_unchanged(source, output)


@pytest.mark.parametrize("staging", ["data/units", "data", "data/sub", "link/units", "data/out/.staging/units"])
def test_staged_units_are_no_sources(data: Path, staging: str) -> None:
    Path("link").symlink_to(data, target_is_directory=True)
    check_unchanged("data", "out", staging_dir=staging)
    again = made("data", "again", staging_dir=staging)
    assert again.manifest is not None
    assert (again.manifest.rows_read, again.manifest.units_found) == (len(PAIRS), 2)


def test_bad_rows_and_a_card_are_no_sources(data: Path) -> None:
    (data / "a.jsonl").write_text((data / "a.jsonl").read_text() + "[1]\n")
    for source in ("data", "data/**/*.jsonl"):
        first = made(source, "data/out", max_bad_rows=1, overwrite=True)
        assert first.manifest is not None
        assert first.manifest.rows_read == len(PAIRS) + 1
        assert not made(source, "data/out", max_bad_rows=1).ran


@pytest.mark.parametrize("source", ["data", "data/**/*.parquet"])
def test_shards_of_an_earlier_run_are_no_sources(data: Path, source: str) -> None:
    """Whatever their number, and beside Parquet files that are sources."""
    pq.write_table(pa.Table.from_pylist(PAIRS[:4]), data / "train-00000-of-00001.parquet")
    for path in (data / "a.jsonl", data / "sub" / "b.jsonl"):
        path.unlink()
    for shards in (2, 1, 3):
        done = made(source, "data/sub/out", num_dataset_shards=shards, overwrite=True)
        assert done.manifest is not None
        assert done.manifest.rows_read == 4


class KilledError(Exception):
    """Stands for a kill: nothing is cleaned up."""


@pytest.mark.parametrize("source", ["data", "data/**/*.*", "data/**/*.jsonl"])
def test_a_run_that_is_killed_while_it_publishes_continues(
    data: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(source, "plain", num_dataset_shards=2)
    move = Output.publish

    def killed(*_: object, **__: object) -> None:
        raise KilledError

    with monkeypatch.context() as patched:
        patched.setattr("sftkit.shards.output.base_output.write_side_files", killed)
        for name in ("remove_unfinished", "remove_if_empty"):
            patched.setattr(f"sftkit.shards.output.local_output.{name}", lambda *_: None)
        with pytest.raises(KilledError):
            made(source, "data/shards", num_dataset_shards=2)
    assert Output.publish is move
    assert sorted(path.name for path in Path("data/shards").iterdir()) == [
        ".staging",
        "train-00000-of-00002.parquet",
        "train-00001-of-00002.parquet",
    ]
    done = made(source, "data/shards", num_dataset_shards=2)
    assert done.manifest is not None
    assert done.manifest.rows_read == len(PAIRS)
    for name in ("train-00000-of-00002.parquet", "train-00001-of-00002.parquet"):
        assert Path("data/shards", name).read_bytes() == Path("plain", name).read_bytes()


@pytest.mark.parametrize("output", ["data", "data/", "./data/../data", "link"])
def test_a_source_directory_as_output_directory_is_refused_and_nothing_is_written(data: Path, output: str) -> None:
    Path("link").symlink_to(data, target_is_directory=True)
    before = sorted(data.rglob("*"))
    for dry_run in (True, False):
        with pytest.raises(ConfigError, match=r"^output_dir .*: is the source directory data itself; choose another"):
            made("data", output, dry_run=dry_run)
    assert sorted(data.rglob("*")) == before


def test_a_run_in_the_working_directory_is_refused(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(data)
    with pytest.raises(ConfigError, match=r"^output_dir \.: is the source directory \. itself"):
        made(".", ".")


@pytest.mark.parametrize("source", ["data/*.parquet", "data/x.parquet", "links/x.parquet", "links"])
def test_a_source_that_the_run_would_replace_is_refused(data: Path, source: str) -> None:
    pq.write_table(pa.Table.from_pylist(PAIRS), data / "x.parquet")
    Path("links").mkdir()
    Path("links/x.parquet").symlink_to(data / "x.parquet")
    with pytest.raises(ConfigError, match=r"^output_dir data: holds the source .*x\.parquet, whose name could be"):
        made(source, "data", dry_run=True)


def test_a_shard_that_is_named_itself_is_a_source_and_never_overwritten(data: Path) -> None:
    made("data", "out")
    shard = "out/train-00000-of-00001.parquet"
    before = Path(shard).read_bytes()
    assert made(shard, "other").manifest is not None
    with pytest.raises(ConfigError, match=r"^output_dir out: holds the source"):
        made(shard, "out", num_dataset_shards=2, overwrite=True)
    assert Path(shard).read_bytes() == before


def test_a_directory_above_data_sets_only_names_them(data: Path) -> None:
    made("data", "runs/one")
    for source in ("runs", "runs/**/*.parquet"):
        with pytest.raises(SourceError, match=r"sftkit wrote all data files there, such as runs/one/train-00000"):
            made(source, "other")
    assert len(rows(Path("runs/one"))) == len(PAIRS)


def test_a_data_set_may_be_the_output_of_another(data: Path) -> None:
    """Named itself it is a source, and the directory above it is one without it."""
    made("data", "data/one")
    config = PreprocessConfig(
        output_dir="both",
        datasets=(
            dataset(Path("data/one"), name="made"),
            dataset(Path("data/one/train-00000-of-00001.parquet"), name="file"),
        ),
        tokenizer_name_or_path="sample:model",
        num_workers=1,
    )
    first = sftkit.preprocess(config)
    assert first.manifest is not None
    assert first.manifest.rows_read == 2 * len(PAIRS)
    assert not sftkit.preprocess(config).ran
    assert len(rows(Path("data"))) == len(PAIRS)


def training_output(folder: Path) -> None:
    """What `train` leaves, in short."""
    write_jsonl(folder / "training_logs.jsonl", [{"step": 1, "epoch": 0.5, "loss": 2.0}])
    for name in ("config.json", "tokenizer.json", "checkpoint-3/trainer_state.json", "merged/config.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")


def test_models_and_logs_of_training_are_no_sources(data: Path) -> None:
    training_output(data / "model")
    (data / "begun" / "checkpoint-2").mkdir(parents=True)
    (data / "begun" / "training_logs.jsonl").touch()
    (data / "begun" / "checkpoint-2" / "config.json").write_text("{}")
    (data / "kept" / "checkpoint-4").mkdir(parents=True)
    (data / "kept" / "checkpoint-4" / "sftkit_checkpoint.json").write_text("{}")
    for source in ("data", "data/**/*.json*"):
        assert rows(source) == PAIRS
    write_jsonl(data / "logs" / "training_logs.jsonl", [{"input": "mine", "output": "a source"}])
    assert len(rows("data")) == len(PAIRS) + 1


def test_training_into_its_source_directory_is_refused(data: Path) -> None:
    config = TrainConfig(training_data_path=("data",), output_dir="data", model_name_or_path="sample:model")
    with pytest.raises(ConfigError, match=r"^output_dir data: is the source directory data itself"):
        check_training_data(config)


PLACES = ("data", "data/sub", "data/out", "data/sub/out", "out", "link/out", "link", "data/sub/../sub", ".", "out/data")
SOURCES = (
    "data",
    "link",
    "data/**/*.jsonl",
    "data/*",
    "data/**/*.*",
    "data/sub/../",
    "./data/[as]*",
    "data/**/*.json*",
)


@pytest.mark.parametrize("seed", range(examples(100)))
def test_any_overlap_is_refused_or_gives_the_same_result_again(data: Path, seed: int) -> None:
    chance = random.Random(seed)
    Path("link").symlink_to(data, target_is_directory=True)
    options = {"staging_dir": chance.choice((None, *PLACES)), "num_dataset_shards": chance.choice((1, 2))}
    source, output = chance.choice(SOURCES), chance.choice(PLACES)
    before = {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}
    try:
        first = made(source, output, **options)
    except SftkitError:
        first = None
    for again in range(2):
        if first is None:
            with pytest.raises(SftkitError):
                made(source, output, **options)
            continue
        assert first.manifest is not None
        done = made(source, output, **{**options, "num_dataset_shards": 3 - again, "overwrite": True})
        assert done.manifest is not None
        assert done.manifest.rows_read == first.manifest.rows_read
    assert {path: path.read_bytes() for path in before} == before
