"""Extensions of installed packages: how they are found, and what is refused."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from plugins_support import install_plugin, run_sftkit
from sftkit.config.binding import Problem, bind_config
from sftkit.config.schema.shared_options import DataOptions
from sftkit.core.plugins import Registry, find_plugins, plugin_packages
from sftkit.errors import ConfigError

TOYS = """
class Shout:
    pass
"""
BUILT_IN = {"whisper": str}


@pytest.fixture(autouse=True)
def _fresh_caches() -> Iterator[None]:
    find_plugins.cache_clear()
    yield
    find_plugins.cache_clear()
    sys.modules.pop("toys", None)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return install_plugin(tmp_path / "site", TOYS, {"sftkit.toys": {"shout": "Shout"}, "other": {"x": "Shout"}})


def test_plugins_are_found_without_importing_them_and_loaded_by_name(installed: Path) -> None:
    assert list(find_plugins("toys")) == ["shout"]
    registry: Registry[type] = Registry("toys", BUILT_IN)
    assert "shout" in registry
    assert "x" not in registry
    assert list(registry) == ["whisper", "shout"]
    assert "toys" not in sys.modules
    assert registry["shout"].__name__ == "Shout"
    assert plugin_packages()["toys"] == "1.0"


def test_a_plugin_with_the_name_of_a_built_in_is_refused(installed: Path) -> None:
    registry: Registry[type] = Registry("toys", {"shout": str})
    with pytest.raises(ConfigError, match=r"the package toys registers 'shout' as sftkit.toys, which is the name of"):
        _ = registry["shout"]


def test_two_plugins_with_one_name_are_refused(installed: Path) -> None:
    install_plugin(installed, TOYS, {"sftkit.toys": {"shout": "Shout"}}, name="more_toys")
    with pytest.raises(ConfigError, match=r"packages (toys and more_toys|more_toys and toys) both register 'shout'"):
        find_plugins("toys")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("raise OSError('no speaker')", "cannot be loaded from toys:Shout: it raised OSError: no speaker"),
        ("", "cannot be loaded from toys:Shout: module 'toys' has no attribute"),
        ("Shout = 3", "'shout' of the package toys is not a class"),
    ],
)
def test_a_plugin_that_cannot_be_used_is_refused_with_its_package(installed: Path, source: str, message: str) -> None:
    (installed / "toys.py").write_text(source)
    registry: Registry[type] = Registry(
        "toys", {}, lambda loaded: None if isinstance(loaded, type) else "is not a class"
    )
    with pytest.raises(ConfigError, match=message):
        _ = registry["shout"]


def test_the_identity_of_a_plugin_changes_with_its_source_and_its_version(installed: Path) -> None:
    registry: Registry[type] = Registry("toys", BUILT_IN)
    assert registry.identity("whisper") is None
    first = registry.identity("shout")
    (installed / "toys.py").write_text(TOYS + "# changed")
    second = registry.identity("shout")
    assert first is not None
    assert second is not None
    assert first[:2] == second[:2] == ["toys", "1.0"]
    assert first[2] != second[2]


def test_a_config_accepts_the_names_of_plugins_and_lists_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    install_plugin(tmp_path, "raise OSError", {"sftkit.packing": {"pairs": "Pairs"}})
    problems: list[Problem] = []
    config = bind_config(DataOptions, {"packing": "pairs"}, problems)
    assert config is not None
    assert (config.packing, problems) == ("pairs", [])
    assert bind_config(DataOptions, {"packing": "triples"}, problems) is None
    message = "packing must be one of none, bfd, bfd_split, next_fit, wrapped, pairs, not 'triples'"
    assert [each.message for each in problems] == [message]


def test_help_imports_no_plugin(tmp_path: Path) -> None:
    groups = ("handlers", "packing", "formats", "train_on")
    points = {f"sftkit.{group}": {"toy": "Toy"} for group in groups}
    site = install_plugin(tmp_path, f"open({str(tmp_path / 'imported')!r}, 'w').close()", points)
    done = run_sftkit(site, "preprocess", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert not (tmp_path / "imported").exists()
