"""All paths that file systems allow: spaces, quotes, line ends, dashes, Unicode, and bytes that are not UTF-8."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from sftkit.cli.app import app
from sftkit.shards.manifest import read_manifest
from sftkit.sources.discovery.source_files import find_source_files
from support import dataset, shard_bytes, write_jsonl

NAMES = {
    "spaces": " a  b ",
    "quotes": 'it\'s "so" `too`',
    "line end": "new\nline",
    "dash": "-rows",
    "option": "--rows=3",
    "pattern": "what?[x]*",
    "interpolation": "${no key} $HOME %d {y}",
    "list": "[a, b]",
    "separators": "a=b,c;d|e",
    "NFC": unicodedata.normalize("NFC", "café"),
    "NFD": unicodedata.normalize("NFD", "café"),
    "beyond the BMP": "日本 😀",
    "control": "\x1b[31m\x07\x9b",
    "bidi": "\u202eabc",
    "bytes": os.fsdecode(b"by\xfftes\xe9"),
    "no-break": "a\xa0b",
}
ROWS = [{"input": f"what is {i}", "output": f"it is {i}"} for i in range(6)]


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    found = NAMES[request.param]
    try:
        (tmp_path / found).mkdir()
    except OSError as error:
        pytest.skip(f"this file system has no such names: {error}")
    return found


@pytest.fixture
def folder(name: str, tmp_path: Path) -> Path:
    """A directory with that name."""
    return tmp_path / name


def sources(folder: Path, name: str) -> list[Path]:
    """Files with that name in all formats; the first one has a bad row."""
    lines = write_jsonl(folder / f"{name}.jsonl", ROWS)
    with lines.open("a") as stream:
        stream.write("{broken\n")
    packed = folder / f"{name}.json.gz"
    packed.write_bytes(gzip.compress(json.dumps(ROWS).encode()))
    csv = folder / f"{name}.csv"
    csv.write_text("input,output\n" + "".join(f"{row['input']},{row['output']}\n" for row in ROWS))
    parquet, arrow = folder / f"{name}.parquet", folder / f"{name}.arrow"
    table = pa.Table.from_pylist(ROWS)
    with parquet.open("wb") as sink:
        pq.write_table(table, sink)
    with arrow.open("wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return [lines, packed, csv, parquet, arrow]


def sftkit(*arguments: str | Path) -> str:
    done = CliRunner().invoke(app, list(map(str, arguments)))
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.sampled(4)
def test_a_run_reads_writes_and_reports_odd_paths(
    name: str, folder: Path, tmp_path: Path, tokenizer_path: Callable[[str], str]
) -> None:
    """As sources, output_dir and staging_dir; the shards are identical to those of plain names."""
    paths = sources(folder, name)
    fields = ("--input_field_name=input", "--output_field_name=output", "--max_bad_rows=1", "--num_workers=1")
    common = (*fields, "--tokenizer_name_or_path", tokenizer_path("bpe"))
    given = [word for path in paths for word in ("--training_data_path", path)]
    out, staging = folder / f"out{name}", folder / f"staging{name}"
    run = ("preprocess", *given, *common, "--output_dir", out, "--staging_dir", staging, "--num_dataset_shards=2")
    sftkit(*run)

    manifest = read_manifest(out)
    assert manifest is not None
    assert [source.path for source in manifest.sources] == list(map(str, paths))
    assert manifest.config["output_dir"] == str(out)
    [bad] = [json.loads(line) for line in (out / "quarantine.jsonl").read_text(encoding="utf-8").splitlines()]
    assert (bad["path"], bad["row"]) == (str(paths[0]), 7)
    assert manifest.rows_written == 5 * len(ROWS)
    assert (out / "README.md").is_file()
    assert any(staging.iterdir())

    sftkit(*run)  # it is finished, and recognized as such
    assert read_manifest(out) == manifest
    again = folder / "again"
    assert "5 of 5 work units found staged" in sftkit(*(again if word == out else word for word in run))

    plain = tmp_path / "plain"
    plain.mkdir(exist_ok=True)
    others = [
        shutil.copy(path, plain / f"data{number}{path.name.removeprefix(name)}") for number, path in enumerate(paths)
    ]
    words = [word for path in others for word in ("--training_data_path", path)]
    sftkit("preprocess", *words, *common, "--output_dir", tmp_path / "plain-out", "--num_dataset_shards=2")
    assert shard_bytes(tmp_path / "plain-out") == shard_bytes(out) == shard_bytes(again)

    assert "trained" in sftkit("inspect-shards", out)
    assert json.loads(sftkit("inspect-shards", out, "--format", "json"))
    assert sftkit("inspect-shards", out, "--audit", "true")
    first = next(out.glob("train-00000*"))
    assert sftkit("inspect-shards", first)


def test_a_directory_with_an_odd_name_is_read(name: str, folder: Path) -> None:
    write_jsonl(folder / "inside" / f"{name}.jsonl", ROWS)
    [file] = find_source_files(dataset(folder))
    assert (file.path, file.size) == (str(folder / "inside" / f"{name}.jsonl"), Path(file.path).stat().st_size)


def test_a_tokenizer_at_an_odd_path_is_loaded_or_refused_with_one_sentence(
    name: str, folder: Path, tmp_path: Path, tokenizer_path: Callable[[str], str]
) -> None:
    """`tokenizers` opens its files itself, and only accepts UTF-8."""
    home = folder / f"tokenizer{name}"
    shutil.copytree(tokenizer_path("bpe"), home)
    path = write_jsonl(tmp_path / "a.jsonl", ROWS)
    run = ["preprocess", "--training_data_path", str(path), "--tokenizer_name_or_path", str(home)]
    run += ["--input_field_name=input", "--output_field_name=output", "--output_dir", str(tmp_path / "out")]
    done = CliRunner().invoke(app, run)
    if name == NAMES["bytes"]:
        assert done.exit_code == 1
        assert "cannot be loaded" in done.output
        assert "Traceback" not in done.output
    else:
        assert done.exit_code == 0, done.output
        manifest = read_manifest(tmp_path / "out")
        assert manifest is not None
        assert manifest.tokenizer is not None
        assert manifest.tokenizer.name == str(home)
        sftkit("inspect-shards", tmp_path / "out")
