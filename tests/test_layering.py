"""Imports go one way: command line -> use cases -> stages -> shared packages. Heavy ones wait until they are needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "src" / "sftkit"
STAGES = frozenset(
    {
        *("sources", "handlers", "tokenization", "audit", "decontamination", "deduplication", "ordering"),
        *("shards", "execution"),
    }
)
"""Each does one part of the work and knows none of the others."""

SHARED = frozenset({"config", "core", "errors", "redaction", "sample", "sandbox", "storage"})
"""What every package may import."""

COMMAND_LINE = frozenset({"cli", "__main__"})
PYTHON_API = frozenset({"api", "__init__"})
NAMED_TYPES = {"handlers": "sftkit.tokenization.chat_tokenizer.ChatTokenizer"}
"""A type of another stage that a stage may name, for the type checker only: handlers are bound to a chat tokenizer."""

HEAVY = frozenset({"torch", "transformers", "datasets"})
MOST_MODULES = 14
"""In one folder."""


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def package_of(path: Path) -> str:
    """The first name below sftkit: `sources` for sftkit/sources/formats/jsonl.py, `errors` for sftkit/errors.py."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@cache
def tree_of(path: Path) -> ast.Module:
    """The syntax tree of a module, parsed once for all tests."""
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(path: Path, *, at_module_level: bool = False) -> tuple[str, ...]:
    """Full names of what a module imports; `at_module_level`: only what importing the module itself imports."""
    tree = tree_of(path)
    found: list[str] = []
    for node in _run_at_import(tree) if at_module_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            found += (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            assert node.module is not None
            found += (f"{node.module}.{alias.name}" for alias in node.names)
    return tuple(found)


def _run_at_import(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from _run_at_import(child)


def own_imports(path: Path) -> set[str]:
    """Names below sftkit that a module imports: `core` for `from sftkit.core.rows import Row`."""
    parts = [name.split(".") for name in imports(path) if name != NAMED_TYPES.get(package_of(path))]
    return {part[1] for part in parts if part[0] == "sftkit" and len(part) > 1 and not part[1].startswith("__")}


def top_level(names: Iterable[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def violations(packages: Collection[str] | None, found: Callable[[Path], set[str]]) -> dict[str, set[str]]:
    """What modules of these packages (all, but for the command line, when None) import and must not."""
    chosen = [
        path
        for path in modules()
        if (package_of(path) in packages if packages else package_of(path) not in COMMAND_LINE)
    ]
    assert chosen
    return {path.relative_to(PACKAGE).as_posix(): names for path in chosen if (names := found(path))}


def test_stages_import_no_other_stage() -> None:
    assert violations(STAGES, lambda path: own_imports(path) - SHARED - {package_of(path)}) == {}


def test_shared_packages_import_only_one_another() -> None:
    assert violations(SHARED, lambda path: own_imports(path) - SHARED) == {}


def test_a_type_of_another_stage_is_imported_for_the_type_checker_only() -> None:
    at_run_time = {path for path in modules() if set(NAMED_TYPES.values()) & set(imports(path, at_module_level=True))}
    assert not {package_of(path) for path in at_run_time} & set(NAMED_TYPES)


def test_training_and_inspection_know_shards_and_neither_handlers_nor_sources() -> None:
    assert violations({"training", "inspection"}, lambda path: own_imports(path) & {"handlers", "sources"}) == {
        # It asks the handlers that a manifest names what they make of rows.
        "inspection/audit/shard_origin.py": {"handlers"},
        # It reads retained conversations, in any form that handlers read.
        "inspection/audit/retained_tools.py": {"handlers"},
    }


def test_only_the_command_line_knows_rich_and_typer() -> None:
    assert violations(None, lambda path: top_level(imports(path)) & {"rich", "typer", "click"}) == {}


def test_only_the_command_line_knows_the_python_api() -> None:
    packages = {package_of(path) for path in modules()} - COMMAND_LINE - PYTHON_API
    assert violations(packages, lambda path: own_imports(path) & PYTHON_API) == {}


def test_only_the_command_line_knows_the_command_line() -> None:
    assert violations(None, lambda path: own_imports(path) & COMMAND_LINE) == {}


def test_heavy_packages_are_imported_where_they_are_needed() -> None:
    # `training` may import them at once, for only `train` reaches it, and so may what gives shards to torch.
    packages = {package_of(path) for path in modules()} - {"training"}
    found = violations(packages, lambda path: top_level(imports(path, at_module_level=True)) & HEAVY)
    assert found == {"api/torch_data.py": {"torch"}}


def dependencies(folder: Path) -> dict[str, set[str]]:
    """What lies directly in a folder (modules and sub-packages, by name) -> what of the same folder it imports."""
    names = {path.stem for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    prefix = ["sftkit", *folder.relative_to(PACKAGE).parts]
    found: dict[str, set[str]] = {name: set() for name in names - {"__init__"}}
    for name in found:
        paths = [folder / f"{name}.py"] if (folder / f"{name}.py").is_file() else (folder / name).rglob("*.py")
        for full in (imported for path in paths for imported in imports(path)):
            parts = full.split(".")
            if parts[: len(prefix)] == prefix and len(parts) > len(prefix) and parts[len(prefix)] in names:
                found[name].add(parts[len(prefix)])
        found[name].discard(name)
    return found


FOLDERS = sorted(path.parent for path in PACKAGE.rglob("__init__.py"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.relative_to(PACKAGE.parent).as_posix())
def test_modules_and_packages_of_a_folder_form_no_circle(folder: Path) -> None:
    try:
        TopologicalSorter(dependencies(folder)).prepare()
    except CycleError as error:
        pytest.fail(f"{folder.relative_to(PACKAGE.parent)}: {' -> '.join(error.args[1])}")


def test_folders_stay_small_enough_to_take_in_at_a_glance() -> None:
    sizes = {folder.relative_to(PACKAGE.parent).as_posix(): len(list(folder.glob("*.py"))) - 1 for folder in FOLDERS}
    assert {name: size for name, size in sizes.items() if size > MOST_MODULES} == {}
    assert sizes["sftkit"] <= 4


def test_no_two_modules_and_no_two_public_classes_have_one_name() -> None:
    names = Counter(path.stem for path in modules() if path.stem not in ("__init__", "__main__"))
    trees = [tree_of(path) for path in modules()]
    classes = Counter(node.name for tree in trees for node in tree.body if isinstance(node, ast.ClassDef))
    assert [name for name, count in names.items() if count > 1] == []
    assert [name for name, count in classes.items() if count > 1 and not name.startswith("_")] == []


def test_the_checks_above_see_what_they_look_for() -> None:
    assert "numpy" in top_level(imports(PACKAGE / "core" / "rows.py"))
    assert {"config", "errors"} <= own_imports(PACKAGE / "sources" / "discovery" / "source_files.py")
    loading = PACKAGE / "tokenization" / "loading" / "tokenizer_loading.py"
    assert "transformers" in top_level(imports(loading))
    assert "transformers" not in top_level(imports(loading, at_module_level=True))


def loaded_after(code: str) -> set[str]:
    """Which heavy packages a fresh process has loaded after some code."""
    script = f"import sys\n{code}\nprint(*[name for name in {sorted(HEAVY)} if sys.modules.get(name)])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "module", ["cli.app", "preprocessing.build", "preprocessing.planning", "preprocessing.pipeline.unit_pipeline"]
)
def test_importing_the_commands_loads_nothing_heavy(module: str) -> None:
    assert loaded_after(f"import sftkit.{module}") == set()


def test_a_whole_build_never_loads_torch(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from sftkit.core.startup.transformers_import import import_transformers_without_torch
import_transformers_without_torch()
from sftkit.preprocessing.build import run
from sftkit.config.commands import PreprocessConfig
from sftkit.config.schema.data_config import DatasetConfig, HandlerConfig
from sftkit.preprocessing.planning import plan
from sftkit.core.progress import SilentProgress
masking = HandlerConfig(name="tokenize_and_apply_chat_template_with_masking")
data = DatasetConfig(name="a", data_paths=("sample:validation.jsonl",), data_handlers=(masking,))
config = PreprocessConfig(output_dir={str(tmp_path / "out")!r}, datasets=(data,), model_name_or_path="sample:model")
assert run(plan(config), SilentProgress()).rows_written > 0
"""
    loaded = loaded_after(code)
    assert "torch" not in loaded
    assert "transformers" in loaded
