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


def test_the_known_trackers_are_those_of_transformers() -> None:
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
                "report_to: dvclive is not installed; install dvclive",
            ],
        ),
        ("tensorbord", ["report_to: unknown tracker 'tensorbord'; did you mean tensorboard?"]),
        ("aim", ["report_to: to log to Aim, set aim_repo"]),
    ],
)
def test_report_to_is_checked_before_anything_is_imported(
    report_to: str | list[str] | None, problems: list[str]
) -> None:
    assert tracker_problems(report_to) == problems


def test_an_unknown_name_without_a_near_match_lists_all_trackers() -> None:
    [problem] = tracker_problems("xyzzy")
    assert problem.startswith("report_to: unknown tracker 'xyzzy'; use one of tensorboard, mlflow, trackio, wandb, ")


def test_an_installed_tracker_is_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    spec = found("json")
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: spec if name == "wandb" else found(name, *rest)
    )
    assert tracker_problems("wandb") == []


def test_errors_of_trackers_become_one_sentence_and_others_are_not_touched() -> None:
    class UsageError(Exception):
        pass

    UsageError.__module__ = "wandb.errors.errors"
    failure = tracker_failure(UsageError("No API key\nconfigured."))
    assert isinstance(failure, TrainingError)
    assert str(failure) == "report_to: cannot write to wandb: No API key configured."
    assert tracker_failure(ValueError("shapes do not match")) is None
