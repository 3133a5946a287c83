"""`optim=muon`: Muon for hidden matrices, AdamW for everything else, as one optimizer."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaForCausalLM

from sftkit.errors import ConfigError
from sftkit.training.arguments.checks.muon_settings import muon_settings
from sftkit.training.arguments.checks.optimizer_checks import optimizer_problems
from sftkit.training.optimization.muon import MuonWithAdamW, hidden_matrices

from .material import logged
from .test_run import prepared, run

LINE = (
    *("--optim=muon", "--max_steps=4", "--per_device_train_batch_size=4", "--learning_rate=1e-2", "--save_steps=2"),
    *("--weight_decay=0.1", "--learning_rates={mlp: 1e-3}"),
)


@pytest.fixture
def model(model_dir: Path) -> LlamaForCausalLM:
    return LlamaForCausalLM.from_pretrained(model_dir)


def test_matrices_are_those_of_hidden_layers(model: LlamaForCausalLM) -> None:
    chosen = hidden_matrices(model)
    names = {name for name, values in model.named_parameters() if id(values) in chosen}
    assert {name.split(".")[-2] for name in names} == {
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    }  # fmt: skip
    assert len(names) == 14


def test_a_step_is_that_of_both_optimizers(model: LlamaForCausalLM, model_dir: Path) -> None:
    other = LlamaForCausalLM.from_pretrained(model_dir)
    ids = torch.arange(12)[None]
    for each in (model, other):
        each(input_ids=ids, labels=ids).loss.backward()
    chosen = hidden_matrices(model)
    group = {"params": list(model.parameters()), "lr": 0.01, "weight_decay": 0.1, "name": ""}
    MuonWithAdamW([group], lr=0.01, matrices=chosen, betas=(0.9, 0.95), eps=1e-8, adjust_lr_fn="original").step()
    matrices = hidden_matrices(other)
    parts = ([p for p in other.parameters() if (id(p) in matrices) is wanted] for wanted in (True, False))
    torch.optim.Muon(next(parts), lr=0.01, weight_decay=0.1, adjust_lr_fn="original").step()
    torch.optim.AdamW(next(parts), lr=0.01, weight_decay=0.1, betas=(0.9, 0.95), eps=1e-8).step()
    assert all(one.equal(two) for one, two in zip(model.parameters(), other.parameters(), strict=True))


def test_a_run_learns_and_a_resumed_run_is_the_same(tmp_path: Path, model_dir: Path, shard_dir: Path) -> None:
    report = run(model_dir, shard_dir, tmp_path, *LINE)
    losses = logged(tmp_path, "loss")
    weights = load_file(tmp_path / "model.safetensors")
    assert losses[-1] < losses[0]
    rates = logged(tmp_path, "learning_rate/mlp")
    assert [10 * rate for rate in rates] == pytest.approx(logged(tmp_path, "learning_rate"))
    shutil.rmtree(tmp_path / "checkpoint-4")
    assert run(model_dir, shard_dir, tmp_path, *LINE).last_loss == report.last_loss
    assert logged(tmp_path, "loss") == losses
    assert all(values.equal(weights[name]) for name, values in load_file(tmp_path / "model.safetensors").items())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("speed=2", "optim_args: muon has no 'speed'; use momentum, nesterov, ns_steps, adjust_lr_fn"),
        ("momentum=x", "optim_args: momentum must be a number, not 'x'"),
        ("momentum=5", "optim_args: momentum must be at least 0 and less than 1, not 5"),
        ("momentum=-0.1", "optim_args: momentum must be at least 0 and less than 1, not -0.1"),
        ("nesterov=perhaps", "optim_args: nesterov must be true or false, not 'perhaps'"),
        ("ns_steps=few", "optim_args: ns_steps must be a whole number from 1 to 99, not 'few'"),
        ("ns_steps=0", "optim_args: ns_steps must be a whole number from 1 to 99, not '0'"),
        ("adjust_lr_fn=fast", "optim_args: adjust_lr_fn must be match_rms_adamw or original, not 'fast'"),
    ],
)
def test_settings_that_cannot_be_used_are_refused_before_anything_is_loaded(
    tmp_path: Path, given: str, message: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        prepared(tmp_path / "no_model", tmp_path / "out", "--optim=muon", f"--optim_args={given}")
    assert str(raised.value) == message


def test_a_run_that_trains_no_matrix_is_refused(tmp_path: Path, model_dir: Path, shard_dir: Path) -> None:
    with pytest.raises(ConfigError, match="optim=muon is for hidden matrices, and none is trained; use optim=adamw_"):
        run(model_dir, shard_dir, tmp_path / "out", "--optim=muon", "--max_steps=1", "--freeze=layers")


def test_divided_matrices_are_refused(tmp_path: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, arguments = prepared(model_dir, tmp_path / "out", "--optim=muon")
    assert list(optimizer_problems(config, arguments)) == []
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    [problem] = optimizer_problems(config, arguments)
    assert problem.startswith("optim=muon computes with whole matrices, which FSDP and DeepSpeed divide")


def test_the_defaults_take_the_rates_of_adamw() -> None:
    assert muon_settings(None) == {"adjust_lr_fn": "match_rms_adamw"}
