"""Updates that 16-bit weights cannot hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from .test_run import run

SMALL = ("--learning_rate=1e-5", "--lr_scheduler_type=constant", "--max_steps=12", "--save_strategy=no")


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "of the weights changed" in record.getMessage()]


def test_updates_that_bfloat16_loses_are_reported_once(
    tmp_path: Path, model_dir: Path, shard_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(model_dir, shard_dir, tmp_path / "out", *SMALL, "--torch_dtype=bfloat16")
    [warning] = said(caplog)
    assert warning.endswith("Use torch_dtype=float32 with bf16=true, or a higher learning_rate")


@pytest.mark.parametrize("options", [("--bf16=true",), ("--torch_dtype=bfloat16", "--learning_rate=1e-2")])
def test_updates_that_are_kept_are_not(
    tmp_path: Path, model_dir: Path, shard_dir: Path, caplog: pytest.LogCaptureFixture, options: tuple[str, ...]
) -> None:
    run(model_dir, shard_dir, tmp_path / "out", *SMALL, *options)
    assert said(caplog) == []
