from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    FalconH1Config,
    FalconH1ForCausalLM,
    Llama4ForCausalLM,
    Llama4TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedModel,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
    TrainingArguments,
)

from sftkit.config.commands import TrainConfig
from sftkit.errors import TrainingError
from sftkit.training.adapters.adapter_check import check_adapters
from sftkit.training.adapters.adapter_targets import ALL_LINEAR, adapter_targets
from sftkit.training.adapters.new_adapters import add_adapters
from sftkit.training.multimodal.text_use import trace_text_use

from .multimodal_models import make_llava

pytestmark = pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="peft is not installed")

SMALL: dict[str, Any] = {
    "vocab_size": 20, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}
MLP = {"gate_proj", "up_proj", "down_proj"}


def config(**given: Any) -> TrainConfig:
    return TrainConfig(output_dir="out", model_name_or_path="model", use_peft=True, **given)


def targets(model: PreTrainedModel, **given: Any) -> str | list[str]:
    return adapter_targets(model, config(**given), trace_text_use(model))


def last_parts(names: str | list[str]) -> set[str]:
    assert not isinstance(names, str)
    return {name.rpartition(".")[2] for name in names}


def falcon_h1() -> PreTrainedModel:
    return FalconH1ForCausalLM(
        FalconH1Config(**SMALL, mamba_d_ssm=16, mamba_n_heads=2, mamba_d_head=8, mamba_d_state=4, mamba_chunk_size=8)
    )


def llama4() -> PreTrainedModel:
    return Llama4ForCausalLM(
        Llama4TextConfig(**SMALL, intermediate_size_mlp=32, num_local_experts=2, num_experts_per_tok=1, moe_layers=[0])
    )


def llama() -> PreTrainedModel:
    return LlamaForCausalLM(LlamaConfig(**SMALL))


def mixtral() -> PreTrainedModel:
    return MixtralForCausalLM(MixtralConfig(**SMALL, num_local_experts=2, num_experts_per_tok=1))


def qwen3_moe() -> PreTrainedModel:
    return Qwen3MoeForCausalLM(Qwen3MoeConfig(**SMALL, num_experts=2, num_experts_per_tok=1, moe_intermediate_size=16))


def test_every_linear_module_of_a_plain_model_gets_an_adapter() -> None:
    assert targets(llama()) == ALL_LINEAR
    assert targets(llama(), lora_target_modules=("q_proj", "v_proj")) == ["q_proj", "v_proj"]


def test_vision_gets_no_adapters(caplog: pytest.LogCaptureFixture) -> None:
    model = make_llava()
    with caplog.at_level(logging.WARNING):
        found = targets(model)
    assert last_parts(found) == ATTENTION | MLP
    assert len(found) == 2 * 7
    assert all("language_model" in name for name in found)
    assert "text does not use them" in caplog.text
    # Names that the vision tower has, too.
    named = targets(model, lora_target_modules=("q_proj", "v_proj"))
    assert len(named) == 2 * 2
    assert all("language_model" in name for name in named)


def test_a_model_with_vision_trains_through_its_adapters() -> None:
    model = make_llava()
    adapted: Any = add_adapters(model, config(), (), trace_text_use(model))
    ids = torch.tensor([[1, 2, 3, 4]])
    adapted(input_ids=ids, labels=ids).loss.backward()
    trained = {name: values for name, values in adapted.named_parameters() if values.requires_grad}
    assert trained
    assert all(values.grad is not None for values in trained.values())


def test_modules_can_be_excluded_with_everything_inside() -> None:
    model = llama()
    assert last_parts(targets(model, lora_exclude_modules=("mlp",))) == ATTENTION
    assert last_parts(targets(model, lora_exclude_modules=("self_attn", "mlp.down_proj"))) == {"gate_proj", "up_proj"}
    chosen = targets(model, lora_target_modules=("q_proj", "up_proj"), lora_exclude_modules=("mlp",))
    assert chosen == ["model.layers.0.self_attn.q_proj"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"lora_exclude_modules": ("vison",)}, "lora_exclude_modules: the model has no module 'vison'; .*vision"),
        ({"lora_exclude_modules": ("model",)}, "lora_target_modules: no module is left to adapt"),
        ({"lora_target_modules": ("vision_tower.encoder.layers.0.mlp.fc1",)},
         "lora_target_modules: 'vision_tower.encoder.layers.0.mlp.fc1' cannot have an adapter: .*leave it out"),
    ],
)  # fmt: skip
def test_what_leaves_nothing_to_adapt_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        targets(make_llava(), **given)


