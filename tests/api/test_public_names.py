"""The names of `sftkit`: what they are, that they cost nothing until they are used, and what type checkers see."""

from __future__ import annotations

import ast
import doctest
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import sftkit

PACKAGE = Path(sftkit.__file__).parent
NAMES = [name for name in sftkit.__all__ if not name.startswith("__")]
FUNCTIONS = [name for name in NAMES if name[0].islower()]
RAISES_NOTHING = {"collator_for", "sample_path"}
"""That a user could react to."""

SCRIPT = """
from pathlib import Path

from sftkit import ConfigError, DatasetConfig, HandlerConfig, PreprocessConfig, PreprocessResult, Report, Verification
import sftkit


def build(output_dir: Path) -> int:
    config = PreprocessConfig(
        output_dir=str(output_dir),
        datasets=(DatasetConfig(name="pairs", data_paths=("pairs.jsonl",), data_handlers=(HandlerConfig(name="x"),)),),
    )
    try:
        result: PreprocessResult = sftkit.preprocess(config, max_seq_length=4096)
    except ConfigError as error:
        print(error.problems)
        raise
    return result.manifest.rows_written if result.manifest is not None else 0


def look(directory: str) -> list[int]:
    report: Report = sftkit.inspect_shards(directory, rows=2)
    verification: Verification = sftkit.inspect_shards(directory, verify=True)
    print(len(report.rows), len(verification.differences))
    shards = sftkit.open_shards(directory)
    rows: list[sftkit.ShardRow] = shards["train"][:10]
    return [int(row.input_ids[0]) for row in rows]


def tune(directory: str) -> float | None:
    print(len(sftkit.ShardDataset(directory)), sftkit.FlatCollator())
    return sftkit.train(training_data_path=directory, output_dir="model", max_steps=3).last_loss
"""
WRONG = """
import sftkit

sftkit.no_such_name
sftkit.preprocess(5)
sftkit.PreprocessConfig(output_dir="x", no_such_key=5)
sftkit.inspect_shards("shards").differences
"""


def test_every_name_can_be_imported() -> None:
    assert {name: getattr(sftkit, name, None) for name in NAMES if getattr(sftkit, name, None) is None} == {}
    assert set(sftkit.__all__) <= set(dir(sftkit))
    with pytest.raises(AttributeError, match="module 'sftkit' has no attribute 'no_such_name'"):
        sftkit.no_such_name  # noqa: B018 - looking the name up is what raises


def test_type_checkers_see_the_names_that_there_are() -> None:
    tree = ast.parse(Path(sftkit.__file__).read_text(encoding="utf-8"))
    typed = {
        (node.module, alias.name)
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert typed == {(module, name) for module, names in sftkit._EXPORTS.items() for name in names}
    assert {name for _, name in typed} == set(NAMES)


def test_no_submodule_has_the_name_of_anything_public() -> None:
    modules = {path.stem for path in PACKAGE.iterdir()} | {path.stem for path in (PACKAGE / "api").iterdir()}
    assert modules & set(NAMES) == set()


def test_importing_sftkit_imports_nothing_else() -> None:
    code = "import sys; before = set(sys.modules); import sftkit; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["sftkit"]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_documents_what_it_takes_and_raises(name: str) -> None:
    function = getattr(sftkit, name)
    text = inspect.getdoc(function) or ""
    parts = ("Args:", "Example:") if name in RAISES_NOTHING else ("Args:", "Raises:", "Example:")
    assert [part for part in parts if part not in text] == []
    for parameter in inspect.signature(function).parameters:
        assert f"{parameter}: " in text


def examples() -> Iterator[doctest.DocTest]:
    finder = doctest.DocTestFinder(recurse=False)
    for name in NAMES:
        found = getattr(sftkit, name)
        if str(getattr(found, "__module__", "")).startswith(("sftkit.api", "sftkit.sample")):
            yield from (test for test in finder.find(found, name) if test.examples)


@pytest.mark.parametrize("example", list(examples()), ids=lambda example: example.name)
def test_the_example_of_a_docstring_is_true(
    example: doctest.DocTest, sample_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shards").symlink_to(sample_shards)
    monkeypatch.chdir(tmp_path)
    shown: list[str] = []
    assert doctest.DocTestRunner().run(example, out=shown.append).failed == 0, "".join(shown)


def mypy(folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    (folder / "script.py").write_text(script)
    # Only sftkit's own types are in question, and those of torch and transformers take a minute to read.
    (folder / "mypy.ini").write_text("[mypy]\nstrict = true\n[mypy-torch.*,transformers.*]\nfollow_imports = skip\n")
    return subprocess.run(
        [sys.executable, "-m", "mypy", "--cache-dir", "cache", "script.py"],
        cwd=folder, capture_output=True, text=True, env={"PYTHONPATH": str(PACKAGE.parent)},
    )  # fmt: skip


@pytest.mark.slow
def test_a_script_that_uses_the_names_is_strictly_typed(tmp_path: Path) -> None:
    right = mypy(tmp_path, SCRIPT)
    assert right.returncode == 0, right.stdout + right.stderr
    wrong: Any = mypy(tmp_path, WRONG)
    assert [line.split(":")[1] for line in wrong.stdout.splitlines() if ": error:" in line] == ["4", "5", "6", "7"]
