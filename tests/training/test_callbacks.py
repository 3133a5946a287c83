from __future__ import annotations

import json
import math
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from sftkit.errors import OutputError, TrainingError
from sftkit.training.callbacks.listener import SilentListener
from sftkit.training.callbacks.logs import JsonLinesFile, JsonLinesLogger, StepReporter, make_aim_logger

ARGUMENTS = TrainingArguments(output_dir="out", use_cpu=True)


def state(step: int, *, main: bool = True) -> TrainerState:
    return TrainerState(global_step=step, epoch=step / 10, is_world_process_zero=main)


def events(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_log_event_is_one_line_and_one_call_of_the_listener(tmp_path: Path) -> None:
    received: list[Any] = []
    log = JsonLinesLogger(tmp_path / "new" / "logs.jsonl", received.append)
    log.on_train_begin(ARGUMENTS, state(0), TrainerControl())
    log.on_log(ARGUMENTS, state(1), TrainerControl(), logs={"loss": 1 / 3, "epoch": 0.1})
    log.on_log(ARGUMENTS, state(2), TrainerControl(), logs={"loss": math.nan, "grad_norm": math.inf})
    assert events(tmp_path / "new" / "logs.jsonl") == received == [
        {"step": 1, "epoch": 0.1, "loss": 0.3333333333333333},
        {"step": 2, "epoch": 0.2, "loss": None, "grad_norm": None},
    ]  # fmt: skip
    assert list(received[0]) == ["step", "epoch", "loss"]


def test_a_new_run_replaces_the_log_and_a_resumed_run_continues_it(tmp_path: Path) -> None:
    path = tmp_path / "logs.jsonl"
    path.write_text('{"step": 1, "loss": 3}\n{"step": 2, "loss": 2}\n{"step": 3, "loss": 1}\n{"step": 4, "lo')
    resumed = JsonLinesLogger(path, SilentListener().on_log)
    resumed.on_train_begin(ARGUMENTS, state(2), TrainerControl())
    resumed.on_log(ARGUMENTS, state(3), TrainerControl(), logs={"loss": 0.5})
    assert [(event["step"], event["loss"]) for event in events(path)] == [(1, 3), (2, 2), (3, 0.5)]
    JsonLinesLogger(path, SilentListener().on_log).on_train_begin(ARGUMENTS, state(0), TrainerControl())
    assert path.read_text() == ""


def test_only_the_main_process_writes_the_log(tmp_path: Path) -> None:
    log = JsonLinesLogger(tmp_path / "logs.jsonl", SilentListener().on_log)
    log.on_train_begin(ARGUMENTS, state(0, main=False), TrainerControl())
    log.on_log(ARGUMENTS, state(1, main=False), TrainerControl(), logs={"loss": 1.0})
    assert not (tmp_path / "logs.jsonl").exists()


def test_a_log_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    log = JsonLinesLogger(tmp_path / "file" / "logs.jsonl", SilentListener().on_log)
    with pytest.raises(OutputError, match=r"logs\.jsonl: cannot be written"):
        log.on_train_begin(ARGUMENTS, state(0), TrainerControl())


def test_unicode_line_separators_do_not_split_lines_of_the_log(tmp_path: Path) -> None:
    file = JsonLinesFile(tmp_path / "samples.jsonl")
    file.begin(0)
    kept = [{"step": step, "answer": "a\u2028b\x85c\nd\x1b[2J ä"} for step in (1, 2)]
    for event in (*kept, {"step": 3}):
        file.append(event)
    file.begin(2)
    assert [json.loads(line) for line in file.path.read_text(encoding="utf-8").split("\n")[:-1]] == kept
    assert "ä" in file.path.read_text(encoding="utf-8")
    assert "\x1b" not in file.path.read_text(encoding="utf-8")


def test_steps_are_reported_from_the_one_at_which_the_run_begins() -> None:
    class Steps(SilentListener):
        def __init__(self) -> None:
            self.received: list[tuple[int, int]] = []

        def on_step(self, step: int, max_steps: int) -> None:
            self.received.append((step, max_steps))

    steps = Steps()
    report = StepReporter(steps)
    report.on_train_begin(ARGUMENTS, TrainerState(global_step=7, max_steps=9), TrainerControl())
    report.on_step_end(ARGUMENTS, TrainerState(global_step=8, max_steps=9), TrainerControl())
    report.on_step_end(ARGUMENTS, state(8, main=False), TrainerControl())
    assert steps.received == [(7, 9), (8, 9)]


def test_how_many_steps_there_are_is_reported_at_the_start() -> None:
    class Notes(SilentListener):
        def __init__(self) -> None:
            self.received: list[str] = []

        def on_note(self, sentence: str) -> None:
            self.received.append(sentence)

    notes = Notes()
    report = StepReporter(notes)
    begin = {"control": TrainerControl(), "train_dataloader": range(1000)}
    report.on_train_begin(ARGUMENTS, TrainerState(max_steps=3000), **begin)
    report.on_train_begin(ARGUMENTS, TrainerState(global_step=7, max_steps=3000), **begin)
    report.on_train_begin(ARGUMENTS, TrainerState(max_steps=3000, is_world_process_zero=False), **begin)
    assert notes.received == [
        "steps: 3,000 in all (1,000 an epoch, 3 epochs)",
        "steps: 3,000 in all (1,000 an epoch, 3 epochs), 7 of them done before",
    ]


class FakeRun(dict[str, Any]):
    """A stand-in for aim.Run."""

    def __init__(self, repo: str, experiment: str | None) -> None:
        super().__init__()
        if repo == "broken":
            raise RuntimeError("cannot\nopen")
        self.made_with = (repo, experiment)
        self.tracked: list[Any] = []

    def track(self, value: float, name: str, step: int, epoch: float, context: dict[str, str]) -> None:
        self.tracked.append((name, value, step, context["subset"]))

    def close(self) -> None:
        self.tracked.append("closed")


@pytest.fixture
def fake_aim(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("aim")
    module.Run = FakeRun
    monkeypatch.setitem(sys.modules, "aim", module)


@pytest.mark.usefixtures("fake_aim")
def test_aim_tracks_every_number() -> None:
    log = make_aim_logger("repo", "experiment")
    assert log is not None
    log.on_train_begin(ARGUMENTS, state(0), TrainerControl())
    log.on_log(ARGUMENTS, state(5), TrainerControl(), logs={"loss": 1.5, "eval_loss": 2.5, "note": "text"})
    log.close()
    assert log._run.made_with == ("repo", "experiment")
    assert log._run["hparams"]["output_dir"] == "out"
    assert log._run.tracked == [("loss", 1.5, 5, "train"), ("loss", 2.5, 5, "eval"), "closed"]


@pytest.mark.usefixtures("fake_aim")
def test_an_aim_repository_that_cannot_be_opened_is_named() -> None:
    with pytest.raises(TrainingError, match="aim_repo: broken cannot be opened: cannot open"):
        make_aim_logger("broken", None)


def test_a_missing_aim_gives_a_warning_only_if_a_repository_is_set(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "aim", None)
    assert make_aim_logger("", "experiment") is None
    assert make_aim_logger(None, None) is None
    assert caplog.records == []
    assert make_aim_logger("repo", None) is None
    assert [record.message for record in caplog.records] == [
        "aim_repo is set, but Aim is not installed (pip install 'sftkit[aim]'): nothing is logged to it"
    ]
