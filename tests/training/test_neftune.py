"""NEFTune (https://arxiv.org/abs/2310.05914): the Trainer adds noise to the embeddings."""

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


def losses(model: Path, shards: Path, output: Path, *argv: str) -> tuple[list[float], list[float]]:
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


def test_noise_is_added_in_training_and_not_in_evaluation(tmp_path: Path, model_dir: Path, shard_dir: Path) -> None:
    constant = "--learning_rate=0"
    plain, evaluated = losses(model_dir, shard_dir, tmp_path / "plain", constant)
    noisy, evaluated_with_noise = losses(model_dir, shard_dir, tmp_path / "noisy", constant, "--neftune_noise_alpha=5")
    assert all(abs(one - other) > 1e-4 for one, other in zip(plain, noisy, strict=True))
    assert evaluated == evaluated_with_noise


def test_a_resumed_run_has_the_noise_of_an_uninterrupted_one(tmp_path: Path, model_dir: Path, shard_dir: Path) -> None:
    argv = ("--learning_rate=1e-2", "--neftune_noise_alpha=5")
    expected = losses(model_dir, shard_dir, tmp_path, *argv)
    shutil.rmtree(tmp_path / "checkpoint-4")
    assert losses(model_dir, shard_dir, tmp_path, *argv, "--resume_from_checkpoint=true") == expected