def test_modules_that_peft_refuses_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    model = falcon_h1()
    with caplog.at_level(logging.WARNING):
        found = targets(model)
    assert last_parts(found) == {"in_proj"} | ATTENTION | MLP
    assert "LoRA leaves out 1 linear modules (out_proj): peft refuses them" in caplog.text
    add_adapters(model, config(), (), trace_text_use(model))
    with pytest.raises(TrainingError, match="lora_target_modules: 'out_proj' cannot have an adapter: peft refuses"):
        targets(falcon_h1(), lora_target_modules=("in_proj", "out_proj"))


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (llama4, ATTENTION | MLP),
        (mixtral, ATTENTION | {"w1", "w2", "w3"}),
        (qwen3_moe, ATTENTION | MLP),
    ],
)
def test_routers_get_no_adapters(make: Callable[[], PreTrainedModel], expected: set[str]) -> None:
    model = make()
    use = trace_text_use(model)
    assert last_parts(adapter_targets(model, config(), use)) == expected
    adapted: Any = add_adapters(model, config(), (), use)
    ids = torch.tensor([[1, 2, 3, 4]])
    adapted(input_ids=ids, labels=ids).loss.backward()
    adapters = [name for name, _ in adapted.named_parameters() if "lora_" in name]
    assert any(".mlp.experts." in name or "llama4" in make.__name__ for name in adapters)
    assert not [name for name in adapters if ".router." in name or ".gate." in name]


def test_experts_can_be_excluded() -> None:
    assert last_parts(targets(mixtral(), lora_exclude_modules=("experts",))) == ATTENTION
    assert targets(mixtral(), lora_target_modules=("q_proj", "w1", "w3")) == ["q_proj", "w1", "w3"]


def test_a_module_that_returns_more_than_a_tensor_cannot_be_named() -> None:
    with pytest.raises(TrainingError, match="lora_target_modules: 'router' cannot have an adapter"):
        targets(llama4(), lora_target_modules=("q_proj", "router"))


@pytest.mark.parametrize("modules", [("lm_head",), ("embed_tokens",), ("lm_head", "embed_tokens")])
@pytest.mark.parametrize("new", [(), (18, 19)])
def test_tied_embeddings_are_trained_as_one(
    caplog: pytest.LogCaptureFixture, modules: tuple[str, ...], new: tuple[int, ...]
) -> None:
    model = LlamaForCausalLM(LlamaConfig(**SMALL, tie_word_embeddings=True))
    with caplog.at_level(logging.WARNING):
        adapted: Any = add_adapters(model, config(lora_modules_to_save=modules), new, trace_text_use(model))
    assert ("are one matrix in this model (tied weights)" in caplog.text) == (modules == ("lm_head",))
    trained = adapted.get_input_embeddings().modules_to_save["default"].weight
    assert trained.requires_grad
    assert adapted.get_output_embeddings().weight is trained
    ids = torch.tensor([[1, 2, 3, 4]])
    adapted(input_ids=ids, labels=ids).loss.backward()
    assert trained.grad.abs().sum() > 0


def test_adapters_that_break_the_model_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = llama()
    adapted: Any = add_adapters(model, config(), (), trace_text_use(model))
    arguments: Any = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    check_adapters(adapted, arguments)
    broken = adapted.get_base_model().model.layers[0].mlp
    monkeypatch.setattr(broken, "forward", lambda inputs: (inputs,))
    with pytest.raises(TrainingError, match=r"the model does not compute any more \("):
        check_adapters(adapted, arguments)


def test_adapters_that_the_model_ignores_are_frozen(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = llama()
    adapted: Any = add_adapters(model, config(), (), trace_text_use(model))
    monkeypatch.setattr(adapted.get_base_model().model.layers[0].mlp, "forward", lambda inputs: inputs)
    with caplog.at_level(logging.WARNING):
        check_adapters(adapted, TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none"))
    assert "LoRA: the model ignores 6 tensors" in caplog.text
    assert not any(values.requires_grad for name, values in adapted.named_parameters() if ".mlp." in name)
