"""Updates that 16-bit weights cannot hold."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sftkit.training.arguments.checks.optimizer_checks import keeps_small_updates

from .test_run import run

SMALL = ("--learning_rate=1e-5", "--lr_scheduler_type=constant", "--max_steps=12", "--save_strategy=no")


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "of the weights changed" in record.getMessage()]


def test_updates_that_bfloat16_loses_are_reported_once(
    tmp_path: Path, model_dir: Path, shard_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(model_dir, shard_dir, tmp_path / "out", *SMALL, "--torch_dtype=bfloat16")
    [warning] = said(caplog)
    assert warning.endswith("Use torch_dtype=float32 with bf16=true, optim=stable_adamw, or a higher learning_rate")


@pytest.mark.parametrize("options", [("--bf16=true",), ("--torch_dtype=bfloat16", "--learning_rate=1e-2")])
def test_updates_that_are_kept_are_not(
    tmp_path: Path, model_dir: Path, shard_dir: Path, caplog: pytest.LogCaptureFixture, options: tuple[str, ...]
) -> None:
    run(model_dir, shard_dir, tmp_path / "out", *SMALL, *options)
    assert said(caplog) == []


@pytest.mark.parametrize(
    ("optim", "optim_args", "kept"),
    [
        ("stable_adamw", None, True),
        ("adamw_torch", None, False),
        ("adamw_torch_8bit", "block_size=256, bf16_stochastic_round=true", True),
        ("adamw_torch_8bit", "block_size=256", False),
        ("adamw_anyprecision", "use_kahan_summation=False", False),
    ],
)
def test_optimizers_that_keep_small_updates_are_known(optim: str, optim_args: str | None, kept: bool) -> None:
    arguments: Any = SimpleNamespace(optim=optim, optim_args=optim_args)
    assert keeps_small_updates(arguments) is kept
