from __future__ import annotations

import importlib.util

import pytest
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from sftkit.errors import TrainingError
from sftkit.training.arguments.trackers import TRACKERS, tracker_failure, tracker_problems


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    modules = {module for tracker in TRACKERS.values() for module in tracker.modules}
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name in modules else found(name, *rest)
    )


def test_the_trackers_are_those_of_transformers() -> None:
    assert set(TRACKERS) == set(INTEGRATION_TO_CALLBACK)


@pytest.mark.usefixtures("nothing_installed")
@pytest.mark.parametrize(
    ("report_to", "problems"),
    [
        (None, []),
        ("none", []),
        ("all", []),
        ([], []),
        ("wandb", ["report_to: wandb is not installed; pip install 'sftkit[wandb]'"]),
        (
            ["mlflow", "none", "dvclive"],
            [
                "report_to: mlflow is not installed; pip install 'sftkit[mlflow]'",
                "report_to: dvclive is not installed; it needs dvclive",
            ],
        ),
        ("tensorbord", ["report_to: 'tensorbord' is no tracker; did you mean tensorboard?"]),
        ("aim", ["report_to: Aim is asked for with aim_repo"]),
    ],
)
def test_what_cannot_be_reported_to_is_said_beforehand(report_to: str | list[str] | None, problems: list[str]) -> None:
    assert tracker_problems(report_to) == problems


def test_a_name_like_none_of_them_is_told_all_of_them() -> None:
    [problem] = tracker_problems("xyzzy")
    assert problem.startswith("report_to: 'xyzzy' is no tracker; there are tensorboard, mlflow, trackio, wandb, ")


def test_an_installed_tracker_is_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    here = found("json")
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: here if name == "wandb" else found(name, *rest)
    )
    assert tracker_problems("wandb") == []


def test_an_error_of_a_tracker_is_one_sentence_and_any_other_is_left_alone() -> None:
    class UsageError(Exception):
        pass

    UsageError.__module__ = "wandb.errors.errors"
    failure = tracker_failure(UsageError("No API key\nconfigured."))
    assert isinstance(failure, TrainingError)
    assert str(failure) == "report_to: wandb cannot be written to: No API key configured."
    assert tracker_failure(ValueError("shapes do not match")) is None
