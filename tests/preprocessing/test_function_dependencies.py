"""What a user function imports and reads decides which staged units and which data sets are still good."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import sftkit
from sftkit.api.use_cases import PreprocessResult
from sftkit.config.commands import PreprocessConfig
from sftkit.core.progress import SilentProgress
from sftkit.errors import ConfigError, SourceError
from sftkit.preprocessing.build import run
from sftkit.preprocessing.planning import plan
from support import dataset, handler, shard_bytes, write_jsonl

ROWS = [{"input": f"question {number}", "output": "b"} for number in range(40)]

HELPERS = {
    "module": ("from fd_help import fix", {"fd_help.py": "def fix(s): return s + '-v1'"}),
    "late module": (
        "def fix(s):\n    import fd_help\n    return fd_help.fix(s)", {"fd_help.py": "def fix(s): return s + '-v1'"}
    ),
    "module of a computed name": (
        "import importlib\ndef fix(s): return importlib.import_module('fd_' + 'help').fix(s)",
        {"fd_help.py": "def fix(s): return s + '-v1'"},
    ),
    "file read for every row": ("def fix(s): return s + open('mark.txt').read()", {"mark.txt": "-v1"}),
    "file read once": (
        "from functools import cache\nfrom pathlib import Path\n@cache\n"
        "def mark(): return (Path(__file__).parent / 'mark.txt').read_text()\ndef fix(s): return s + mark()",
        {"mark.txt": "-v1"},
    ),
    "file read by a library": (
        "import json\ndef fix(s): return s + json.load(open('mark.json'))['mark']", {"mark.json": '{"mark": "-v1"}'}
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)
    yield tmp_path
    sys.path[:] = path
    for name in [name for name in sys.modules if name.startswith("fd_")]:
        del sys.modules[name]


def _write(helper: str) -> str:
    """Write a function that depends on a helper; return the name of the file to edit."""
    source, files = HELPERS[helper]
    Path("fd_own.py").write_text(f"{source}\ndef h(row): return {{**row, 'output': fix(row['output'])}}\n")
    for name, text in files.items():
        Path(name).write_text(text)
    return next(iter(files))


def _edit(name: str) -> None:
    status, text = Path(name).stat(), Path(name).read_text()
    Path(name).write_text(text.replace("-v1", "-v2"))
    os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns))


def _config(output: str, workers: int = 1) -> PreprocessConfig:
    pairs = handler("tokenize_and_apply_input_masking", input_field_name="input", output_field_name="output")
    own = dataset(write_jsonl(Path("own.jsonl"), ROWS), name="own", data_handlers=[handler("fd_own:h"), pairs])
    plain = dataset(write_jsonl(Path("plain.jsonl"), ROWS), name="plain", data_handlers=[pairs])
    return PreprocessConfig(
        output_dir=output, staging_dir="units", overwrite=True, datasets=(own, plain), unit_size=500,
        num_workers=workers, model_name_or_path="sample:model",
    )  # fmt: skip


def _preprocess(output: str, workers: int = 1) -> PreprocessResult:
    return sftkit.preprocess(_config(output, workers))


def _check_edit(helper: str, workers: int) -> None:
    edited = _write(helper)
    first = _preprocess("out", workers)
    assert first.manifest is not None
    assert not _preprocess("out", workers).ran
    assert _preprocess("other", workers).manifest.units_found == first.manifest.units  # type: ignore[union-attr]
    before = shard_bytes(Path("out"))
    _edit(edited)
    again = _preprocess("out", workers)
    assert again.ran
    assert shard_bytes(Path("out")) != before
    assert again.manifest is not None
    assert again.manifest.units_found == again.manifest.units // 2
    sftkit.preprocess(replace(_config("fresh", workers), staging_dir=None))
    assert shard_bytes(Path("out")) == shard_bytes(Path("fresh"))


@pytest.mark.parametrize("helper", HELPERS)
def test_an_edited_helper_stages_the_units_of_its_function_again(helper: str) -> None:
    _check_edit(helper, workers=1)


@pytest.mark.slow
@pytest.mark.parametrize("helper", HELPERS)
def test_an_edited_helper_stages_the_units_again_with_worker_processes(helper: str) -> None:
    _check_edit(helper, workers=2)


@pytest.mark.slow
@pytest.mark.parametrize("helper", ["module", "late module"])
def test_a_helper_that_changes_between_planning_and_work_ends_the_run(helper: str) -> None:
    edited = _write(helper)
    planned = plan(_config("out", workers=2))
    _edit(edited)
    with pytest.raises(ConfigError, match="'fd_own:h': its code changed during the run; run the command again"):
        run(planned, SilentProgress())
    assert not list(Path("units").glob("*account*")) or sftkit.preprocess(_config("out")).ran


def test_a_file_that_changes_while_functions_read_it_ends_the_run() -> None:
    source = (
        "import os\nseen = []\ndef h(row):\n    seen.append(1)\n"
        "    if len(seen) == 1030: os.replace('next.txt', 'mark.txt')\n"
    )
    Path("fd_own.py").write_text(f"{source}    return {{**row, 'output': open('mark.txt').read()}}\n")
    Path("mark.txt").write_text("-v1")
    Path("next.txt").write_text("-v2")
    config = _config("out")
    write_jsonl(Path("own.jsonl"), ROWS * 30)
    with pytest.raises(SourceError, match=r"mark\.txt: changed while functions of fd_own read it; run the command"):
        run(plan(replace(config, unit_size=1 << 20)), SilentProgress())


def test_a_file_that_functions_write_is_not_part_of_what_they_depend_on() -> None:
    source = (
        "import json\nfrom pathlib import Path\n"
        "def fix(s):\n"
        "    cache = json.loads(Path('cache.json').read_text()) if Path('cache.json').exists() else {}\n"
        "    Path('cache.json').write_text(json.dumps({**cache, s: len(cache)}))\n"
        "    return s\n"
    )
    Path("fd_own.py").write_text(f"{source}def h(row): return {{**row, 'output': fix(row['output'])}}\n")
    Path("cache.json").write_text("{}")
    write_jsonl(Path("in.jsonl"), ROWS)
    manifest = run(plan(_config("out")), SilentProgress())
    assert (manifest.rows_written, manifest.function_inputs) == (2 * len(ROWS), {})
