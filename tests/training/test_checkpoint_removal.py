"""What is removed with a checkpoint: its own files, and nothing behind a link."""

from __future__ import annotations

from pathlib import Path

import pytest

from sftkit.training.checkpoints.seal import (
    RunState,
    begin_checkpoint,
    delete_old_checkpoints,
    read_seal,
    seal_checkpoint,
)
from sftkit.training.data.work_counts import WorkCounts

IDENTITY = {"seed": 1}
STATE = RunState(0.0, 0, 0.0, WorkCounts())


def checkpoint(folder: Path, step: int, *, sealed: bool = True) -> Path:
    place = folder / f"checkpoint-{step}"
    begin_checkpoint(place)
    (place / "global_step").mkdir()
    for name in ("trainer_state.json", "global_step/optimizer.pt"):
        (place / name).write_text("{}")
    if sealed:
        seal_checkpoint(place, IDENTITY, STATE, resumable=True)
    return place


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_old_and_unfinished_checkpoints_are_removed(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        checkpoint(tmp_path, step)
    checkpoint(tmp_path, 4, sealed=False)
    delete_old_checkpoints(tmp_path, 1, IDENTITY, None)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-3"]


def test_a_file_of_others_in_a_checkpoint_stays(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    old = checkpoint(tmp_path, 1)
    (old / "notes.txt").write_text("precious")
    (old / "global_step" / "plots").mkdir()
    (old / "link").symlink_to(tmp_path)
    checkpoint(tmp_path, 2)
    delete_old_checkpoints(tmp_path, 1, IDENTITY, None)
    assert read_seal(old) is None
    assert names(old) == ["link", "notes.txt", "sftkit_unfinished"]
    assert "files that do not belong to this checkpoint stay there" in caplog.text
    delete_old_checkpoints(tmp_path, 1, IDENTITY, None)
    assert (old / "notes.txt").read_text() == "precious"


@pytest.mark.parametrize("sealed", [True, False])
def test_a_checkpoint_that_is_a_link_is_left_alone(tmp_path: Path, sealed: bool) -> None:
    (tmp_path / "archive").mkdir()
    (tmp_path / "run").mkdir()
    archived = checkpoint(tmp_path / "archive", 1, sealed=sealed)
    before = names(archived)
    (tmp_path / "run" / "checkpoint-1").symlink_to(archived, target_is_directory=True)
    checkpoint(tmp_path / "run", 2)
    delete_old_checkpoints(tmp_path / "run", 1, IDENTITY, None)
    assert names(archived) == before
    begin_checkpoint(tmp_path / "run" / "checkpoint-1")
    assert names(archived) == before
    assert (tmp_path / "run" / "kept-1-checkpoint-1").is_symlink()
    assert names(tmp_path / "run" / "checkpoint-1") == ["sftkit_unfinished"]


@pytest.mark.parametrize("name", ["thesis/chapter.tex", "trainer_state.json", "sftkit_checkpoint.json"])
def test_what_is_no_checkpoint_of_ours_is_moved_away(tmp_path: Path, name: str) -> None:
    for number in (1, 2):
        path = tmp_path / "checkpoint-5" / name
        path.parent.mkdir(parents=True)
        path.write_text(f"precious {number}")
        (tmp_path / "checkpoint-5" / "more").write_text("precious")
        begin_checkpoint(tmp_path / "checkpoint-5")
        kept = tmp_path / f"kept-{number}-checkpoint-5"
        assert (kept / "more").read_text() == "precious"
        assert any(each.read_text() == f"precious {number}" for each in kept.rglob("*") if each.is_file())
        assert names(tmp_path / "checkpoint-5") == ["sftkit_unfinished"]
        delete_old_checkpoints(tmp_path, 1, IDENTITY, None)


def test_a_seal_of_a_stranger_names_no_file_outside(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    old = checkpoint(tmp_path, 1)
    seal = old / "sftkit_checkpoint.json"
    seal.write_text(seal.read_text().replace('"files": {', '"files": {"../precious": 8,'))
    checkpoint(tmp_path, 2)
    delete_old_checkpoints(tmp_path, 1, IDENTITY, None)
    assert (tmp_path / "precious").read_text() == "precious"
    assert not old.exists()
