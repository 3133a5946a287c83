"""Noise on the embeddings (https://arxiv.org/abs/2310.05914), which the Trainer puts there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from sftkit.config.commands import TrainConfig
from sftkit.config.loading import load_config
from sftkit.shards.reading import open_shards
from sftkit.training.arguments.build_arguments import extra_keys, make_training_arguments
from sftkit.training.run import train


def logged(model: Path, shards: Path, output: Path, *argv: str) -> tuple[list[float], list[float]]:
    """Training losses and validation losses of a run of four steps."""
    line = [
        f"--model_name_or_path={model}", f"--output_dir={output}", "--use_cpu=true", "--logging_steps=1",
        "--max_steps=4", "--per_device_train_batch_size=4", "--eval_strategy=steps", "--eval_steps=2", "--save_steps=2",
        *argv,
    ]  # fmt: skip
    config = load_config(TrainConfig, line, extra_keys=extra_keys())
    train(config, make_training_arguments(config), open_shards(str(shards)))
    events: list[dict[str, Any]] = [
        json.loads(line) for line in (output / "training_logs.jsonl").read_text().splitlines()
    ]
    return [e["loss"] for e in events if "loss" in e], [e["eval_loss"] for e in events if "eval_loss" in e]


def test_training_is_noisy_and_evaluation_is_not(tmp_path: Path, model_dir: Path, shard_dir: Path) -> None:
    still = "--learning_rate=0"
    plain, evaluated = logged(model_dir, shard_dir, tmp_path / "plain", still)
    noisy, evaluated_too = logged(model_dir, shard_dir, tmp_path / "noisy", still, "--neftune_noise_alpha=5")
    assert all(abs(one - other) > 1e-4 for one, other in zip(plain, noisy, strict=True))
    assert evaluated == evaluated_too


def test_a_resumed_run_has_the_noise_it_would_have_had(tmp_path: Path, model_dir: Path, shard_dir: Path) -> None:
    argv = ("--learning_rate=1e-2", "--neftune_noise_alpha=5")
    whole = logged(model_dir, shard_dir, tmp_path, *argv)
    shutil.rmtree(tmp_path / "checkpoint-4")
    assert logged(model_dir, shard_dir, tmp_path, *argv, "--resume_from_checkpoint=true") == whole
