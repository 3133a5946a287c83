"""The files that go with a recipe to other machines."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sftkit.errors import TokenizerError
from sftkit.preprocessing.recipe_bundle import _unpack

FILES = {"tokenizer/tokenizer.json": b"{}", "modules/mine.py": b"x = 1\n"}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    return tmp_path / f"sftkit-{os.getuid()}"


def test_missing_files_are_written_again_and_others_stay(home: Path) -> None:
    folder = _unpack(FILES)
    assert {name: (folder / name).read_bytes() for name in FILES} == FILES
    (folder / "modules" / "mine.py").unlink()
    (folder / "notes.txt").write_text("precious")
    assert _unpack(FILES) == folder
    assert (folder / "modules" / "mine.py").read_bytes() == b"x = 1\n"
    assert (folder / "notes.txt").read_text() == "precious"
    assert not [path for path in folder.rglob("*") if path.suffix == ".tmp"]


@pytest.mark.parametrize("kind", ["link", "open to all"])
def test_a_directory_of_others_or_a_link_is_refused(home: Path, tmp_path: Path, kind: str) -> None:
    if kind == "link":
        (tmp_path / "private").mkdir()
        home.symlink_to(tmp_path / "private", target_is_directory=True)
    else:
        home.mkdir()
        home.chmod(0o777)
    with pytest.raises(TokenizerError, match="is not a directory that this user alone can write to; set TMPDIR"):
        _unpack(FILES)
    assert not (tmp_path / "private").exists() or not any((tmp_path / "private").iterdir())
