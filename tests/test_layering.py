"""Imports go one way: cli -> use-cases -> rooms -> what everyone may know. Heavy ones wait until they are needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "src" / "sftkit"
ROOMS = frozenset({"sources", "handlers", "tokenization", "shards", "mixing", "packing", "audit", "execution"})
KNOWN_TO_ALL = frozenset(
    {"config", "errors", "memory", "naming", "rows", "splits", "sample", "processes", "progress", "timing", "torchless"}
    | {"template_limits", "template_steps", "storage"}
)
COMMAND_LINE = frozenset({"cli", "options", "console", "__main__"})
HEAVY = frozenset({"torch", "transformers", "datasets"})


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    """The first name below sftkit: `sources` for sftkit/sources/jsonl.py, `mixing` for sftkit/mixing.py."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path, *, at_module_level: bool = False) -> Iterator[str]:
    """Full names of what a module imports; `at_module_level`: only what importing the module itself imports."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = _run_at_import(tree) if at_module_level else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _run_at_import(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from _run_at_import(child)


def own_imports(path: Path) -> set[str]:
    """Names below sftkit that a module imports: `rows` for `from sftkit.rows import Row`."""
    parts = [name.split(".") for name in imports(path)]
    return {part[1] for part in parts if part[0] == "sftkit" and len(part) > 1 and not part[1].startswith("__")}


def top_level(names: Iterable[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def violations(rooms: Collection[str] | None, found: Callable[[Path], set[str]]) -> dict[str, set[str]]:
    """What modules of these rooms (all, but for the command line, when None) import and must not."""
    chosen = [path for path in modules() if (room_of(path) in rooms if rooms else room_of(path) not in COMMAND_LINE)]
    assert chosen
    return {path.relative_to(PACKAGE).as_posix(): names for path in chosen if (names := found(path))}


def test_rooms_import_no_other_room() -> None:
    assert violations(ROOMS, lambda path: own_imports(path) - KNOWN_TO_ALL - {room_of(path)}) == {}


def test_what_everyone_knows_knows_no_room() -> None:
    assert violations(KNOWN_TO_ALL, lambda path: own_imports(path) - KNOWN_TO_ALL) == {}


def test_training_and_inspection_know_shards_and_neither_handlers_nor_sources() -> None:
    assert violations({"training", "inspection"}, lambda path: own_imports(path) & {"handlers", "sources"}) == {}


def test_only_the_command_line_knows_rich_and_typer() -> None:
    assert violations(None, lambda path: top_level(imports(path)) & {"rich", "typer", "click"}) == {}


def test_only_the_command_line_knows_the_command_line() -> None:
    assert violations(None, lambda path: own_imports(path) & COMMAND_LINE) == {}


def test_heavy_packages_are_imported_where_they_are_needed() -> None:
    # `training` may import them at once: `train` alone reaches it, which the processes below hold.
    rooms = {room_of(path) for path in modules()} - {"training"}
    assert violations(rooms, lambda path: top_level(imports(path, at_module_level=True)) & HEAVY) == {}


def test_the_checks_above_see_what_they_look_for() -> None:
    assert "numpy" in top_level(imports(PACKAGE / "rows.py"))
    assert {"config", "rows"} <= own_imports(PACKAGE / "sources" / "finding.py") | own_imports(PACKAGE / "mixing.py")
    loading = PACKAGE / "tokenization" / "loading.py"
    assert "transformers" in top_level(imports(loading))
    assert "transformers" not in top_level(imports(loading, at_module_level=True))


def loaded_after(code: str) -> set[str]:
    """Which heavy packages a fresh process has loaded after some code."""
    script = f"import sys\n{code}\nprint(*[name for name in {sorted(HEAVY)} if sys.modules.get(name)])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("module", ["cli", "build", "planning", "pipeline"])
def test_importing_the_commands_loads_nothing_heavy(module: str) -> None:
    if not (PACKAGE / f"{module}.py").is_file():
        pytest.skip(f"sftkit.{module} is not there yet")
    assert loaded_after(f"import sftkit.{module}") == set()


def test_a_whole_build_never_loads_torch(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from sftkit.torchless import import_transformers_without_torch
import_transformers_without_torch()
from sftkit.build import run
from sftkit.config.commands import PreprocessConfig
from sftkit.config.schema import DatasetConfig, HandlerConfig
from sftkit.planning import plan
from sftkit.progress import Silent
masking = HandlerConfig(name="tokenize_and_apply_chat_template_with_masking")
data = DatasetConfig(name="a", data_paths=("sample:validation.jsonl",), data_handlers=(masking,))
config = PreprocessConfig(output_dir={str(tmp_path / "out")!r}, datasets=(data,), model_name_or_path="sample:model")
assert run(plan(config), Silent()).rows_written > 0
"""
    loaded = loaded_after(code)
    assert "torch" not in loaded
    assert "transformers" in loaded
