"""What a user function depends on is known: modules, packages, data files; and what runs is what is hashed."""

from __future__ import annotations

import os
import py_compile
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sftkit.errors import ConfigError
from sftkit.handlers.user_function import check_trusted, code_digests, code_files, import_function


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory, from which modules are imported; they are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    before, path = set(sys.modules), list(sys.path)
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - before:
        if name.startswith("fc_"):
            del sys.modules[name]


def _write(files: dict[str, str]) -> None:
    for name, text in files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)


def _edit_in_place(path: str, old: str, new: str) -> None:
    """Edit a file so that its size and times stay, as Python checks them for compiled code."""
    status, text = Path(path).stat(), Path(path).read_text()
    assert len(old) == len(new)
    assert old in text
    Path(path).write_text(text.replace(old, new))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


FORMS = {
    "import": ("import fc_help", {"fc_help.py": "v = '1'"}),
    "from": ("from fc_help import v", {"fc_help.py": "v = '1'"}),
    "star": ("from fc_help import *", {"fc_help.py": "v = '1'"}),
    "in a function": ("def g():\n    from fc_help import v", {"fc_help.py": "v = '1'"}),
    "never run": ("if False:\n    import fc_help", {"fc_help.py": "v = '1'"}),
    "by a call": ("import importlib\ndef g(): importlib.import_module('fc_help')", {"fc_help.py": "v = '1'"}),
    "by a computed name": ("import importlib\nm = importlib.import_module('fc_' + 'help')", {"fc_help.py": "v = '1'"}),
    "transitively": ("import fc_a", {"fc_a.py": "import fc_b.c", "fc_b/__init__.py": "", "fc_b/c.py": "v = '1'"}),
    "in a package": ("from fc_p import m", {"fc_p/__init__.py": "", "fc_p/m.py": "v = '1'"}),
    "the package itself": ("import fc_p.m", {"fc_p/__init__.py": "v = '1'", "fc_p/m.py": ""}),
    "relative": ("import fc_p.m", {"fc_p/__init__.py": "", "fc_p/m.py": "from .n import v", "fc_p/n.py": "v = '1'"}),
    "relative to a parent": (
        "import fc_p.q.m",
        {"fc_p/q/m.py": "from ..n import v", "fc_p/n.py": "v = '1'", "fc_p/__init__.py": "", "fc_p/q/__init__.py": ""},
    ),
    "namespace": ("from fc_space.deep import m", {"fc_space/deep/m.py": "v = '1'"}),
    "circular": ("import fc_a", {"fc_a.py": "import fc_b", "fc_b.py": "import fc_a\nv = '1'"}),
    "data": ("v = open('v.txt').read()", {"v.txt": "'1'"}),
    "data of a package": (
        "import fc_p",
        {"fc_p/__init__.py": "from pathlib import Path\nt = Path(__file__).with_name('t.json').read_text()",
         "fc_p/t.json": '["1", "\'1\'"]'},
    ),
    "resources": (
        "import importlib.resources, fc_p\nt = importlib.resources.files(fc_p).joinpath('t.txt').read_text()",
        {"fc_p/__init__.py": "", "fc_p/t.txt": "'1'"},
    ),
    "get_data": (
        "import pkgutil, fc_p\nt = pkgutil.get_data('fc_p', 't.txt')", {"fc_p/__init__.py": "", "fc_p/t.txt": "'1'"}
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_an_edit_of_anything_that_a_module_reaches_changes_its_digests(form: str) -> None:
    source, files = FORMS[form]
    _write({"fc_own.py": f"{source}\ndef f(row):\n    return row\n", "fc_other.py": "v = '1'", **files})
    check_trusted("fc_own:f", ())
    before = code_digests("fc_own:f")
    edited = next(name for name, text in files.items() if "'1'" in text)
    _edit_in_place("fc_other.py", "'1'", "'2'")
    check_trusted("fc_own:f", ())
    assert code_digests("fc_own:f") == before
    _edit_in_place(edited, "'1'", "'2'")
    check_trusted("fc_own:f", ())
    assert code_digests("fc_own:f") != before


def test_what_runs_is_the_source_that_is_hashed_not_older_compiled_code() -> None:
    _write({"fc_help.py": "def v(): return 1", "fc_own.py": "from fc_help import v\ndef f(row): return v()"})
    py_compile.compile("fc_help.py")
    _edit_in_place("fc_help.py", "return 1", "return 2")
    check_trusted("fc_own:f", ())
    assert import_function("fc_own:f")({}) == 2


def test_modules_that_changed_since_they_were_imported_are_imported_again() -> None:
    _write({"fc_help.py": "def v(): return 1", "fc_own.py": "from fc_help import v\ndef f(row): return v()"})
    check_trusted("fc_own:f", ())
    assert import_function("fc_own:f")({}) == 1
    _edit_in_place("fc_help.py", "return 1", "return 2")
    check_trusted("fc_own:f", ())
    assert import_function("fc_own:f")({}) == 2


def test_functions_have_only_their_own_dependencies() -> None:
    _write({"fc_help.py": "v = '1'", "fc_own.py": "import fc_help\ndef f(row): return row", "fc_two.py": "def f(r): 0"})
    for path in ("fc_own:f", "fc_two:f"):
        check_trusted(path, ())
    assert [code.name for code in code_files("fc_own:f")] == ["fc_own.py", "fc_help.py"]
    assert [code.name for code in code_files("fc_two:f")] == ["fc_two.py"]


def test_installed_packages_are_no_dependencies() -> None:
    _write({"fc_own.py": "import numpy, json, sftkit\nfrom yaml import safe_load\ndef f(row): return row"})
    check_trusted("fc_own:f", ())
    assert [code.name for code in code_files("fc_own:f")] == ["fc_own.py"]


REFUSED = {
    "os:system": "os belongs to Python or to an installed package",
    "sys:exit": "sys belongs to Python or to an installed package",
    "builtins:exec": "builtins belongs to Python or to an installed package",
    "zipimport:zipimporter": "zipimport belongs to Python or to an installed package",
    "test.test_venv:check_output": "test belongs to Python or to an installed package",
    "test.autotest:x": "test belongs to Python or to an installed package",
    "idlelib.run:exit": "idlelib belongs to Python or to an installed package",
    "numpy:save": "numpy belongs to Python or to an installed package",
    "fc_own:rmtree": "shutil belongs to Python or to an installed package",
    "fc_own:call": "subprocess belongs to Python or to an installed package",
    "fc_none:f": "there is no such module on the import path",
    "fc_own.f:g": "there is no such module on the import path",
    "__main__:f": "worker processes do not import your script",
    "fc own:f": "write it package.module:function",
    "fc_own:f.g": "write it package.module:function",
}


@pytest.mark.parametrize("path", REFUSED)
def test_a_function_that_is_not_the_users_is_refused_before_its_code_runs(path: str) -> None:
    _write({"fc_own.py": "from shutil import rmtree\nfrom functools import partial\nimport subprocess\n"
            "call = partial(subprocess.run)\n", "frozen": "", "built-in": ""})  # fmt: skip
    with pytest.raises(ConfigError, match=REFUSED[path]):
        check_trusted(path, ())
    assert "test.autotest" not in sys.modules


@pytest.mark.parametrize(
    "place", ["outside", "a link", "site-packages", "dist-packages", "pip install --target", "a zip"]
)
def test_modules_elsewhere_and_installed_ones_are_not_imported(
    place: str, project: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    import zipfile

    elsewhere = tmp_path_factory.mktemp("elsewhere")
    folder = {"outside": elsewhere, "a link": elsewhere, "a zip": elsewhere}.get(place, project / "vendor" / place)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "fc_far").mkdir()
    (folder / "fc_far" / "__init__.py").write_text("open('was_run', 'w')")
    (folder / "fc_far" / "m.py").write_text("def f(row): return row")
    if place == "a link":
        (project / "fc_far").symlink_to(elsewhere / "fc_far")
    elif place == "a zip":
        with zipfile.ZipFile(project / "far.zip", "w") as archive:
            archive.write(folder / "fc_far" / "__init__.py", "fc_far/__init__.py")
            archive.write(folder / "fc_far" / "m.py", "fc_far/m.py")
        monkeypatch.syspath_prepend(project / "far.zip")
    else:
        monkeypatch.syspath_prepend(folder)
    if place == "pip install --target":
        (folder / "fc_far-1.dist-info").mkdir()
    with pytest.raises(ConfigError, match="set trust_packages=fc_far"):
        check_trusted("fc_far.m:f", ())
    assert not Path("was_run").exists()
    check_trusted("fc_far.m:f", ("fc_far",))
    assert Path("was_run").exists()


def test_a_module_beside_the_config_is_the_users(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("configs")
    (folder / "fc_beside.py").write_text("def f(row): return row")
    with pytest.raises(ConfigError, match="beside the config; correct its name or its place"):
        check_trusted("fc_beside:f", ())
    check_trusted("fc_beside:f", (), [folder])
    assert import_function("fc_beside:f")({"a": 1}) == {"a": 1}


def test_a_module_that_another_one_has_replaced_is_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    _write({"fc_twice.py": "def f(row): return row"})
    check_trusted("fc_twice:f", ())
    folder = tmp_path_factory.mktemp("other")
    (folder / "fc_twice.py").write_text("def f(row): return row")
    sys.path.insert(0, str(folder))
    with pytest.raises(ConfigError, match=r"was imported from .* instead of .*; give it another name"):
        check_trusted("fc_twice:f", (), [folder])
