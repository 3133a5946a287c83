from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from sftkit.errors import TrainingError
from sftkit.training.models.freezing import ParameterCounts, count_parameters, freeze


@pytest.fixture(scope="module")
def deep() -> Callable[[], LlamaForCausalLM]:
    """Makes a model with twelve layers, so that there is a layer 1 and a layer 10."""
    settings = LlamaConfig(
        vocab_size=10, hidden_size=8, intermediate_size=8, num_hidden_layers=12, num_attention_heads=1,
        num_key_value_heads=1, tie_word_embeddings=False,
    )  # fmt: skip
    return lambda: LlamaForCausalLM(settings)


def frozen(model: torch.nn.Module) -> set[str]:
    """The layers (`layers.0`) and other modules (`embed_tokens`) with frozen parameters."""
    names = (name.removeprefix("model.") for name, values in model.named_parameters() if not values.requires_grad)
    return {".".join(name.split(".")[:2]) if name.startswith("layers") else name.split(".")[0] for name in names}


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ((), set()),
        (("embed_tokens",), {"embed_tokens"}),
        (("layers.1",), {"layers.1"}),
        (("layers.1.", "layers.11"), {"layers.1", "layers.11"}),
        (("model.layers.1?.*",), {"layers.10", "layers.11"}),
        (("model.layers.[0-2].*", "lm_head"), {"layers.0", "layers.1", "layers.2", "lm_head"}),
        (("*.layers.*",), {f"layers.{number}" for number in range(12)}),
    ],
)
def test_patterns_freeze_matching_parameters(
    deep: Callable[[], LlamaForCausalLM], patterns: tuple[str, ...], expected: set[str]
) -> None:
    model = deep()
    freeze(model, patterns)
    assert frozen(model) == expected


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (("embed_tokns",), "freeze: no parameter matches 'embed_tokns'; did you mean embed_tokens, "),
        (("layers.12",), r"freeze: no parameter matches 'layers\.12'; did you mean .*layers\.1"),
        (("layers.*.mlp",), r"freeze: no parameter matches 'layers\.\*\.mlp'"),  # the whole name must match
        (("*",), r"freeze: \* leaves no parameter to train"),
        (("model", "lm_head"), "freeze: model, lm_head leaves no parameter to train"),
    ],
)
def test_invalid_patterns_are_refused(
    deep: Callable[[], LlamaForCausalLM], patterns: tuple[str, ...], message: str
) -> None:
    with pytest.raises(TrainingError, match=message):
        freeze(deep(), patterns)


def test_frozen_parameters_do_not_change(tmp_path: Path, deep: Callable[[], LlamaForCausalLM]) -> None:
    model = deep()
    freeze(model, ("mlp",))
    before = {name: values.detach().clone() for name, values in model.named_parameters()}
    optimizer = torch.optim.SGD([values for values in model.parameters() if values.requires_grad], lr=1.0)
    inputs = torch.arange(10)[None]
    model(input_ids=inputs, labels=inputs).loss.backward()
    optimizer.step()
    changed = {name for name, values in model.named_parameters() if not torch.equal(values, before[name])}
    assert changed
    assert not any("mlp" in name for name in changed)
    assert any("layers.0.self_attn" in name for name in changed)  # gradients pass through frozen parameters


def test_tied_parameters_are_counted_once() -> None:
    settings = LlamaConfig(
        vocab_size=10, hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1,
        num_key_value_heads=1, tie_word_embeddings=True,
    )  # fmt: skip
    model = LlamaForCausalLM(settings)
    body = 4 * 8 * 8 + 3 * 8 * 16 + 3 * 8
    assert count_parameters(model) == ParameterCounts(80 + body, 80 + body)
    freeze(model, ("embed_tokens",))
    assert count_parameters(model) == ParameterCounts(80 + body, body)


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        (ParameterCounts(1_230_000_000, 4_240_000), "trains 4.2 M of 1.2 B parameters (0.34%)"),
        (ParameterCounts(960, 960), "trains 960 of 960 parameters (100.00%)"),
        (ParameterCounts(68_800, 1_000), "trains 1.0 k of 68.8 k parameters (1.45%)"),
    ],
)
def test_parameter_counts_are_shown_in_a_few_digits(counts: ParameterCounts, text: str) -> None:
    assert str(counts) == text
