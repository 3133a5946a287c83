from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

import pytest

from sftkit.training.metrics.loss_curve import Curve, draw_curve, read_curves

EVENTS = [
    {"step": 10, "epoch": 0.1, "loss": 3.0, "learning_rate": 1e-5},
    {"step": 20, "epoch": 0.2, "loss": 2.5},
    {"step": 20, "epoch": 0.2, "eval_loss": 2.75, "eval_runtime": 1.0},
    {"step": 30, "epoch": 0.3, "loss": None},
    {"step": 40, "epoch": 0.4, "loss": 2},
    {"step": 40, "epoch": 0.4, "train_runtime": 9.0, "train_loss": 2.5},
]


def write(path: Path, events: list[Any], tail: str = "") -> Path:
    path.write_text("".join(f"{json.dumps(event)}\n" for event in events) + tail, encoding="utf-8")
    return path


def points(curves: list[Curve]) -> dict[str, list[tuple[int, float]]]:
    return {curve.name: list(zip(curve.steps, curve.losses, strict=True)) for curve in curves}


def test_losses_are_read_from_the_log_and_invalid_lines_are_skipped(tmp_path: Path) -> None:
    log = write(tmp_path / "log.jsonl", [*EVENTS, 7, None, {"loss": 1.0}], '{"step": 50, "lo')
    assert points(read_curves(log)) == {
        "training loss": [(10, 3.0), (20, 2.5), (40, 2.0)],
        "validation loss": [(20, 2.75)],
    }


def test_the_picture_is_a_png_and_identical_for_the_same_log(tmp_path: Path) -> None:
    log = write(tmp_path / "log.jsonl", EVENTS)
    pictures = [tmp_path / "one.png", tmp_path / "two.png"]
    assert [draw_curve(log, picture) for picture in pictures] == [True, True]
    content = pictures[0].read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", content[16:24]) == (960, 540)
    assert content == pictures[1].read_bytes()


def test_another_loss_gives_another_picture(tmp_path: Path) -> None:
    without = [event for event in EVENTS if "eval_loss" not in event]
    draw_curve(write(tmp_path / "one.jsonl", EVENTS), tmp_path / "one.png")
    draw_curve(write(tmp_path / "two.jsonl", without), tmp_path / "two.png")
    assert (tmp_path / "one.png").read_bytes() != (tmp_path / "two.png").read_bytes()


@pytest.mark.parametrize("events", [None, [], [{"step": 3, "train_runtime": 1.0}], [{"step": 1, "loss": None}]])
def test_a_log_without_losses_gives_no_picture(tmp_path: Path, events: list[Any] | None) -> None:
    log = tmp_path / "log.jsonl"
    if events is not None:
        write(log, events)
    assert draw_curve(log, tmp_path / "curve.png") is False
    assert not (tmp_path / "curve.png").exists()


def test_losses_that_are_not_finite_are_skipped(tmp_path: Path) -> None:
    log = write(tmp_path / "log.jsonl", [{"step": 1, "loss": math.nan}, {"step": 2, "loss": math.inf}, EVENTS[0]])
    assert points(read_curves(log))["training loss"] == [(10, 3.0)]
