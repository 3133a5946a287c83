from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM, MixtralConfig, MixtralForCausalLM

from sftkit.training.data.work_counts import WorkCounts
from sftkit.training.metrics.flops import TrainingCost, training_cost
from sftkit.training.metrics.hardware import device_peak_flops, peak_flops, peak_memory
from sftkit.training.metrics.throughput import Throughput, ThroughputMeter
from sftkit.training.models.freezing import freeze

LENGTH = 64


def llama(**changes: Any) -> LlamaForCausalLM:
    settings = LlamaConfig(
        vocab_size=500, hidden_size=64, intermediate_size=160, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, tie_word_embeddings=False, attn_implementation="eager", **changes,
    )  # fmt: skip
    return LlamaForCausalLM(settings)


def counted(model: torch.nn.Module) -> tuple[int, int]:
    """Operations of one step on one sequence as counted by torch: of weights, and of attention (not causal)."""
    inputs = torch.arange(LENGTH)[None] % 500
    with FlopCounterMode(display=False) as counter:
        model(input_ids=inputs, labels=inputs, use_cache=False).loss.backward()
    found = counter.get_flop_counts()["Global"]
    return found[torch.ops.aten.mm], found[torch.ops.aten.bmm]


@pytest.mark.parametrize(
    "patterns",
    [
        (),
        ("embed_tokens",),
        ("lm_head",),
        ("embed_tokens", "layers.0", "layers.1"),
        ("embed_tokens", "mlp", "lm_head"),
        ("model.*",),
    ],
)
def test_operations_match_those_counted_by_torch(patterns: tuple[str, ...]) -> None:
    model = llama()
    freeze(model, patterns)
    cost = training_cost(model)
    weights, attention = counted(model)
    assert cost is not None
    # The formula counts weights of norms (6N), which are not multiplied; they are under 1% of these models. The input
    # of the first trained layer needs no gradient; there, three of seven products are counted too many.
    assert cost.flops(LENGTH, LENGTH, 0) == pytest.approx(weights, rel=0.04)
    assert cost.flops(0, 0, LENGTH**2) == pytest.approx(attention / 2, rel=0.03)  # torch also counts rotary positions


def test_frozen_weights_under_adapters_need_no_gradients() -> None:
    peft = pytest.importorskip("peft")
    settings = peft.LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear")
    model = peft.get_peft_model(llama(), settings)
    cost = training_cost(model)
    weights, _ = counted(model)
    assert cost is not None
    assert cost.flops(LENGTH, LENGTH, 0) == pytest.approx(weights, rel=0.04)
    whole = training_cost(llama())
    assert whole is not None
    assert cost.per_token < 0.8 * whole.per_token


def test_the_cost_of_a_model_follows_from_its_sizes() -> None:
    cost = training_cost(llama())
    body = 3 * (64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 160 + 2 * 64) + 64
    assert cost == TrainingCost(
        per_token=6.0 * body, per_head_position=6.0 * 64 * 500, per_length_squared=3 * 12 * 64 / 2
    )
    tied = llama().config
    tied.tie_word_embeddings = True
    assert training_cost(LlamaForCausalLM(tied)) == cost


def test_only_active_experts_are_counted() -> None:
    sizes = {
        "vocab_size": 50, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
        "num_attention_heads": 1, "num_key_value_heads": 1, "num_local_experts": 8,
    }  # fmt: skip
    one, two = (training_cost(MixtralForCausalLM(MixtralConfig(**sizes, num_experts_per_tok=n))) for n in (1, 2))
    assert one is not None
    assert two is not None
    assert two.per_token - one.per_token == 6 * 3 * 16 * 32


def test_attention_over_a_sliding_window_is_not_counted() -> None:
    model = llama()
    whole = training_cost(model)
    model.config.layer_types = ["full_attention", "sliding_attention", "sliding_attention"]
    part = training_cost(model)
    assert whole is not None
    assert part is not None
    assert part.per_length_squared == whole.per_length_squared / 3


def test_a_module_that_is_not_a_language_model_has_no_cost() -> None:
    assert training_cost(torch.nn.Linear(2, 2)) is None


def test_rates_are_work_per_second() -> None:
    work = WorkCounts(tokens=600, trained_tokens=150, slots=800, squared_lengths=10_000, head_positions=200)
    meter = ThroughputMeter(
        TrainingCost(per_token=100.0, per_head_position=10.0, per_length_squared=1.0), peak_flops=100_000.0
    )
    # 600 * 100 + 200 * 10 + 10,000 operations in 3 s, out of 300,000 possible ones
    found = meter.measure(work, 3.0)
    assert found == Throughput(200.0, 50.0, 0.25, pytest.approx(0.24))
    rates = {"tokens_per_second": 200.0, "trained_tokens_per_second": 50.0, "padding_share": 0.25}
    assert found.log_entries() == {**rates, "mfu": pytest.approx(0.24)}


def test_unknown_rates_are_left_out() -> None:
    work = WorkCounts(tokens=10, trained_tokens=5, slots=10, squared_lengths=100, head_positions=5)
    assert ThroughputMeter().measure(work, 1.0).log_entries() == {
        "tokens_per_second": 10.0, "trained_tokens_per_second": 5.0, "padding_share": 0.0,
    }  # fmt: skip
    assert ThroughputMeter(TrainingCost(1, 1, 1), None).measure(work, 1.0).mfu is None
    assert ThroughputMeter().measure(WorkCounts(), 0.0) == Throughput(0.0, 0.0, None, None)


@pytest.mark.parametrize(
    ("name", "teraflops"),
    [
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H100 NVL", 835.5),
        ("NVIDIA H200", 989.4),
        ("NVIDIA GH200 480GB", 989.4),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A100-PCIE-40GB", 312),
        ("NVIDIA L40S", 362),
        ("NVIDIA L40", 181),
        ("NVIDIA L4", 121),
        ("NVIDIA A10G", 70),
        ("NVIDIA A10", 125),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("NVIDIA GeForce RTX 5090", 209.5),
        ("NVIDIA B200", 2250),
        ("AMD Instinct MI300X", 1307.4),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA T1000", None),
        ("Some accelerator", None),
    ],
)
def test_peaks_match_the_data_sheets(name: str, teraflops: float | None) -> None:
    found = peak_flops(name, torch.bfloat16)
    assert (None if found is None else found / 1e12) == (None if teraflops is None else pytest.approx(teraflops))


def test_the_peak_depends_on_the_data_type() -> None:
    name = "NVIDIA A100-SXM4-80GB"
    assert peak_flops(name, torch.float16) == 312e12
    assert peak_flops(name, torch.float32) == 19.5e12
    assert peak_flops(name, torch.float32, tf32=True) == 156e12
    assert peak_flops(name, torch.float64) is None


def test_the_cpu_has_no_peak_and_the_memory_of_the_process() -> None:
    assert device_peak_flops(torch.device("cpu"), torch.float32) is None
    tensor = torch.ones(30_000_000)  # 120 MB
    assert peak_memory(torch.device("cpu")) > tensor.nbytes
