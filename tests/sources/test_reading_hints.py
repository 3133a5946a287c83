"""Errors about files that cannot be read as they are name the key that may help: `reader`."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from reliability.material import sftkit
from sftkit.config.schema.data_config import DatasetConfig
from sftkit.errors import SourceError
from sftkit.sources import streams
from sftkit.sources.discovery.source_files import find_source_files
from sftkit.sources.source_file import ReadLimits

ENCODING, DELIMITER, FIELD = "set `encoding` in the `reader`", "set `delimiter` in the `reader`", "`json_field` in the"
PAIR = '{"input": "q", "output": "a"}\n'


@pytest.mark.parametrize(
    ("name", "content", "hint"),
    [
        ("a.csv", "input;output\nq;a\n", DELIMITER),
        ("a.csv", "input\toutput\nq\ta\n", DELIMITER),
        ("a.csv", "input;output\nq, r;a\n", DELIMITER),
        ("a.csv", "input,output\nqä,a\n", ENCODING),
        ("a.csv", "ä,output\nq,a\n", ENCODING),
        ("a.csv", "input,output\nq,a\nqä,a\n", ENCODING),
        ("a.jsonl", '{"input": "ä", "output": "a"}\n', ENCODING),
        ("a.jsonl", PAIR + '{"input": "ä", "output": "a"}\n', ENCODING),
        ("a.jsonl", PAIR + '{"input": "ä", "output": "a"}\n' * 20, ENCODING),
        ("a.json", '{\n  "data": [\n    {"input": "q", "output": "a"}\n  ]\n}\n', FIELD),
        ("a.json", '{"version": 1, "data": [\n  {"input": "q", "output": "a"}\n]}\n', FIELD),
        ("a.json", '{\n  "input": "q",\n  "output": "a"\n}\n', "is one JSON object over several lines"),
    ],
)
def test_the_key_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: str, hint: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(content.encode("latin-1"))
    fields = ("--input_field_name", "input", "--output_field_name", "output")
    outcome = sftkit("preprocess", "--training_data_path", name, *fields, "--tokenizer_name_or_path", "sample:model",
                     "--output_dir", "out")  # fmt: skip
    assert outcome.clear
    assert hint in outcome.err


@pytest.mark.parametrize("content", [PAIR, "{\n" + PAIR, '{"input": "q",\n' + PAIR])
def test_broken_lines_of_json_lines_are_bad_rows_as_before(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(content)
    [file] = find_source_files(DatasetConfig(name="a", data_paths=(str(path),)))
    assert file.format == "jsonl"


def test_a_file_in_a_zip_archive_expands_as_far_as_max_expansion_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams.decompression, "ALWAYS_ALLOWED_BYTES", 1 << 20)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.jsonl", PAIR * 200_000)
    options = {"zip": {"fo": str(tmp_path / "a.zip")}}
    dataset = DatasetConfig(name="a", data_paths=("zip://a.jsonl",), storage_options=options)
    with pytest.raises(
        SourceError, match=r"bytes of packed data expand to at least 6,000,000 bytes, .*max_expansion=10"
    ):
        find_source_files(dataset, ReadLimits(expansion=10))
    assert len(find_source_files(dataset, ReadLimits(expansion=1e6))) == 1
