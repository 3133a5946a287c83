"""NEFTune (https://arxiv.org/abs/2310.05914): the Trainer adds noise to the embeddings."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from sftkit.config.commands import TrainConfig
from sftkit.config.loading import load_config
from sftkit.core.rows import Ragged, lengths_to_offsets
from sftkit.shards.reading import open_shards
from sftkit.training.arguments.build_arguments import extra_keys, make_training_arguments
from sftkit.training.data.collation import Collator, FlatCollator, PaddingCollator
from sftkit.training.data.rows.row_groups import TokenSequences
from sftkit.training.models.embedding_noise import EmbeddingNoise
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


@pytest.mark.parametrize("collate", [FlatCollator(), PaddingCollator(trim_head=False, pad_token_id=0)])
def test_the_noise_of_a_sequence_depends_on_its_own_length(collate: Collator) -> None:
    lengths, size, alpha = (4, 100, 25), 64, 5.0
    values = Ragged(np.ones(sum(lengths), np.int32), lengths_to_offsets(np.array(lengths)))
    batch = collate([TokenSequences(values, values)])
    embeddings = torch.nn.Embedding(2, size)
    torch.nn.init.zeros_(embeddings.weight)
    noise = EmbeddingNoise(alpha, SimpleNamespace(get_input_embeddings=lambda: embeddings))
    noise.prepare(batch)
    found = embeddings(batch["input_ids"]).detach()
    starts = np.cumsum([0, *lengths])
    for index, length in enumerate(lengths):
        own = found[index, :length] if len(found) > 1 else found[0, starts[index] : starts[index + 1]]
        bound = alpha / math.sqrt(length * size)
        assert 0.97 * bound < own.abs().max() <= bound
        assert own.std() == pytest.approx(bound / math.sqrt(3), rel=0.1)
    embeddings.eval()
    assert not embeddings(batch["input_ids"]).any()
