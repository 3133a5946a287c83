"""The loss in chunks is that of all logits, for every kind of output head."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Cohere2Config,
    Gemma2Config,
    GraniteConfig,
    Llama4TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MixtralConfig,
    OPTConfig,
    PhiConfig,
    PreTrainedConfig,
    PreTrainedModel,
    TrainingArguments,
    set_seed,
)

from sftkit.config.commands import TrainConfig
from sftkit.errors import ConfigError, TrainingError
from sftkit.training.arguments.checks.setting_conflicts import check_combinations
from sftkit.training.data.collation import CollatedBatch, FlatCollator, PaddingCollator
from sftkit.training.loss.choose_chunks import chunk_loss
from sftkit.training.loss.chunked_model import ChunkedForward, use_chunked_loss
from sftkit.training.models.capabilities import Capabilities
from sftkit.training.models.cross_entropy import summed_cross_entropy

from .material import logged
from .test_padding_free import sequences
from .test_run import prepared, run

SIZES = {"vocab_size": 128, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}
MODELS: dict[str, PreTrainedConfig] = {
    "plain": LlamaConfig(**SIZES, **HEADS),
    "tied": LlamaConfig(**SIZES, **HEADS, tie_word_embeddings=True),
    "bias": PhiConfig(**SIZES, **HEADS),
    "capped": Gemma2Config(**SIZES, **HEADS, head_dim=8, final_logit_softcapping=0.7),
    "divided": GraniteConfig(**SIZES, **HEADS, logits_scaling=7.0),
    "multiplied": Cohere2Config(**SIZES, **HEADS, logit_scale=0.3, eos_token_id=1),
    "experts": MixtralConfig(**SIZES, **HEADS, num_local_experts=4),
    "decoder of a decoder": OPTConfig(
        **SIZES, num_attention_heads=4, ffn_dim=48, word_embed_proj_dim=32, dropout=0.0, max_position_embeddings=64
    ),
    "decoder without a name": Llama4TextConfig(
        **SIZES, **HEADS, head_dim=8, intermediate_size_mlp=48, num_local_experts=2, pad_token_id=0
    ),
    "states": MambaConfig(vocab_size=128, hidden_size=32, num_hidden_layers=2),
}
COLLATORS = {"flat": FlatCollator(trim_head=True), "padded": PaddingCollator(trim_head=True, pad_token_id=3)}
ABLE = Capabilities(separates_sequences=True, supports_logits_to_keep=True, sums_loss=True)


def made(name: str) -> PreTrainedModel:
    set_seed(3)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(MODELS[name])
    return model


def loss_of(model: Any, batch: CollatedBatch, **given: Any) -> Any:
    return model(**batch, **given, num_items_in_batch=torch.tensor(batch.counts.trained_tokens)).loss


def gradients(model: torch.nn.Module, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: values.grad.clone() for name, values in model.named_parameters() if values.grad is not None}


def assert_close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], tolerance: float = 1e-5) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert float((found[name] - values).norm()) <= tolerance * float(values.norm()) + 1e-8, name


@pytest.mark.parametrize("collator", COLLATORS)
@pytest.mark.parametrize("name", MODELS)
def test_chunks_give_the_loss_and_gradients_of_all_logits(name: str, collator: str) -> None:
    model = made(name)
    batch = COLLATORS[collator](sequences())
    loss = loss_of(model, batch)
    expected = gradients(model, loss)
    assert chunking(model, 7)
    chunked = loss_of(model, batch)
    assert chunked.item() == pytest.approx(loss.item(), rel=1e-6)
    assert_close(gradients(model, chunked), expected)
    with torch.no_grad():
        assert loss_of(model, batch).item() == pytest.approx(loss.item(), rel=1e-6)


def test_chunks_give_the_smoothed_loss() -> None:
    model = made("capped")
    batch = FlatCollator(trim_head=True)(sequences())
    logits = model(**{key: value for key, value in batch.items() if "labels" not in key}).logits
    items = torch.tensor(batch.counts.trained_tokens)
    loss = summed_cross_entropy(logits, batch["shift_labels"], items, 0.2)
    expected = gradients(model, loss)
    use_chunked_loss(model, chunk_size=1000)
    chunked = loss_of(model, batch, label_smoothing=0.2)
    assert chunked.item() == pytest.approx(loss.item(), rel=1e-6)
    assert_close(gradients(model, chunked), expected)


def test_chunks_work_in_mixed_precision_with_gradient_checkpointing() -> None:
    model = made("plain")
    model.activation_checkpointing_enable()
    batch = FlatCollator(trim_head=True)(sequences())
    found = []
    for chunk_size in (1000, 7):
        use_chunked_loss(model, chunk_size)
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(model, batch)
        found.append((loss.item(), gradients(model, loss)))
        del model.forward
    (loss_at_once, expected), (chunked, gradients_of_chunks) = found
    assert chunked == pytest.approx(loss_at_once, rel=1e-4)
    assert_close(gradients_of_chunks, expected, tolerance=2e-2)


@pytest.mark.parametrize("trained", ["everything", "adapters", "head", "nothing of the head"])
def test_only_what_is_trained_gets_a_gradient(trained: str) -> None:
    from peft import LoraConfig, get_peft_model

    model: Any = made("plain")
    batch = FlatCollator(trim_head=True)(sequences())
    use_chunked_loss(model, chunk_size=1000)
    inner = model
    if trained == "adapters":
        targets = ["q_proj", "lm_head"]
        model = get_peft_model(model, LoraConfig(target_modules=targets, r=2, init_lora_weights=False))
    for name, values in model.named_parameters():
        if trained in ("head", "nothing of the head"):
            values.requires_grad_(("lm_head" in name) == (trained == "head"))
    expected_loss = loss_of(model, batch)
    expected = gradients(model, expected_loss)
    del inner.forward
    use_chunked_loss(inner, chunk_size=7)
    chunked = loss_of(model, batch)
    assert chunked.item() == pytest.approx(expected_loss.item(), rel=1e-6)
    assert_close(gradients(model, chunked), expected)


def test_the_logits_of_one_chunk_exist_at_a_time() -> None:
    model: Any = made("plain")
    batch = FlatCollator(trim_head=True)(sequences())
    assert batch["logits_to_keep"].numel() > 14
    positions: list[int] = []
    model.lm_head.register_forward_hook(lambda _module, _inputs, logits: positions.append(logits.shape[1]))
    use_chunked_loss(model, chunk_size=7)
    loss_of(model, batch).backward()
    assert max(positions) == 7
    positions.clear()
    use_chunked_loss(model, chunk_size=1000)  # a batch that fits into one chunk is the model's own business
    del model.forward
    loss_of(model, batch)
    assert positions == [batch["logits_to_keep"].numel()]


class MixesPositions(LlamaForCausalLM):
    """A model whose logits depend on the neighbours of a position."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        outputs = super().forward(*args, **kwargs)
        outputs.logits = outputs.logits - outputs.logits.mean(dim=1, keepdim=True)
        return outputs


