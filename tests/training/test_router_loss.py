"""The auxiliary loss of mixtures of experts is that of the whole step, however its rows are divided."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, TrainingArguments, set_seed

from sftkit.config.commands import TrainConfig
from sftkit.config.validation import validate_config
from sftkit.errors import ConfigError, TrainingError
from sftkit.training.data.collation import CollatedBatch
from sftkit.training.data.work_counts import WorkCounts
from sftkit.training.loss.router_loss import RouterLoss, make_router_loss, router_arguments

from .material import Launch, events, logged, run_launches

SHAPE: Mapping[str, Any] = MappingProxyType(
    {
        "vocab_size": 300, "hidden_size": 32, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 2, "num_experts_per_tok": 2, "pad_token_id": 0, "bos_token_id": None, "eos_token_id": 1,
        "initializer_range": 0.3,
    }
)  # fmt: skip

ARCHITECTURES: Mapping[str, Mapping[str, Any]] = {
    "mixtral": {"num_local_experts": 4},
    "qwen2_moe": {"num_experts": 4, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16},
    "qwen3_moe": {"num_experts": 4, "moe_intermediate_size": 16, "head_dim": 16},
    "olmoe": {"num_experts": 4},
    "gpt_oss": {"num_local_experts": 4, "head_dim": 16},
    "granitemoe": {"num_local_experts": 4},
    "phimoe": {"num_local_experts": 4},
    "ernie4_5_moe": {"moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 16, "moe_layer_start_index": 1},
    "jamba": {
        "num_experts": 4, "use_mamba_kernels": False, "attn_layer_period": 2, "attn_layer_offset": 1,
        "mamba_dt_rank": 4, "mamba_d_state": 4,
    },
    "minimax": {"num_local_experts": 4, "head_dim": 16, "block_size": 8, "layer_types": ["full_attention"] * 2},
}  # fmt: skip


def make_model(architecture: str, **settings: Any) -> Any:
    config = AutoConfig.for_model(architecture, **{**SHAPE, **ARCHITECTURES.get(architecture, {}), **settings})
    set_seed(3)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).train()


def run_arguments(**given: Any) -> TrainingArguments:
    return TrainingArguments(output_dir="out", use_cpu=True, do_train=True, **given)


def router_loss(model: Any, coefficient: float | None) -> RouterLoss:
    loss = make_router_loss(model, coefficient, run_arguments())
    assert loss is not None
    return loss


def gradients(model: Any) -> torch.Tensor:
    return torch.cat([values.grad.flatten() for values in model.parameters() if values.grad is not None])


def batch(ids: torch.Tensor, lengths: Sequence[int]) -> CollatedBatch:
    """A padded micro-batch of rows with these lengths; a length of 0 is a process without rows."""
    mask = (torch.arange(ids.shape[1]) < torch.tensor(lengths)[:, None]).long()
    inputs = {"input_ids": ids, "use_cache": False, **({"attention_mask": mask} if any(lengths) else {})}
    return CollatedBatch(inputs, WorkCounts(tokens=sum(lengths)))


def backward(model: Any, loss: RouterLoss, batches: Sequence[CollatedBatch]) -> float:
    """The auxiliary loss of a step; gradients are added up in the model."""
    model.zero_grad()
    total = 0.0
    loss.begin_step(batches)
    for each in batches:
        loss.count(model, lambda inputs: inputs)
        part = loss.of_batch(model(**each, **router_arguments(model, True)), each)
        part.backward()
        total += float(part.detach())
    return total


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_micro_batches_add_up_to_the_loss_of_the_whole_batch(architecture: str) -> None:
    model = make_model(architecture)
    ids = torch.randint(3, 300, (3, 12), generator=torch.Generator().manual_seed(1))
    lengths = (12, 7, 3)
    whole = model(**batch(ids, lengths), output_router_logits=True).aux_loss
    (0.5 * whole).backward()
    expected = gradients(model)
    parts = [batch(ids[row : row + 1, :length], [length]) for row, length in enumerate(lengths)]
    without_rows = batch(ids[:1, :1], [0])
    found = backward(model, router_loss(model, 0.5), [*parts, without_rows])
    assert found == pytest.approx(0.5 * float(whole.detach()), rel=1e-5)
    torch.testing.assert_close(gradients(model), expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max()))


def test_dropout_is_the_same_when_experts_are_counted() -> None:
    model = make_model("qwen2_moe", attention_dropout=0.5)
    ids = torch.randint(3, 300, (2, 12), generator=torch.Generator().manual_seed(1))
    parts = [batch(ids[row : row + 1], [12]) for row in range(2)]
    loss = router_loss(model, 1.0)
    set_seed(5)
    outputs = [model(**part, output_router_logits=True)["router_logits"] for part in parts]
    chosen = torch.cat([layer.topk(2).indices.flatten() for logits in outputs for layer in logits])
    set_seed(5)
    loss.begin_step(parts)
    loss.count(model, lambda inputs: inputs)
    assert loss._load is not None
    assert loss._load.tolist() == [*chosen.bincount(minlength=4).tolist(), 48]
    repeated = model(**parts[0], output_router_logits=True)["router_logits"]
    torch.testing.assert_close(repeated, outputs[0], rtol=0, atol=0)


def test_the_model_adds_no_loss_of_its_own() -> None:
    model = make_model("qwen3_moe", output_router_logits=True, router_aux_loss_coef=2.0)
    loss = router_loss(model, None)
    ids = torch.arange(3, 15)[None]
    entropy = model(input_ids=ids, labels=ids, **router_arguments(model, False)).loss
    with loss.without_own_loss():
        outputs = model(input_ids=ids, labels=ids, **router_arguments(model, True))
    assert outputs.loss.item() == pytest.approx(entropy.item())
    assert (loss.coefficient, model.router_aux_loss_coef, model.config.router_aux_loss_coef) == (2.0, 2.0, 2.0)


@pytest.mark.parametrize(
    ("in_model", "given", "expected"), [(True, None, 0.02), (False, None, None), (True, 0.0, None), (False, 0.1, 0.1)]
)
def test_the_option_comes_before_the_config_of_the_model(
    in_model: bool, given: float | None, expected: float | None
) -> None:
    model = make_model("mixtral", output_router_logits=in_model, router_aux_loss_coef=0.02)
    loss = make_router_loss(model, given, run_arguments())
    assert (loss and loss.coefficient) == expected


def test_a_model_without_an_auxiliary_loss_is_refused(model_dir: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(model_dir)
    with pytest.raises(
        TrainingError, match=r"^router_aux_loss_coef: LlamaForCausalLM computes no auxiliary loss; remo"
    ):
        make_router_loss(model, 0.1, run_arguments())
    assert make_router_loss(model, None, run_arguments()) is None
    assert make_router_loss(model, 0.0, run_arguments()) is None


def test_a_mixture_without_routers_is_refused() -> None:
    model = make_model("qwen3_moe", mlp_only_layers=[0, 1])
    with pytest.raises(TrainingError, match="this Qwen3MoeForCausalLM has no router whose load could be balanced"):
        make_router_loss(model, 0.1, run_arguments())


def test_a_loss_of_another_form_is_refused() -> None:
    model = make_model("doge", is_moe=True, num_experts=16)
    with pytest.raises(TrainingError, match="DogeForCausalLM computes its auxiliary loss in a way that cannot be div"):
        make_router_loss(model, 0.1, run_arguments())


def test_reentrant_checkpointing_is_refused() -> None:
    arguments = run_arguments(activation_checkpointing=True, activation_checkpointing_kwargs={"use_reentrant": True})
    with pytest.raises(ConfigError, match="use_reentrant: reentrant checkpointing loses the gradient of the auxil"):
        make_router_loss(make_model("mixtral"), 0.1, arguments)


def test_a_negative_coefficient_is_refused(model_dir: Path) -> None:
    config = TrainConfig(output_dir="out", model_name_or_path=str(model_dir), router_aux_loss_coef=-1.0)
    with pytest.raises(ConfigError, match="router_aux_loss_coef must be 0 or more, not -1"):
        validate_config(config)


RUNS: Mapping[str, tuple[int, tuple[str, ...]]] = {
    "whole": (1, ("--per_device_train_batch_size=6",)),
    "accumulated": (1, ("--per_device_train_batch_size=2", "--gradient_accumulation_steps=3")),
    "padded": (
        1,
        ("--per_device_train_batch_size=3", "--gradient_accumulation_steps=2", "--padding_free=false"),
    ),
    "two processes": (2, ("--per_device_train_batch_size=3",)),
    "two processes, accumulated": (
        2,
        ("--per_device_train_batch_size=1", "--gradient_accumulation_steps=3", "--gradient_checkpointing=true"),
    ),
    "cross entropy": (1, ("--per_device_train_batch_size=6", "--router_aux_loss_coef=0")),
    "logged once": (
        1,
        ("--per_device_train_batch_size=6", "--logging_steps=2", "--save_strategy=steps", "--save_steps=1"),
    ),
    "resumed": (1, ("--per_device_train_batch_size=6", "--logging_steps=2", "--save_strategy=steps", "--save_steps=1")),
}


@pytest.fixture(scope="module")
def runs(
    tmp_path_factory: pytest.TempPathFactory,
    make_tokenizer: Callable[[Path], Path],
    write_rows: Callable[[Path, Sequence[Sequence[int]], Sequence[Sequence[int]]], None],
) -> Path:
    """The outputs of `RUNS`: an epoch of two steps, the second of five rows, so that a process has none in the end."""
    folder = tmp_path_factory.mktemp("runs")
    model = make_model("qwen3_moe", num_experts=16)
    model.save_pretrained(folder / "model")
    make_tokenizer(folder / "model")
    generator = np.random.default_rng(2)
    ids = [generator.integers(2, 250, length).tolist() for length in (5, 9, 3, 14, 6, 7, 11, 4, 8, 12, 5)]
    write_rows(folder / "shards" / "train-0.parquet", ids, ids)
    write_rows(folder / "shards" / "validation-0.parquet", ids, ids)
    common = (
        *(f"--model_name_or_path={folder / 'model'}", f"--training_data_path={folder / 'shards'}", "--use_cpu=true"),
        *("--num_train_epochs=1", "--learning_rate=1e-2", "--logging_steps=1", "--save_strategy=no"),
        *("--log_level=error", "--eval_strategy=epoch", "--train_sampling_strategy=sequential"),
        "--router_aux_loss_coef=0.5",
    )
    launches = []
    for name, (processes, argv) in RUNS.items():
        copy = [(str(folder / "logged once" / "checkpoint-1"), str(folder / name / "checkpoint-1"))]
        launches.append(
            Launch(
                [*common, f"--output_dir={folder / name}", *argv],
                processes,
                {"ACCELERATE_USE_CPU": "true"},
                copy=copy if name == "resumed" else [],
            )
        )
    run_launches(launches)
    return folder


@pytest.mark.parametrize("name", ["accumulated", "padded", "two processes", "two processes, accumulated"])
def test_a_step_can_be_divided_in_any_way(runs: Path, name: str) -> None:
    for key in ("loss", "aux_loss", "grad_norm", "eval_loss"):
        assert logged(runs / name, key) == pytest.approx(logged(runs / "whole", key), rel=2e-5)


def test_the_loss_includes_the_auxiliary_loss_but_that_of_evaluation_does_not(runs: Path) -> None:
    [entropy, *_], [loss, *_], [auxiliary, *_] = (
        logged(runs / name, key) for name, key in (("cross entropy", "loss"), ("whole", "loss"), ("whole", "aux_loss"))
    )
    assert loss == pytest.approx(entropy + 0.5 * auxiliary, rel=1e-5)
    assert not any("aux_loss" in event for event in events(runs / "cross entropy"))
    model = AutoModelForCausalLM.from_pretrained(runs / "cross entropy").eval()
    rows = pq.read_table(runs / "shards" / "validation-0.parquet")["input_ids"].to_pylist()
    tokens = [len(row) - 1 for row in rows]
    with torch.no_grad():
        means = [float(model(input_ids=torch.tensor([row]), labels=torch.tensor([row])).loss) for row in rows]
    expected = float(np.average(means, weights=tokens))
    assert logged(runs / "cross entropy", "eval_loss") == pytest.approx([expected], rel=1e-5)


def test_the_settings_of_the_model_are_saved_unchanged(runs: Path) -> None:
    config = AutoConfig.from_pretrained(runs / "whole")
    assert (config.output_router_logits, config.router_aux_loss_coef) == (False, 0.001)


def test_a_resumed_run_logs_the_same_auxiliary_loss(runs: Path) -> None:
    assert logged(runs / "resumed", "aux_loss") == logged(runs / "logged once", "aux_loss")
    assert logged(runs / "logged once", "aux_loss") == pytest.approx([sum(logged(runs / "whole", "aux_loss")) / 2])
