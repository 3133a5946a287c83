"""Learning rates of parameter groups: `embedding_lr` and `learning_rates`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from sftkit.config.commands import TrainConfig
from sftkit.config.loading import load_config
from sftkit.errors import ConfigError, TrainingError, UsageError
from sftkit.shards.reading import open_shards
from sftkit.training.arguments.build_arguments import extra_keys, make_training_arguments
from sftkit.training.optimization.learning_rates import rate_rules
from sftkit.training.optimization.parameter_groups import parameter_groups
from sftkit.training.run import train

from .material import events, logged


def config_of(model: Path, output: Path, *argv: str) -> TrainConfig:
    line = [
        f"--model_name_or_path={model}", f"--output_dir={output}", "--use_cpu=true", "--logging_steps=1",
        "--max_steps=4", "--per_device_train_batch_size=4", "--learning_rate=1e-2", "--save_steps=2", *argv,
    ]  # fmt: skip
    return load_config(TrainConfig, line, extra_keys=extra_keys())


def run(model: Path, shards: Path, output: Path, *argv: str) -> list[float]:
    """Train, and return the losses."""
    config = config_of(model, output, *argv)
    train(config, make_training_arguments(config), open_shards(str(shards)))
    return logged(output, "loss")


@pytest.fixture
def model(model_dir: Path) -> LlamaForCausalLM:
    return LlamaForCausalLM.from_pretrained(model_dir)


def groups_of(config: TrainConfig, model: torch.nn.Module) -> dict[str, tuple[str, float, float]]:
    """Parameter -> name, learning rate and weight decay of its group."""
    decayed = [name for name, _ in model.named_parameters() if "norm" not in name]
    names = {id(values): name for name, values in model.named_parameters()}
    rules = rate_rules(config, model)
    groups = parameter_groups(model.named_parameters(), rules, learning_rate=1e-2, weight_decay=0.1, decayed=decayed)
    return {names[id(p)]: (g["name"], g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}


def test_the_first_pattern_counts_and_weight_decay_stays(tmp_path: Path, model: LlamaForCausalLM) -> None:
    patterns = r"{layers.0.mlp: 1e-3, '(mlp|norm)': 2e-3}"
    config = config_of(tmp_path, tmp_path, f"--learning_rates={patterns}", "--embedding_lr=1e-5")
    model.lm_head.weight.requires_grad_(False)
    found = groups_of(config, model)
    assert found["model.embed_tokens.weight"] == ("embedding_lr", 1e-5, 0.1)
    assert "lm_head.weight" not in found
    assert found["model.layers.0.mlp.up_proj.weight"] == ("layers.0.mlp", 1e-3, 0.1)
    assert found["model.layers.1.mlp.up_proj.weight"] == ("(mlp|norm)", 2e-3, 0.1)
    assert found["model.norm.weight"] == ("(mlp|norm)", 2e-3, 0.0)
    assert found["model.layers.1.self_attn.q_proj.weight"] == ("", 1e-2, 0.1)


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ("{lm_haed: 1}", "learning_rates.lm_haed: no parameter matches; did you mean lm_head"),
        (r"{'layers\.7': 1}", r"learning_rates\.layers\\\.7: no parameter matches; did you mean .*layers"),
        ("{mlp: 1, up_proj: 2}", "learning_rates.up_proj: all its parameters belong to mlp, which is given before"),
        ("{embed_tokens: 1}", "learning_rates.embed_tokens: all parameters that it is for are frozen"),
    ],
)
def test_patterns_without_parameters_are_refused(
    tmp_path: Path, model: LlamaForCausalLM, rates: str, message: str
) -> None:
    model.model.embed_tokens.weight.requires_grad_(False)
    with pytest.raises(TrainingError, match=message):
        rate_rules(config_of(tmp_path, tmp_path, f"--learning_rates={rates}"), model)


def test_a_pattern_with_all_embeddings_contradicts_embedding_lr(tmp_path: Path, model: LlamaForCausalLM) -> None:
    config = config_of(tmp_path, tmp_path, "--embedding_lr=1", "--learning_rates={embed_tokens: 2}")
    model.lm_head.weight = model.model.embed_tokens.weight
    message = "embedding_lr: .*; remove embedding_lr, or the pattern embed_tokens from learning_rates"
    with pytest.raises(ConfigError, match=message):
        rate_rules(config, model)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--learning_rates={mlp: -1}"], "learning_rates.mlp must be 0 or more, not -1"),
        (["--learning_rates={'(mlp': 1}"], r"learning_rates: '\(mlp' is not a regular expression"),
        (["--embedding_lr=1", "--optim=lomo"], "embedding_lr: optim=lomo has one learning rate for all parameters"),
    ],
)
def test_wrong_values_are_refused_before_anything_is_loaded(tmp_path: Path, argv: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_training_arguments(config_of(tmp_path, tmp_path, *argv))


def test_values_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"learning_rates\.mlp must be a number, not 'fast'"):
        config_of(tmp_path, tmp_path, "--learning_rates={mlp: fast}")


def test_each_group_follows_the_schedule_and_a_resumed_run_is_the_same(
    tmp_path: Path, model_dir: Path, shard_dir: Path
) -> None:
    argv = ("--embedding_lr=0", "--learning_rates={mlp: 1e-3}")
    losses = run(model_dir, shard_dir, tmp_path, *argv)
    logs = [event for event in events(tmp_path) if "loss" in event]
    assert [e["learning_rate/mlp"] * 10 for e in logs] == pytest.approx([e["learning_rate"] for e in logs])
    assert [e["learning_rate/embedding_lr"] for e in logs] == [0] * 4
    before, after = (LlamaForCausalLM.from_pretrained(folder).state_dict() for folder in (model_dir, tmp_path))
    same = {name for name in before if before[name].equal(after[name])}
    assert same == {"model.embed_tokens.weight", "lm_head.weight"}
    shutil.rmtree(tmp_path / "checkpoint-4")
    assert run(model_dir, shard_dir, tmp_path, *argv) == losses


def test_equal_rates_change_nothing(tmp_path: Path, model_dir: Path, shard_dir: Path) -> None:
    plain = run(model_dir, shard_dir, tmp_path / "plain")
    assert run(model_dir, shard_dir, tmp_path / "equal", "--learning_rates={mlp: 1e-2}") == plain
    assert run(model_dir, shard_dir, tmp_path / "other", "--learning_rates={mlp: 1e-4}") != plain
