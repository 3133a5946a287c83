from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
)

from sftkit.training.data.work_counts import WorkCounts
from sftkit.training.metrics.flops import TrainingCost, training_cost
from sftkit.training.metrics.hardware import device_peak_flops, peak_flops, peak_memory
from sftkit.training.metrics.layer_sizes import layer_sizes
from sftkit.training.metrics.throughput import Throughput, ThroughputMeter
from sftkit.training.models.freezing import freeze

LENGTH = 64


def llama(**changes: Any) -> LlamaForCausalLM:
    settings = LlamaConfig(
        vocab_size=500, hidden_size=64, intermediate_size=160, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, tie_word_embeddings=False, attn_implementation="eager", **changes,
    )  # fmt: skip
    return LlamaForCausalLM(settings)


def tiny(architecture: str, **changes: Any) -> Any:
    """A model of two layers without weights."""
    shape = {
        "vocab_size": 50, "hidden_size": 16, "intermediate_size": 32, "moe_intermediate_size": 32,
        "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2, "d_model": 16, "n_heads": 2,
        "n_layers": 2, "max_position_embeddings": 64, "pad_token_id": 0, "q_lora_rank": 8, "kv_lora_rank": 8,
        "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8, "n_group": 1, "topk_group": 1,
        "first_k_dense_replace": 0, "moe_layer_start_index": 0, "max_seq_len": 64, "head_dim": 8,
    }  # fmt: skip
    known = inspect.signature(CONFIG_MAPPING[architecture]).parameters
    config = AutoConfig.for_model(architecture, **({k: v for k, v in shape.items() if k in known} | changes))
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


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


@pytest.mark.parametrize(
    ("architecture", "experts", "chosen"),
    [
        ("aria_text", "moe_num_experts", "moe_topk"),
        ("ernie4_5_moe", "moe_num_experts", "moe_k"),
        ("deepseek_v3", "n_routed_experts", "num_experts_per_tok"),
        ("hunyuan_v1_moe", "num_experts", "moe_topk"),
    ],
)
def test_experts_are_counted_under_every_name(architecture: str, experts: str, chosen: str) -> None:
    one, two = (training_cost(tiny(architecture, **{experts: 8, chosen: number})) for number in (1, 2))
    model = tiny(architecture, **{experts: 8, chosen: 2})
    stacked = sum(values.numel() for name, values in model.named_parameters() if ".experts." in name)
    assert one is not None
    assert two is not None
    assert stacked
    assert two.per_token - one.per_token == 6 * stacked / 8


def test_experts_of_dbrx_are_counted() -> None:
    def model(chosen: int) -> torch.nn.Module:
        experts = {"ffn_hidden_size": 32, "moe_num_experts": 8, "moe_top_k": chosen, "hidden_size": 16}
        return tiny("dbrx", ffn_config=experts, attn_config={"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 1e4})

    one, two = training_cost(model(1)), training_cost(model(2))
    assert one is not None
    assert two is not None
    assert two.per_token - one.per_token == 6 * 2 * 3 * 16 * 32  # layers, matrices


def test_the_cost_is_unknown_if_the_number_of_chosen_experts_is() -> None:
    model = tiny("mixtral", num_local_experts=8)
    vars(model.config)["num_experts_per_tok"] = None
    assert training_cost(model) is None


def test_layers_with_heads_of_their_own_size() -> None:
    kinds = ["sliding_attention", "full_attention"]
    model = tiny("gemma4_text", layer_types=kinds, head_dim=8, global_head_dim=32, hidden_size_per_layer_input=0)
    cost = training_cost(model)
    assert cost is not None
    assert cost.per_length_squared == 12 * 2 * 32 / 2


class Config:
    """A config with other names, as that of a model on the Hub."""

    num_hidden_layers = 3

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)

    @property
    def num_attention_heads(self) -> int:
        raise RuntimeError("differs by layer")


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (Config(num_query_heads=[2, 4, 6], head_dim=8), [16.0, 32.0, 48.0]),
        (Config(n_head=2, hidden_size=16, head_dim=[None, 4, 16]), [16.0, 8.0, 32.0]),
        (Config(num_query_heads=[2, None, 4], head_dim=8), [16.0, None, 32.0]),
        (Config(num_query_heads=[2], head_dim=8), [16.0, None, None]),
        (Config(n_heads="many", head_dim=8), [None, None, None]),
        (Config(n_heads=2, head_dim=8, layers_block_type=["mamba", "attention", "moe"]), [0.0, 16.0, 0.0]),
        (Config(n_heads=2, hidden_size=None), [None, None, None]),
        (Config(text_config=Config(n_heads=2, qk_head_dim=12, v_head_dim=8, head_dim=8)), [20.0, 20.0, 20.0]),
        (Config(num_hidden_layers=None), []),
    ],
)
def test_sizes_are_read_from_any_config(config: Config, expected: list[float | None]) -> None:
    assert [sizes.attention_width for sizes in layer_sizes(config)] == expected


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
