"""Source formats of installed packages: read from end to end, with worker processes, and rejected if they clash."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from plugins_support import install_plugin, run_sftkit

TOY = """
from sftkit.sources.streams.byte_streams import open_bytes, source_sha256
from sftkit.sources.source_file import Range, ScanResult
from sftkit.sources.source_format import SourceFormat, group_into_batches


class Toy(SourceFormat):
    extensions = (".toy",)

    def scan(self, file, unit_size):
        return ScanResult(source_sha256(file), (Range(0, file.size, 1, file.size),))

    def read(self, file, part, log):
        with open_bytes(file) as stream:
            yield from group_into_batches(self.rows(stream, log))

    def rows(self, stream, log):
        for number, line in enumerate(stream, 1):
            question, equals, answer = line.decode().rstrip().partition("=")
            if equals:
                yield number, {"input": question, "output": answer}, len(line)
            else:
                log.quarantine(number, "no equals sign", line.decode())
"""


OPTIONS = (
    "--model_name_or_path", "sample:model", "--input_field_name", "input", "--output_field_name", "output",
)  # fmt: skip


def test_workers_read_a_format_of_an_installed_package(tmp_path: Path) -> None:
    site = install_plugin(tmp_path / "site", TOY, {"sftkit.formats": {"toy": "Toy"}})
    sources = [tmp_path / f"{name}.toy" for name in "ab"]
    for source in sources:
        source.write_text("1 + 1=2\nno answer\n2 + 2=4\n")
    arguments = ("--training_data_path", *sources, "--num_workers", 2, "--max_bad_rows", 2)
    done = run_sftkit(site, "preprocess", "--output_dir", tmp_path / "out", *OPTIONS, *arguments)
    assert done.returncode == 0, done.stderr
    [shard] = (tmp_path / "out").glob("train-*.parquet")
    assert pq.read_metadata(shard).num_rows == 4
    quarantined = [json.loads(line) for line in (tmp_path / "out" / "quarantine.jsonl").read_text().splitlines()]
    assert [(Path(row["path"]).name, row["row"], row["reason"]) for row in quarantined] == [
        ("a.toy", 2, "no equals sign"),
        ("b.toy", 2, "no equals sign"),
    ]


@pytest.mark.parametrize(
    ("entry_points", "source", "message"),
    [
        ({"csv": "Toy"}, TOY, "the package toys registers 'csv' as sftkit.formats, which is the name of a built-in"),
        ({"json": "Toy"}, TOY, "the package toys registers 'json' as sftkit.formats, which is the name of a built-in"),
        ({"toy": "Toy"}, TOY.replace(".toy", ".csv"), "registers the extension .csv for 'toy', but 'csv' has it"),
        ({"toy": "Toy", "toy2": "Toy"}, TOY, "registers the extension .toy for 'toy2', but 'toy' has it"),
        ({"toy": "Toy"}, "class Toy: pass", "must be a subclass of sftkit.sources.source_format.SourceFormat"),
    ],
    ids=["name", "name json", "extension", "two plugins", "not a format"],
)
def test_a_format_that_clashes_with_another_or_is_invalid_is_rejected(
    tmp_path: Path,
    forked_sftkit: Callable[..., tuple[int, str]],
    entry_points: dict[str, str],
    source: str,
    message: str,
) -> None:
    site = install_plugin(tmp_path / "site", source, {"sftkit.formats": entry_points})
    (tmp_path / "a.toy").write_text("1 + 1=2\n")
    arguments = ("--training_data_path", tmp_path / "a.toy", "--output_dir", tmp_path / "out")
    code, errors = forked_sftkit(site, "preprocess", *OPTIONS, *arguments)
    assert (code, message in " ".join(errors.split())) == (2, True), errors
