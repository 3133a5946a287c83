"""The memory that a plan estimates: each part against the real thing, and what would make a run fit."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import sftkit
from reliability.material import sftkit as command
from sftkit.cli.console.reports.training.show_memory import memory_lines
from sftkit.config.commands import TrainConfig
from sftkit.config.reading.python_values import load_values
from sftkit.config.schema.plan_options import GPUS
from sftkit.shards.reading import open_shards
from sftkit.training.arguments.build_arguments import extra_keys, make_training_arguments
from sftkit.training.callbacks.listener import SilentListener
from sftkit.training.metrics.hardware import memory_size
from sftkit.training.planning.memory import memory_use
from sftkit.training.planning.memory.byte_timeline import ByteRecorder, ByteTimeline, Kind, LiveBytes
from sftkit.training.planning.memory.memory_use import MemoryPlan, MemoryUse, Remedy
from sftkit.training.planning.memory.sharding import Sharding, fully_sharded, gathered_bytes, sharding_of
from sftkit.training.planning.memory.stored_weights import weight_bytes
from sftkit.training.setup.data_setup import feed_for
from sftkit.training.setup.model_setup import prepare_model
from sftkit.training.setup.trainer_setup import make_trainer

from .material import write_layout

GIB = 2**30


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "rows"
    write_layout(folder, [[[24, 40, 32, 48]]])
    return folder


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "packs"
    write_layout(folder, [[[24, 40], [32, 30], [60], [20, 20, 20]]], packed=True)
    return folder


@pytest.fixture
def keys(model_dir: Path, rows: Path, tmp_path: Path) -> dict[str, Any]:
    return {
        "model_name_or_path": str(model_dir), "training_data_path": str(rows), "output_dir": str(tmp_path / "out"),
        "use_cpu": True, "per_device_train_batch_size": 4,
    }  # fmt: skip


@pytest.fixture
def large_keys(keys: dict[str, Any], model_dir: Path, tmp_path: Path,
               make_tokenizer: Callable[..., Path]) -> dict[str, Any]:  # fmt: skip
    """A model of 3 billion parameters in two layers."""
    folder = make_tokenizer(tmp_path / "large")
    settings = json.loads((model_dir / "config.json").read_text())
    settings |= {"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 2, "num_attention_heads": 64,
                 "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 64_000}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(settings))
    return {**keys, "model_name_or_path": str(folder), "init_from_config": True, "torch_dtype": "bfloat16"}


@pytest.fixture
def light_keys(large_keys: dict[str, Any]) -> dict[str, Any]:
    """A model whose memory is mostly activations, with gradients that exist all the time."""
    config = Path(large_keys["model_name_or_path"]) / "config.json"
    settings = json.loads(config.read_text())
    settings |= {"num_hidden_layers": 6, "hidden_size": 64, "intermediate_size": 4096, "num_attention_heads": 4,
                 "num_key_value_heads": 4, "head_dim": 16, "tie_word_embeddings": False}  # fmt: skip
    config.write_text(json.dumps(settings))
    return {**large_keys, "optim": "sgd", "freeze": ["embed_tokens", "lm_head"], "gradient_accumulation_steps": 2}


def memory(keys: dict[str, Any], **more: Any) -> MemoryPlan:
    return sftkit.plan_training(**{**keys, **more}).memory


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    return sum(
        value.numel() * value.element_size()
        for state in optimizer.state.values()
        for value in state.values()
        if torch.is_tensor(value)
    )


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"optim": "adamw_torch"},
        {"optim": "adafactor"},
        {"optim": "sgd"},
        {"optim": "sgd", "optim_args": "momentum=0.9"},
        {"optim": "adagrad"},
        {"optim": "muon"},
        {"freeze": ["layers.0", "embed_tokens"]},
        {"use_peft": True, "lora_r": 4},
        {"torch_dtype": "bfloat16"},
    ],
)
def test_weights_gradients_and_states_are_those_of_a_real_step(keys: dict[str, Any], more: dict[str, Any]) -> None:
    plan = memory(keys, **more)
    config = load_values(TrainConfig, None, {**keys, **more, "max_steps": 1}, extra_keys=extra_keys())
    arguments = make_training_arguments(config)
    shards = open_shards(keys["training_data_path"])
    prepared = prepare_model(config, arguments, shards, SilentListener())
    trainer = make_trainer(arguments, prepared, feed_for(prepared, config, arguments, shards, {}), [])
    optimizer = trainer.create_optimizer()
    trained = [values for values in prepared.model.parameters() if values.requires_grad]
    for values in trained:
        values.grad = torch.randn_like(values)
    optimizer.step()
    whole = [*prepared.model.parameters(), *prepared.model.buffers()]
    assert plan.use.weights == sum(values.numel() * values.element_size() for values in whole)
    assert plan.all_gradients == sum(values.numel() * values.element_size() for values in trained)
    assert plan.use.states == pytest.approx(state_bytes(optimizer), rel=0.02, abs=4096)
    assert plan.all_states == pytest.approx(state_bytes(optimizer), rel=0.02, abs=4096)


@pytest.mark.parametrize(
    ("optimizer", "per_value"),
    [("adamw_8bit", 2), ("paged_adamw_8bit", 0), ("lion_8bit", 1), ("paged_adamw_32bit", 0), ("ademamix", 12)],
)
def test_optimizers_that_need_a_gpu_are_planned_without_their_package(
    large_keys: dict[str, Any], optimizer: str, per_value: float
) -> None:
    plan = memory(large_keys, optim=optimizer, freeze=["embed_tokens", "lm_head"])
    assert plan.use.states == pytest.approx(per_value * plan.all_gradients / 2, rel=0.02)
    saved = {"paged_adamw_8bit": 2, "paged_adamw_32bit": 8}.get(optimizer, per_value)  # also what is in main memory
    assert plan.all_states == pytest.approx(saved * plan.all_gradients / 2, rel=0.02)


def test_embeddings_keep_states_in_32_bits_under_bitsandbytes(large_keys: dict[str, Any]) -> None:
    some, more = (memory(large_keys, optim="adamw_8bit", freeze=freeze) for freeze in (["embed_tokens"], []))
    embedding = 64_000 * 8192
    assert more.use.states - some.use.states == pytest.approx(8 * embedding)


def test_an_optimizer_that_cannot_be_made_is_left_out_and_named(keys: dict[str, Any]) -> None:
    plan = memory(keys, optim="lomo")
    assert (plan.all_states, plan.use.states) == (None, 0)
    assert ("", "without the state of the optimizer, whose size is not known") in [*memory_lines(plan, "rows", None)]


def test_what_is_frozen_has_neither_gradient_nor_state(keys: dict[str, Any]) -> None:
    full, adapters = memory(keys), memory(keys, use_peft=True, lora_r=4)
    assert adapters.all_gradients < 0.2 * full.all_gradients
    assert adapters.use.states < 0.2 * full.use.states
    assert adapters.use.weights > full.use.weights


def test_accumulated_gradients_exist_all_the_time(large_keys: dict[str, Any]) -> None:
    # With one micro-batch, gradients come while activations go.
    one, two = (memory({**large_keys, "optim": "sgd"}, gradient_accumulation_steps=steps) for steps in (1, 2))
    assert two.use.gradients == two.all_gradients == one.all_gradients
    assert one.use.total < two.use.total


def test_processes_without_sharding_keep_everything_and_a_copy_of_the_gradients(keys: dict[str, Any]) -> None:
    one, two = memory(keys), memory(keys, processes=2, per_device_train_batch_size=2)
    assert (one.use.weights, one.use.states) == (two.use.weights, two.use.states)
    assert two.use.gradients >= two.all_gradients == one.all_gradients


def test_fsdp_divides_weights_gradients_and_states(large_keys: dict[str, Any]) -> None:
    whole = memory(large_keys)
    plans = {processes: memory(large_keys, fsdp=True, processes=processes) for processes in (2, 8)}
    for processes, plan in plans.items():
        assert plan.sharding == "FSDP"
        assert plan.use.states == pytest.approx(whole.use.states / processes, rel=0.01)
        assert plan.all_gradients == pytest.approx(whole.all_gradients / processes, rel=0.01)
    difference = plans[2].use.weights - plans[8].use.weights  # what is gathered is the same
    assert difference == pytest.approx(whole.use.weights * (1 / 2 - 1 / 8), rel=0.01)


def test_fsdp_in_mixed_precision_keeps_what_it_trains_in_32_bits(large_keys: dict[str, Any]) -> None:
    plain, mixed = (memory(large_keys, fsdp=True, processes=4, bf16=bf16) for bf16 in (False, True))
    assert mixed.use.states == pytest.approx(2 * plain.use.states)
    assert mixed.all_gradients == 2 * plain.all_gradients


def arguments_of(processes: int, **given: Any) -> Any:
    return SimpleNamespace(**{"world_size": processes, "fsdp": None, "fsdp_config": None, "deepspeed": None, **given})


def zero(stage: int, **more: Any) -> dict[str, Any]:
    return {"zero_optimization": {"stage": stage, **more}}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, Sharding(copies_gradients=True)),
        ({"fsdp": True}, fully_sharded(4)),
        ({"fsdp": True, "fsdp_config": {"reshard_after_forward": False}}, Sharding("FSDP", 1, 0.25, 0.25)),
        ({"fsdp": True, "fsdp_config": {"cpu_offload": True}}, Sharding("FSDP", 0, 0, 0, gathers=True)),
        ({"deepspeed": zero(0)}, Sharding(copies_gradients=True)),
        ({"deepspeed": zero(1)}, Sharding("ZeRO-1", 1, 1, 0.25)),
        ({"deepspeed": zero(2)}, Sharding("ZeRO-2", 1, 0.25, 0.25)),
        ({"deepspeed": zero(3)}, Sharding("ZeRO-3", 0.25, 0.25, 0.25, gathers=True)),
        ({"deepspeed": zero(2, offload_optimizer={"device": "cpu"})}, Sharding("ZeRO-2", 1, 0, 0)),
        ({"deepspeed": zero(3, offload_param={"device": "nvme"})}, Sharding("ZeRO-3", 0, 0.25, 0.25, gathers=True)),
    ],
)
def test_sharding_follows_the_arguments(given: dict[str, Any], expected: Sharding) -> None:
    assert sharding_of(arguments_of(4, **given)) == expected


def test_sharding_follows_the_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_RESHARD_AFTER_FORWARD", "false")
    assert sharding_of(arguments_of(8)) == Sharding("FSDP", 1, 1 / 8, 1 / 8)
    monkeypatch.setenv("FSDP_RESHARD_AFTER_FORWARD", "HYBRID_SHARD")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert sharding_of(arguments_of(8)) == fully_sharded(2)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "false")
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_ZERO_STAGE", "3")
    assert sharding_of(arguments_of(8)) == Sharding("ZeRO-3", 1 / 8, 1 / 8, 1 / 8, gathers=True)


def test_deepspeed_settings_are_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "zero.json").write_text(json.dumps(zero(1)))
    assert sharding_of(arguments_of(2, deepspeed=str(tmp_path / "zero.json"))) == Sharding("ZeRO-1", 1, 1, 0.5)


def tiny(**more: Any) -> LlamaConfig:
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4}
    return LlamaConfig(vocab_size=1000, **{**sizes, **more})


def test_gathered_weights_are_those_outside_of_blocks_and_three_blocks() -> None:
    with torch.device("meta"):
        model = LlamaForCausalLM(tiny())
    block = sum(values.numel() for values in model.model.layers[0].parameters())
    everything = sum(values.numel() for values in model.parameters())
    assert gathered_bytes(model) == 4 * (everything - 3 * block + 3 * block)


def test_quantized_weights_take_their_bits_and_scales() -> None:
    with torch.device("meta"):
        model = LlamaForCausalLM(tiny(hidden_size=512, intermediate_size=2048))
    model.requires_grad_(False)
    config = TrainConfig(output_dir="out", use_peft=True, load_in_4bit=True)
    linear = sum(values.numel() for values in model.model.layers.parameters() if values.dim() == 2)
    rest = sum(values.numel() for values in model.parameters()) - linear
    buffers = sum(values.numel() * values.element_size() for values in model.buffers())
    assert weight_bytes(model, config, None, None) == pytest.approx(linear * 0.516 + rest * 4 + buffers, rel=1e-3)


def test_eager_attention_stores_the_scores(keys: dict[str, Any]) -> None:
    eager = memory(keys, attn_implementation="eager", padding_free="false", optim="sgd")
    fused = memory(keys, padding_free="false", optim="sgd")
    assert (eager.attention, fused.attention) == ("eager", "sdpa")
    assert eager.use.activations > fused.use.activations


def test_flash_attention_is_planned_without_a_gpu_and_takes_no_mask(light_keys: dict[str, Any], packs: Path) -> None:
    sharded = {**light_keys, "training_data_path": str(packs), "fsdp": True, "processes": 2,
               "per_device_train_batch_size": 2}  # fmt: skip
    masked, flash = memory(sharded), memory(sharded, attn_implementation="flash_attention_2")
    assert flash.attention == "flash_attention_2"
    assert flash.use.activations < masked.use.activations


def test_checkpointing_and_offloading_keep_less(light_keys: dict[str, Any]) -> None:
    keys = {**light_keys, "loss_chunk_size": 4}
    without = memory(keys)
    with_it = memory(keys, gradient_checkpointing=True)
    offloaded = memory(keys, gradient_checkpointing=True, activation_offloading=True)
    every_third = memory(keys, gradient_checkpointing=True, gradient_checkpointing_kwargs={"every_n_layers": 3})
    assert without.otherwise == with_it.use
    assert with_it.otherwise == without.use
    assert with_it.use.activations < every_third.use.activations < without.use.activations
    kept = 144 * 64 * 2  # the input of a layer: tokens x width x bytes
    assert 3 * kept <= with_it.use.activations - offloaded.use.activations <= 6 * kept


def test_padding_takes_memory(keys: dict[str, Any]) -> None:
    padded, flat = memory(keys, padding_free="false"), memory(keys)
    assert (flat.tokens, padded.tokens) == (24 + 40 + 32 + 48, 4 * 48)
    assert (flat.rows, padded.rows) == (4, 4)


def test_logits_are_those_of_a_chunk(light_keys: dict[str, Any]) -> None:
    whole, chunk = (memory(light_keys, loss_chunk_size=size) for size in (0, 16))
    assert whole.use.logits > 2 * chunk.use.logits


def test_a_model_that_cannot_run_without_values_is_estimated_by_formula(
    keys: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = memory(keys, optim="sgd")

    def fail(*_arguments: Any, **_given: Any) -> None:
        raise RuntimeError("reads a value")

    monkeypatch.setattr(LlamaForCausalLM, "forward", fail)
    monkeypatch.setattr("sftkit.training.planning.memory.step_trial.StepTrial.micro_batch", fail)
    rough = memory(keys, optim="sgd", loss_chunk_size=0)
    assert rough.rough == "reads a value"
    assert rough.use.weights == exact.use.weights
    assert 0.3 < rough.use.activations / exact.use.activations < 3
    text = "activations by formula, as the model cannot be run without weights (reads a value)"
    assert ("", text) in [*memory_lines(rough, "rows", None)]


def test_what_does_not_fit_is_said_with_what_would(large_keys: dict[str, Any]) -> None:
    large_keys |= {"torch_dtype": "float32", "gpu": "RTX 4090"}
    plan = memory(large_keys)
    assert (plan.fits, plan.capacity) == (False, 24 * GIB)
    text = " ".join(text for _, text in memory_lines(plan, "rows", "RTX 4090"))
    assert f"does not fit: needs {plan.use.total / GIB:.1f} GiB of the 24.0 GiB of one RTX 4090" in text
    found = {remedy.settings: remedy.total for remedy in plan.remedies}
    sharded = next(settings for settings in found if settings.startswith("fsdp=true on "))
    processes = int(sharded.split()[2].strip(","))
    again = memory(large_keys, fsdp=True, processes=processes)
    assert again.fits
    assert again.use.total == pytest.approx(found[sharded], rel=0.01)
    assert memory(large_keys, fsdp=True, processes=processes // 2).fits is False
    assert plan.use.weights < found["use_peft=true"] < 1.2 * plan.use.weights
    assert all(remedy.total <= 0.95 * 24 * GIB for remedy in plan.remedies)


def test_smaller_batches_are_proposed_with_more_of_them(
    light_keys: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    light_keys |= {"gpu": "RTX 4090", "loss_chunk_size": 4}
    one, two = (
        memory(light_keys, per_device_train_batch_size=rows, gradient_accumulation_steps=8 // rows) for rows in (1, 2)
    )
    between = (one.use.total + two.use.total) / 2
    monkeypatch.setattr(memory_use, "_USABLE", between / (24 * GIB))
    plan = memory(light_keys)
    assert not plan.fits
    assert Remedy("per_device_train_batch_size=1, gradient_accumulation_steps=8", one.use.total) in plan.remedies


def test_nothing_is_proposed_for_what_fits(keys: dict[str, Any]) -> None:
    plan = memory(keys, gpu="H100")
    assert plan.fits
    assert plan.remedies == ()
    assert ("", "fits into the 79.6 GiB of one H100") in [*memory_lines(plan, "rows", "H100")]


def test_nothing_makes_it_fit() -> None:
    use = MemoryUse(weights=30 * GIB, gradients=0, states=0, activations=GIB, logits=0)
    plan = MemoryPlan(
        use=use, all_gradients=0, checkpointing=False, otherwise=None, rows=1, tokens=8, attention="sdpa", sharding="",
        rough="", all_states=0, capacity=24 * GIB, remedies=(Remedy("use_peft=true", 29 * GIB),),
    )  # fmt: skip
    lines = [text for _, text in memory_lines(plan, "packs", "RTX 4090")]
    assert lines[-2:] == [
        "does not fit: needs 31.0 GiB of the 24.0 GiB of one RTX 4090, and nothing that was tried makes it fit",
        "use_peft=true needs 29.0 GiB",
    ]
    assert "for a micro-batch of 1 pack with 8 tokens, sdpa attention, without gradient checkpointing" in lines


def test_the_terminal_shows_the_memory(keys: dict[str, Any]) -> None:
    line = [f"--{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in keys.items()]
    done = command("train", *line, "--dry_run", "--gpu=a100 40gb")
    assert done.code == 0, done.err
    assert "fits into the 40.0 GiB of one A100 40GB" in done.out
    assert "for a micro-batch of 4 rows with 144 tokens, sdpa attention" in done.out


def test_a_plan_is_plain_data(keys: dict[str, Any]) -> None:
    plan = sftkit.plan_training(**keys, gpu="H100")
    written = json.loads(json.dumps(dataclasses.asdict(plan)))
    assert written["memory"]["use"]["weights"] == plan.memory.use.weights
    assert written["memory"]["remedies"] == []


def test_the_memory_of_every_named_gpu_is_known() -> None:
    sizes = {name: memory_size(name) for name in GPUS}
    assert all(sizes.values()), sizes
    assert sizes["A100"] == 80 * GIB
    assert sizes["A100 40GB"] == 40 * GIB
    assert memory_size("Unknown") is None


def test_the_recorder_counts_storages_once_and_notices_when_they_are_freed() -> None:
    weight = torch.zeros(1000, 4)
    recorder = ByteRecorder([weight], vocabulary=1000)
    with recorder:
        product = torch.ones(2, 4) @ weight.T  # 8 numbers, and 2 x 1000 logits
        view = product.view(-1)
        other = view + 1
        del product, view
        end = other.sum()
    timeline = recorder.timeline([end])
    assert timeline.peak() == LiveBytes(gradients=0, logits=8000, others=8000 + 32) or timeline.peak().logits == 8000
    assert timeline.left == 8000 + 4
    assert ByteTimeline([(Kind.GRADIENT, 8), (Kind.OTHER, 2)]).peak(0.5) == LiveBytes(4, 0, 2)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama-20m", "llama-20m-checkpointing", "llama-20m-adafactor", "qwen3-60m-lora"])
def test_the_estimate_is_within_20_percent_of_the_real_peak(name: str) -> None:
    """Four of the sixteen cases of `python -m benchmarks.training_memory`, which measures all of them."""
    from benchmarks.processes import run_module

    found = run_module("training_memory", "--cases", name, "--measure", "tensors")
    assert found["estimated"] == pytest.approx(found["peak"], rel=0.2), found
