"""Many rows, files and shards, and long rows, within limits on open files and memory.

`benchmarks/load.py` does the same at a larger scale (docs/performance.md).
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest

from sftkit.tokenization.encoding import chunked_encoder, encodable
from support import dataset, handler, preprocess, without_progress, write_jsonl

OPEN_FILES = 64
PAIRS = ["--input_field_name=input", "--output_field_name=output", "--tokenizer_name_or_path=sample:model"]


def sftkit(*argv: str, open_files: int = OPEN_FILES) -> subprocess.CompletedProcess[str]:
    """Run the command in another process, with a limit on open files."""
    limit = partial(resource.setrlimit, resource.RLIMIT_NOFILE, (open_files, open_files))
    command = [sys.executable, "-m", "sftkit", *argv]
    return subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=limit)


def pairs(count: int) -> list[dict[str, str]]:
    return [{"input": f"{number}?", "output": f"so {number}."} for number in range(count)]


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """150 files, a work unit each, and 100 shards of them, made with few files open at a time."""
    place = tmp_path_factory.mktemp("many")
    (place / "in").mkdir()
    for number in range(150):
        write_jsonl(place / "in" / f"{number:03}.jsonl", pairs(5))
    shards = ["--num_dataset_shards=100", "--num_workers=2", "--unit_size=5000", f"--output_dir={place / 'out'}"]
    made = sftkit("preprocess", f"--training_data_path={place / 'in'}", *PAIRS, *shards)
    assert made.returncode == 0, made.stderr
    assert len(without_progress(made.stderr).splitlines()) < 10
    return place


def test_many_files_become_many_shards_with_few_files_open(many: Path) -> None:
    manifest = json.loads((many / "out" / "manifest.json").read_text())
    assert (manifest["units"], manifest["rows_written"]) == (150, 750)
    assert len(list((many / "out").glob("train-*.parquet"))) == 100


@pytest.mark.sampled(4)
@pytest.mark.parametrize("options", [(), ("--audit=true",), ("--verify=true",), ("--rows=1", "--shard=77")])
def test_many_shards_are_inspected_with_few_files_open(many: Path, options: Sequence[str]) -> None:
    looked = sftkit("inspect-shards", str(many / "out"), *options)
    assert looked.returncode == 0, looked.stderr


def test_a_plan_of_many_files_is_short(many: Path) -> None:
    shards = ["--num_dataset_shards=700", f"--output_dir={many / 'other'}", "--dry_run=true"]
    planned = sftkit("preprocess", f"--training_data_path={many / 'in'}", *PAIRS, *shards)
    assert planned.returncode == 0, planned.stderr
    assert len(planned.stdout.splitlines()) < 250
    assert "and 100 more sources, " in planned.stdout
    assert "... and 652 more ..." in planned.stdout


@pytest.mark.slow
def test_long_rows_and_long_conversations_take_memory_in_proportion(tmp_path: Path) -> None:
    """`tokenizers` alone would take half a kilobyte per character, and rendering each prompt quadratic time."""
    message = "".join(f"{number} alder larch.\n" for number in range(200_000))
    turns = [{"role": ("user", "assistant")[place % 2], "content": f"{place} elm"} for place in range(20_000)]
    rows = [{"messages": [{"role": "user", "content": message}, {"role": "assistant", "content": "So."}]}]
    source = write_jsonl(tmp_path / "in.jsonl", [*rows, {"messages": turns}])
    command = [
        "preprocess", f"--training_data_path={source}", "--tokenizer_name_or_path=sample:model", "--num_workers=1",
        f"--output_dir={tmp_path / 'out'}",
    ]  # fmt: skip
    script = (
        "import re, sys\n"
        "from pathlib import Path\n"
        "from sftkit.cli.app import app\n"
        "try:\n    app(sys.argv[1:])\n"
        "finally:\n"
        "    status = Path('/proc/self/status').read_text()\n"
        "    print('peak', re.findall(r'VmHWM:\\s+(\\d+)', status)[0], file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["rows_written"] == 2
    kilobytes = int(done.stderr.split("peak ")[1])
    assert kilobytes < 1_200_000, f"for a row of {len(message):,} characters"


def test_a_text_too_long_to_be_encoded_is_quarantined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunked_encoder, "MIN_CHUNK_CHARACTERS", 1000)
    monkeypatch.setattr(encodable, "MAX_CHUNK_CHARACTERS", 8000)
    word = "x" * 8001
    source = write_jsonl(tmp_path / "in.jsonl", [{"input": "a", "output": "b"}, {"input": word, "output": "b"}])
    masking = handler("tokenize_and_apply_input_masking", input_field_name="input", output_field_name="output")
    data = dataset(source, data_handlers=[masking])
    preprocess(tmp_path / "out", data, model_name_or_path="sample:model", max_bad_rows=1)
    [line] = (tmp_path / "out" / "quarantine.jsonl").read_text().splitlines()
    bad = json.loads(line)
    assert (bad["row"], bad["reason"][:26]) == (2, "a text of 8,013 characters")
    assert bad["reason"].endswith("the limit is 8,000: split the row")