def chunking(model: PreTrainedModel, size: int | None, **given: Any) -> bool:
    config = TrainConfig(output_dir="out", loss_chunk_size=size)
    return chunk_loss(model, config, TrainingArguments(output_dir="out", use_cpu=True), ABLE)


def test_a_model_whose_logits_mix_positions_keeps_its_own_loss() -> None:
    model = MixesPositions(MODELS["plain"])
    assert not chunking(model, None)
    assert "forward" not in model.__dict__
    with pytest.raises(TrainingError, match="loss_chunk_size: MixesPositions does not compute the logits"):
        chunking(model, 7)
    batch = FlatCollator(trim_head=True)(sequences())
    with pytest.raises(TrainingError, match="loss_chunk_size: MixesPositions does not compute"):
        # what a run with sharded weights does, which cannot probe the model
        ChunkedForward(model, 7, compare=True)(**batch, num_items_in_batch=torch.tensor(1))


@pytest.mark.parametrize("name", MODELS)
def test_chunks_are_the_default(name: str) -> None:
    assert chunking(made(name), None)
    assert not chunking(made(name), 0)


def test_a_run_with_chunks_has_the_losses_of_one_without(tmp_path: Path, model_dir: Path, shard_dir: Path) -> None:
    given = ("--max_steps=3", "--logging_steps=1", "--label_smoothing_factor=0.1", "--do_eval=true")
    run(model_dir, shard_dir, tmp_path / "whole", *given, "--loss_chunk_size=0")
    run(model_dir, shard_dir, tmp_path / "chunks", *given, "--loss_chunk_size=5")
    for key in ("loss", "grad_norm", "eval_loss"):
        found, expected = logged(tmp_path / "chunks", key), logged(tmp_path / "whole", key)
        assert found == pytest.approx(expected, rel=2e-6)


@pytest.mark.parametrize(
    "given", ["--torch_compile=true", "--use_liger_kernel=true"], ids=["torch_compile", "use_liger_kernel"]
)
def test_chunks_are_not_combined_with_other_ways_to_compute_the_loss(
    tmp_path: Path, model_dir: Path, given: str
) -> None:
    with pytest.raises(ConfigError, match=r"loss_chunk_size.*; remove"):
        prepared(model_dir, tmp_path / "out", "--loss_chunk_size=5", given)


def test_chunks_are_refused_under_deepspeed(tmp_path: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, arguments = prepared(model_dir, tmp_path / "out")
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(ConfigError, match="loss_chunk_size does not work with DeepSpeed; remove loss_chunk_size"):
        check_combinations(replace(settings, loss_chunk_size=5), arguments)
    check_combinations(settings, arguments)
