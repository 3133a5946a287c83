"""Checkpoints of models whose saved weights have other names than those in memory, as experts do."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, MixtralConfig, MixtralForCausalLM, set_seed

from sftkit.errors import TrainingError
from sftkit.training.checkpoints.saved_weights import load_converted_weights, saved_names

from .test_run import run


def mixture(rows: int = 300) -> MixtralForCausalLM:
    set_seed(1)
    return MixtralForCausalLM(
        MixtralConfig(
            vocab_size=rows, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=2, num_local_experts=4, bos_token_id=None, eos_token_id=1,
        )
    )  # fmt: skip


@pytest.mark.parametrize("shard_size", ["1GB", "40KB"])
def test_experts_are_loaded_into_their_stack(tmp_path: Path, shard_size: str) -> None:
    saved, model = mixture(), mixture()
    with torch.no_grad():
        for values in saved.parameters():
            values.add_(1)
    saved.save_pretrained(tmp_path, max_shard_size=shard_size)
    assert any(".experts.3." in name for name in saved_names(tmp_path))
    parameters = list(model.parameters())
    assert load_converted_weights(model, tmp_path)
    assert all(new is old for new, old in zip(model.parameters(), parameters, strict=True))  # as an optimizer has them
    for name, values in saved.state_dict().items():
        assert torch.equal(model.state_dict()[name], values), name


def test_weights_with_the_same_names_are_left_to_the_trainer(tmp_path: Path, model_dir: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(model_dir)
    assert not load_converted_weights(model, model_dir)
    assert not load_converted_weights(model, tmp_path)


def test_missing_experts_are_an_error(tmp_path: Path) -> None:
    model = mixture()
    model.save_pretrained(tmp_path)
    more = MixtralForCausalLM(MixtralConfig(**{**model.config.to_dict(), "num_hidden_layers": 2}))
    with pytest.raises(TrainingError, match=r"weights of the model are missing, including model\.layers\.1\."):
        load_converted_weights(more, tmp_path)


def test_the_best_model_has_the_experts_of_its_checkpoint(tmp_path: Path, model_dir: Path, shard_dir: Path) -> None:
    rows = AutoModelForCausalLM.from_pretrained(model_dir).get_input_embeddings().weight.shape[0]
    base = tmp_path / "base"
    mixture(rows).save_pretrained(base)
    for path in model_dir.glob("token*"):
        (base / path.name).write_bytes(path.read_bytes())
    out = tmp_path / "out"
    run(
        *(base, shard_dir, out, "--max_steps=2", "--learning_rate=0.05", "--eval_strategy=steps", "--eval_steps=1"),
        *("--save_strategy=steps", "--save_steps=1", "--load_best_model_at_end=true"),
        *("--metric_for_best_model=eval_loss", "--greater_is_better=true"),  # so that the first is the best
    )
    best, trained = load_file(out / "checkpoint-1" / "model.safetensors"), load_file(out / "model.safetensors")
    last = load_file(out / "checkpoint-2" / "model.safetensors")
    assert any(not torch.equal(last[name], best[name]) for name in best if ".experts." in name)
    assert all(torch.equal(trained[name], best[name]) for name in best)
