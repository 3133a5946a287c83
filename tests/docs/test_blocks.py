"""Code blocks of the documentation work as shown.

The blocks of a page run in order, in a temporary directory that holds what the pages take for granted: `pairs.jsonl`,
`chats.jsonl`, `others.parquet`, `configs/`, and `MODEL`, a model directory. For README, it is empty. A YAML, TOML or
Python block that begins with a file name is saved under that name; a `pyproject.toml` is also installed. Blocks that
begin with a line of `SKIPPED` are not run.
"""

from __future__ import annotations

import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from reliability.material import sftkit
from support import write_jsonl

from .pages import PAGES, ROOT, Block, blocks_of

SAMPLE = ROOT / "src" / "sftkit" / "sample"
RUN_PAGES = [
    page for page in PAGES if any(block.language in ("console", "yaml", "python") for block in blocks_of(page))
]
README = ROOT / "README.md"
SLOW_PAGES = {"extending.md", "interop.md", "launching.md", "migrating.md", "python.md", "scaling.md", "training.md"}
"""They start other processes (with plugins, launchers, a Ray cluster), or train."""

OTHER_TRAINERS = frozenset({"trl"})
"""Packages that `make interop` installs. Blocks that import one that is not there are not run."""


def as_parameter(page: Path) -> object:
    return pytest.param(page, id=page.name, marks=[pytest.mark.slow] if page.name in SLOW_PAGES else [])


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model with random weights."""
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("docs") / "model"
    AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(SAMPLE / "model")).save_pretrained(folder)
    shutil.copytree(SAMPLE / "model", folder, dirs_exist_ok=True)
    return folder


@pytest.fixture
def working_directory(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("pairs", "conversations"):
        rows = [json.loads(line) for line in (SAMPLE / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
        write_jsonl(tmp_path / f"{name}.jsonl".replace("conversations", "chats"), rows[:24])
    tokens = pa.array([[1, 5, 6], [1, 7]])
    pq.write_table(pa.table({"input_ids": tokens, "labels": tokens}), tmp_path / "others.parquet")
    (tmp_path / "MODEL").symlink_to(model)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("NO_COLOR", "1")
    return tmp_path


@pytest.mark.parametrize("page", [as_parameter(page) for page in RUN_PAGES if page != README])
def test_the_blocks_of_a_page_work(page: Path, working_directory: Path) -> None:
    run_blocks(page, working_directory)


def test_readme_works_as_printed_in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_blocks(README, tmp_path)
    made = {path.name for path in tmp_path.iterdir()}
    assert made == {"data.yaml", "shards", "report.html", "out", "chat-shards"}


def run_blocks(page: Path, working_directory: Path) -> None:
    output = ""
    names: dict[str, object] = {}
    before = set(sys.modules)
    for block in blocks_of(page):
        if block.is_output:
            assert_shown(block, output)
        elif block.language == "console" and not block.is_skipped:
            output = "".join(run(words, block) for words in block.commands())
        elif block.file_name is not None:
            (working_directory / block.file_name).write_text(block.text, encoding="utf-8")
            validate(block)
        elif block.language == "python" and not missing_trainers(block):
            with redirect_stdout(io.StringIO()) as printed:
                exec(compile(block.text, block.place, "exec"), names)
            output = printed.getvalue()
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").is_relative_to(working_directory):
            del sys.modules[name]


def missing_trainers(block: Block) -> list[str]:
    """Other trainers that a Python block imports and that are not installed."""
    imported = {name for trainer in OTHER_TRAINERS for name in re.findall(rf"^from ({trainer})\b", block.text, re.M)}
    return [name for name in imported if importlib.util.find_spec(name) is None]


def run(words: Sequence[str], block: Block) -> str:
    """Run a command and return what it printed."""
    place = f"{block.place}: {' '.join(words)}"
    if words[0] == "make":  # only whether there is such a target
        done = subprocess.run([words[0], "--dry-run", *words[1:]], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, f"{place}\n{done.stderr}"
        return done.stdout
    installed = any(Path.cwd().glob("*.dist-info"))
    if words[0] == "sftkit" and "ray" not in words and not installed:
        outcome = sftkit(*words[1:])
        assert outcome.code == 0, f"{place}\n{outcome.out}\n{outcome.err}"
        return f"{outcome.out}\n{outcome.err}\n"
    assert words[0] in ("sftkit", "torchrun", "accelerate"), f"{place}: the test does not know this command"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = [sys.executable, "-m", *words] if words[0] == "sftkit" else words
    done = subprocess.run(command, env={**os.environ, "PATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, f"{place}\n{done.stdout}\n{done.stderr}"
    return f"{done.stdout}\n{done.stderr}\n"


def assert_shown(block: Block, output: str) -> None:
    """Every line of the block is in the output, in this order; `...` stands for anything."""
    printed = [line.rstrip() for line in output.split("\n")]
    position = 0
    for line in block.text.split("\n"):
        if line.strip() in ("", "..."):
            continue
        pattern = re.compile(".*".join(map(re.escape, line.rstrip().split("..."))))
        found = next((at for at in range(position, len(printed)) if pattern.fullmatch(printed[at])), None)
        assert found is not None, f"{block.place}: not in the output: {line!r}\n{output}"
        position = found + 1


def install(pyproject: str) -> None:
    """Write the metadata of a package whose modules are in the working directory, as pip would."""
    project = tomllib.loads(pyproject)["project"]
    metadata = Path(f"{project['name']}-{project['version']}.dist-info")
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n", encoding="utf-8"
    )
    groups = {group: points.items() for group, points in project["entry-points"].items()}
    lines = [line for group, points in groups.items() for line in (f"[{group}]", *map(" = ".join, points))]
    (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def validate(block: Block) -> None:
    """Load a config as what its name says: `train.yaml`, `run.yaml` (for preprocess), or a data config."""
    assert block.file_name is not None
    if block.file_name == "pyproject.toml":
        install(block.text)
    if block.language != "yaml" or any(Path.cwd().glob("*.dist-info")):
        return  # configs that use a plugin are loaded by the commands after them
    from sftkit.config.commands import PreprocessConfig, TrainConfig
    from sftkit.config.loading import load_config
    from sftkit.handlers.registry import build_handlers
    from sftkit.training.arguments.build_arguments import extra_keys

    if block.file_name.startswith("train"):
        load_config(TrainConfig, ["--config", block.file_name], extra_keys=extra_keys())
        return
    if block.file_name.startswith("run"):
        config = load_config(PreprocessConfig, ["--config", block.file_name])
    else:
        config = load_config(PreprocessConfig, ["--data_config_path", block.file_name, "--output_dir", "out"])
    for position, dataset in enumerate(config.datasets):
        build_handlers(dataset, position)


PARSERS: dict[str, Callable[[str], object]] = {
    "yaml": lambda text: list(yaml.safe_load_all(text)),
    "toml": tomllib.loads,
    "json": json.loads,
    "python": lambda text: compile(text, "block", "exec"),
    "bash": lambda text: subprocess.run(["bash", "-n"], input=text, text=True, check=True),
    "console": lambda text: None,
    "text": lambda text: None,
    "": lambda text: None,
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_are_well_formed(page: Path) -> None:
    for block in blocks_of(page):
        assert block.language in PARSERS, block.place
        PARSERS[block.language](block.text)
        if block.language == "yaml":
            assert block.is_skipped or block.file_name, f"{block.place}: begin it with a comment that names a file"


def test_exactly_these_blocks_are_skipped() -> None:
    skipped = Counter(block.first_line for page in PAGES for block in blocks_of(page) if block.is_skipped)
    assert skipped == {
        "# needs a GPU": 3,
        "# needs several GPUs": 4,
        "# needs several machines": 2,
        "# needs network access": 6,
        "# needs a Kubernetes cluster": 1,
        "# needs a chat template that can skip reasoning": 1,
        "# takes several minutes": 6,
    }


def test_a_block_that_shows_other_output_is_found() -> None:
    block = Block("page.md", 1, "text", "a ... c\n...\nd", is_output=True)
    assert_shown(block, "a b c\nx\nd\n")
    with pytest.raises(AssertionError, match="not in the output"):
        assert_shown(block, "d\na b c\n")
