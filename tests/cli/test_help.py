"""`--help` on narrow and wide terminals: whole names, types, defaults, and groups."""

from __future__ import annotations

import re
from typing import Any

import pytest

from reliability.material import sftkit
from sftkit.cli.options import options_of
from sftkit.config.commands import InspectConfig, PreprocessConfig, TrainConfig
from sftkit.training.arguments.build_arguments import training_argument_fields
from sftkit.training.arguments.usual_arguments import USUAL_ARGUMENTS

GROUPS = [
    *("Preview", "Data", "Tokenizer", "Rows", "Output", "Training", "Evaluation", "Model", "Batches", "Adapters"),
    *("Tracking", "Run"),
]  # fmt: skip
SCHEMAS = {"preprocess": PreprocessConfig, "inspect-shards": InspectConfig, "train": TrainConfig}


def shown(monkeypatch: pytest.MonkeyPatch, *arguments: str, columns: int = 80) -> str:
    monkeypatch.setenv("COLUMNS", str(columns))
    done = sftkit(*arguments)
    assert (done.code, done.err) == (0, "")
    return done.out


def options_in(text: str) -> dict[str, str]:
    """Name -> kind of each option in a help text."""
    return dict(re.findall(r"^  --(\S+) (TEXT \.\.\.|[A-Z|]+)", text, re.MULTILINE))


@pytest.mark.parametrize("columns", [60, 80, 120, 200])
@pytest.mark.parametrize(("command", "schema"), SCHEMAS.items())
def test_every_key_is_whole_at_any_width(
    monkeypatch: pytest.MonkeyPatch, command: str, schema: type[Any], columns: int
) -> None:
    text = shown(monkeypatch, command, "--help", columns=columns)
    missing = [option.name for option in options_of(schema) if option.shown_name not in options_in(text)]
    assert (missing, "…" in text) == ([], False)
    long = [line for line in text.splitlines() if len(line) > columns and not line.startswith(("Usage", "  sftkit "))]
    assert long == []


def test_an_option_has_its_type_meaning_and_default(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(monkeypatch, "preprocess", "--help")
    assert (
        "  --chat_template_path TEXT   File with the chat template. Key:\n"
        "                              dataprocessor.chat_template_path.\n"
    ) in text
    assert (
        "  --training_data_path TEXT ...\n"
        "                              Training data if there is no data config: files,\n"
    ) in text
    assert (
        "  --num_dataset_shards INTEGER\n                              Number of training shards. Default: 1.\n" in text
    )


def test_the_groups_come_in_the_order_of_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def groups(command: str) -> list[str]:
        lines = shown(monkeypatch, command, "--help").splitlines()
        return [line for line in lines if line in GROUPS]

    assert groups("preprocess") == ["Data", "Tokenizer", "Rows", "Output", "Run"]
    assert groups("inspect-shards") == ["Preview", "Data", "Tokenizer", "Rows", "Run"]
    assert groups("train") == GROUPS[1:]


def test_help_of_train_shows_twenty_arguments_of_the_trainer_and_help_all_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    usual, everything = (options_in(shown(monkeypatch, "train", flag)) for flag in ("--help", "--help_all"))
    own = {option.shown_name for option in options_of(TrainConfig)}
    assert len(USUAL_ARGUMENTS) == 20
    assert set(usual) == own | set(USUAL_ARGUMENTS)
    assert set(everything) == own | set(training_argument_fields())
    assert "sftkit train --help_all shows all of them" in " ".join(shown(monkeypatch, "train", "--help").split())


def test_arguments_of_the_trainer_have_their_types_and_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(monkeypatch, "train", "--help_all", columns=120)
    kinds = options_in(text)
    assert [kinds[name] for name in ("learning_rate", "max_steps", "bf16", "optim", "warmup_steps")] == [
        "NUMBER", "INTEGER", "BOOL", "TEXT", "NUMBER",
    ]  # fmt: skip
    assert (kinds["lr_scheduler_kwargs"], kinds["label_names"], kinds["hub_token"]) == ("KEYS|TEXT", "TEXT ...", "TEXT")
    described = " ".join(text.split())
    assert "Highest learning rate. Default: 5e-05." in described
    assert "Number of steps between log events; below 1, a fraction of the run. Default: 10." in described  # not 500
    assert "adamw_torch_4bit, adamw_torch_8bit" in described
    assert "adamw_torch_4bit" not in shown(monkeypatch, "train", "--help")


@pytest.mark.parametrize("command", [[], *([name] for name in SCHEMAS)])
def test_h_is_help(monkeypatch: pytest.MonkeyPatch, command: list[str]) -> None:
    assert shown(monkeypatch, *command, "-h") == shown(monkeypatch, *command, "--help")


def test_h_is_help_after_other_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, "train", "--learning_rate", "1", "-h").startswith("Usage: ")
    assert shown(monkeypatch, "preprocess", "--help-all") == shown(monkeypatch, "preprocess", "--help")
