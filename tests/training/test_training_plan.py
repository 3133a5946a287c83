"""The plan of a run (`train --dry_run`): its steps, events and sizes are those of the run itself."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import sftkit
from reliability.material import sftkit as command
from sftkit.config.commands import TrainConfig
from sftkit.config.loading import load_config
from sftkit.config.schema.plan_options import GPUS
from sftkit.errors import ConfigError
from sftkit.shards.reading import open_shards
from sftkit.training.arguments.build_arguments import extra_keys, make_training_arguments
from sftkit.training.callbacks.listener import SilentListener
from sftkit.training.metrics.hardware import peak_flops
from sftkit.training.models.capabilities import Capabilities
from sftkit.training.planning.plan_run import TrainingPlan, plan_run
from sftkit.training.setup.data_setup import make_feed
from sftkit.training.setup.model_setup import PreparedModel, prepare_model
from sftkit.training.setup.trainer_setup import make_trainer

from .material import Launch, events, run_launches, write_layout

ROWS = [3 + row % 7 for row in range(41)]
UNUSABLE = [20, 3, 20, *ROWS]


def line_of(model: Path, shards: Path, output: Path, *words: str) -> list[str]:
    return [f"--model_name_or_path={model}", f"--training_data_path={shards}", f"--output_dir={output}",
            "--use_cpu=true", *words]  # fmt: skip


def planned(line: Sequence[str], processes: int | None = None) -> TrainingPlan:
    config = load_config(TrainConfig, [*line], extra_keys=extra_keys())
    arguments = make_training_arguments(config)
    arguments.planned_processes = processes
    return plan_run(config, arguments, open_shards(config.training_data_path[0]))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("data")
    write_layout(folder / "rows", [[ROWS[:20], ROWS[20:30]], [ROWS[30:]]])
    write_layout(folder / "packs", [[[16] * 9], [[15] * 8]], packed=True)
    write_layout(folder / "long", [[UNUSABLE]])
    return {name: folder / name for name in ("rows", "packs", "long")}


@pytest.fixture(scope="module")
def prepared(model_dir: Path, data: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> PreparedModel:
    line = line_of(model_dir, data["rows"], tmp_path_factory.mktemp("prepared"))
    config = load_config(TrainConfig, line, extra_keys=extra_keys())
    return prepare_model(config, make_training_arguments(config), open_shards(str(data["rows"])), SilentListener())


@pytest.mark.parametrize("epochs", ["1", "2.5"])
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("rows", "--per_device_train_batch_size=4"),
        ("rows", "--per_device_train_batch_size=4 --gradient_accumulation_steps=3"),
        ("rows", "--per_device_train_batch_size=4 --gradient_accumulation_steps=3 --dataloader_drop_last=true"),
        ("rows", "--tokens_per_device_batch=20"),
        ("rows", "--tokens_per_device_batch=20 --gradient_accumulation_steps=4"),
        ("rows", "--tokens_per_device_batch=20 --gradient_accumulation_steps=4 --dataloader_drop_last=true"),
        ("rows", "--tokens_per_device_batch=20 --padding_free=false"),
        ("rows", "--per_device_train_batch_size=3 --streaming=true --gradient_accumulation_steps=2"),
        ("rows", "--per_device_train_batch_size=3 --streaming=true --dataloader_drop_last=true"),
        ("rows", "--per_device_train_batch_size=3 --max_steps=7"),
        ("packs", "--per_device_train_batch_size=2 --gradient_accumulation_steps=2"),
        ("packs", "--tokens_per_device_batch=40"),
        ("long", "--per_device_train_batch_size=2 --max_seq_length=10 --overflow=drop"),
    ],
)
def test_the_steps_are_those_of_the_trainer(
    name: str, words: str, epochs: str, data: dict[str, Path], model_dir: Path, prepared: PreparedModel, tmp_path: Path
) -> None:
    line = line_of(model_dir, data[name], tmp_path / "out", *words.split(), f"--num_train_epochs={epochs}")
    plan = planned(line)
    config = load_config(TrainConfig, line, extra_keys=extra_keys())
    arguments = make_training_arguments(config)
    shards = open_shards(str(data[name]))
    feed = make_feed(config, arguments, shards, prepared.model, prepared.capabilities, 0)
    trainer = make_trainer(arguments, prepared, feed, [])
    loader = trainer.get_train_dataloader()
    _, per_epoch, _, _, _, batches, steps = trainer.set_initial_training_values(arguments, loader)
    assert (plan.steps.per_epoch, plan.steps.batches_per_epoch, plan.steps.total) == (per_epoch, batches, steps)
    counts = [batch.counts for batch in loader]
    assert plan.work.measured == 1
    assert plan.work.tokens == sum(each.tokens for each in counts)
    assert plan.work.trained_tokens == sum(each.trained_tokens for each in counts)
    assert plan.work.squared_lengths == sum(each.squared_lengths for each in counts)
    assert plan.work.head_positions == sum(each.head_positions for each in counts)


@pytest.mark.slow
def test_the_steps_are_those_of_runs_with_several_processes(
    data: dict[str, Path], model_dir: Path, tmp_path: Path
) -> None:
    cases = [
        (2, "packs", "--per_device_train_batch_size=2 --gradient_accumulation_steps=2"),
        (2, "rows", "--tokens_per_device_batch=20 --gradient_accumulation_steps=2 --dataloader_drop_last=true"),
        (3, "rows", "--per_device_train_batch_size=9 --split_batches=true"),
        (3, "rows", "--per_device_train_batch_size=4 --streaming=true"),
    ]
    lines = [
        line_of(model_dir, data[name], tmp_path / str(number), *words.split(), "--num_train_epochs=1",
                "--save_strategy=no")
        for number, (_, name, words) in enumerate(cases)
    ]  # fmt: skip
    run_launches([Launch(line, processes) for line, (processes, _, _) in zip(lines, cases, strict=True)])
    for number, (processes, _, _) in enumerate(cases):
        report = json.loads((tmp_path / str(number) / "report.json").read_text())
        plan = planned(lines[number], processes)
        assert plan.steps.total == report["steps"] > 1, cases[number]
        assert plan.work.tokens == report["tokens"], cases[number]


@pytest.mark.parametrize(
    "words",
    [
        "--eval_strategy=steps --eval_steps=3 --save_steps=4 --max_steps=10",
        "--eval_strategy=steps --eval_steps=0.25 --eval_delay=4 --save_steps=5 --max_steps=10 --save_total_limit=1",
        "--eval_strategy=epoch --save_strategy=epoch --num_train_epochs=2.5",
        "--do_eval=true --eval_on_start=true --save_strategy=no --max_steps=2 --use_peft=true --lora_r=64",
        "--save_steps=2 --max_steps=2 --optim=sgd --optim_args=momentum=0.9",
        "--save_steps=2 --max_steps=2 --optim=muon",
    ],
)
def test_evaluations_and_checkpoints_are_those_of_the_run(
    words: str, model_dir: Path, shard_dir: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    line = line_of(model_dir, shard_dir, out, *words.split(), "--per_device_train_batch_size=6")
    plan = planned(line)
    assert not out.exists()
    config = load_config(TrainConfig, line, extra_keys=extra_keys())
    report = sftkit.train(config)
    assert plan.steps.total == report.steps
    assert plan.evaluations.count == sum("eval_loss" in event for event in events(out))
    checkpoints = list(out.glob("checkpoint-*"))
    limit = 1 if "limit" in words else None
    assert len(checkpoints) == min(plan.checkpoints.count, limit or plan.checkpoints.count)
    assert plan.kept_checkpoints == min(plan.checkpoints.count, len(checkpoints) + (limit is not None))
    [weights] = out.glob("*model.safetensors")
    assert plan.weight_bytes == pytest.approx(weights.stat().st_size, rel=0.05)
    for checkpoint in checkpoints:
        assert plan.state_bytes == pytest.approx((checkpoint / "optimizer.pt").stat().st_size, rel=0.15)


def test_the_learning_rates_are_those_of_the_run(model_dir: Path, shard_dir: Path, tmp_path: Path) -> None:
    words = ("--max_steps=9", "--warmup_steps=3", "--lr_scheduler_type=cosine", "--learning_rate=0.01",
             "--logging_steps=1", "--save_strategy=no")  # fmt: skip
    line = line_of(model_dir, shard_dir, tmp_path / "out", *words)
    schedule = planned(line).schedule
    assert (schedule.name, schedule.peak, schedule.warmup_steps, len(schedule.shares)) == ("cosine", 0.01, 3, 9)
    sftkit.train(load_config(TrainConfig, line, extra_keys=extra_keys()))
    rates = [event["learning_rate"] for event in events(tmp_path / "out") if "loss" in event]
    assert [share * 0.01 for share in schedule.shares] == pytest.approx(rates)


def test_the_cost_is_that_of_the_run_and_the_time_follows_from_it(
    model_dir: Path, shard_dir: Path, tmp_path: Path
) -> None:
    keys: dict[str, Any] = {
        "model_name_or_path": str(model_dir),
        "training_data_path": str(shard_dir),
        "output_dir": str(tmp_path / "out"),
        "use_cpu": True,
        "num_train_epochs": 2,
        "save_strategy": "no",
    }
    plan = sftkit.plan_training(**keys, processes=2, gpu="h100", mfu=0.5, price_per_hour=3)
    assert not (tmp_path / "out").exists()
    sftkit.train(**keys)
    state = json.loads((tmp_path / "out" / "trainer_state.json").read_text())
    assert plan.flops == pytest.approx(state["total_flos"], rel=1e-6)
    assert plan.time is not None
    assert plan.flops is not None
    assert (plan.time.gpu, plan.time.dtype, plan.time.peak_flops) == ("H100", "float32", pytest.approx(66.9e12))
    assert plan.time.seconds == pytest.approx(plan.flops / (66.9e12 * 0.5 * 2))
    assert plan.time.price == pytest.approx(3 * 2 * plan.time.seconds / 3600)


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"use_peft": True, "lora_r": 4},
        {"use_peft": True, "lora_r": 4, "init_lora_weights": "pissa", "lora_modules_to_save": ["embed_tokens"]},
        {"add_special_tokens": ["<new>"], "embedding_size_multiple_of": 64, "freeze": ["layers.0"]},
        {"use_peft": True, "add_special_tokens": ["<new>"]},
    ],
)
def test_parameters_are_those_of_the_loaded_model(
    keys: dict[str, Any], model_dir: Path, shard_dir: Path, tmp_path: Path
) -> None:
    config = replace(
        TrainConfig(output_dir=str(tmp_path / "out"), model_name_or_path=str(model_dir)),
        training_data_path=(str(shard_dir),),
        training_arguments={"use_cpu": True},
        **{key: tuple(value) if isinstance(value, list) else value for key, value in keys.items()},
    )
    shards = open_shards(str(shard_dir))
    plan = plan_run(config, make_training_arguments(config), shards)
    model = prepare_model(config, make_training_arguments(config), shards, SilentListener()).model
    assert plan.parameters == sum(values.numel() for values in model.parameters())
    assert plan.trained_parameters == sum(values.numel() for values in model.parameters() if values.requires_grad)


def test_an_adapter_that_is_trained_further_is_planned(model_dir: Path, shard_dir: Path, tmp_path: Path) -> None:
    common: dict[str, Any] = {"training_data_path": str(shard_dir), "use_cpu": True, "max_steps": 1, "use_peft": True}
    sftkit.train(**common, model_name_or_path=str(model_dir), lora_r=64, output_dir=str(tmp_path / "adapter"))
    plan = sftkit.plan_training(
        **common, model_name_or_path=str(tmp_path / "adapter"), output_dir=str(tmp_path / "more")
    )
    assert plan.adapters
    [weights] = (tmp_path / "adapter").glob("adapter_model.safetensors")
    assert plan.weight_bytes == pytest.approx(weights.stat().st_size, rel=0.05)


def test_a_large_model_is_planned_without_its_weights(
    shard_dir: Path, model_dir: Path, tmp_path: Path, make_tokenizer: Callable[..., Path]
) -> None:
    folder = make_tokenizer(tmp_path / "large")
    settings = json.loads((model_dir / "config.json").read_text())
    settings |= {"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64,
                 "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 128256}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(settings))
    plan = sftkit.plan_training(
        training_data_path=str(shard_dir), model_name_or_path=str(folder), init_from_config=True, use_cpu=True,
        torch_dtype="bfloat16", output_dir=str(tmp_path / "out"), gpu="H100", processes=8,
    )  # fmt: skip
    assert plan.parameters == 70_553_706_496  # Llama 3 70B
    assert plan.weight_bytes == 2 * plan.parameters
    assert plan.time is not None
    assert plan.time.peak_flops == 989.4e12


def test_the_terminal_shows_the_plan_and_nothing_is_written(
    data: dict[str, Path], model_dir: Path, tmp_path: Path
) -> None:
    before = sorted(tmp_path.rglob("*"))
    done = command(
        "train", *line_of(model_dir, data["packs"], tmp_path / "out"), "--dry_run", "--processes=2", "--gpu=A100",
        "--per_device_train_batch_size=2", "--num_train_epochs=2", "--warmup_steps=2", "--price_per_hour=1.5",
        "--save_steps=4",
    )  # fmt: skip
    assert done.code == 0, done.err
    lines = dict(line.split("  ", 1) for line in done.out.splitlines() if "  " in line)
    shown = {name.strip(): text.strip() for name, text in lines.items()}
    assert shown["data"] == "17 packs, 264 tokens an epoch (87.1% trained)"
    assert shown["batch"] == "2 devices x 2 packs, without padding"
    assert shown["tokens a step"] == "53 (26 on each device) on average"
    assert shown["steps"] == "10 in all (5 an epoch, 2 epochs)"
    assert shown["learning rate"] == "5e-05, linear, 2 steps of warm-up"
    assert "▁▅█▇▆▅▅▄▃▂" in done.out
    assert shown["checkpoints"] == "3: every 4 steps and at the end"
    assert "on 2 x A100 (at 0.4 of 19.5 TFLOPS in float32)" in done.out
    assert "nothing was written" in done.out
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "1 device x 8 rows, without padding"),
        (
            ["--tokens_per_device_batch=20"],
            "at most 20 tokens, without padding (expected; set padding_free to be sure)",
        ),
        (["--tokens_per_device_batch=20", "--padding_free=false"], "1 device x at most 20 tokens, padded\n"),
    ],
)
def test_the_terminal_says_whether_the_steps_depend_on_an_expectation(
    words: list[str], expected: str, data: dict[str, Path], model_dir: Path, tmp_path: Path
) -> None:
    done = command("train", *line_of(model_dir, data["rows"], tmp_path / "out", *words), "--dry_run")
    assert expected in re.sub(" +\n", "\n", done.out)


def test_padding_free_decides_where_the_class_of_a_model_expects_padding(
    data: dict[str, Path], model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = Capabilities(separates_sequences=False, supports_logits_to_keep=True, sums_loss=True)
    monkeypatch.setattr("sftkit.training.planning.outline.capabilities_by_class", lambda model: nothing)
    line = line_of(model_dir, data["rows"], tmp_path / "out")
    assert planned(line).batches.padded
    assert not planned([*line, "--padding_free=true"]).batches.padded


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"gpu": "H1000"}, "gpu must be one of GB200, B200, B100, GH200, H200, H100, "),
        ({"gpu": "H100", "mfu": 0}, "mfu must be above 0 and at most 1, not 0"),
        ({"gpu": "H100", "mfu": 40}, "mfu must be above 0 and at most 1, not 40"),
        ({"gpu": "H100", "price_per_hour": -1}, "price_per_hour must be 0 or more, not -1"),
        ({"price_per_hour": 2}, "price_per_hour needs gpu"),
        ({"processes": 0}, "processes must be 1 or more, not 0"),
        ({"processes": 3, "split_batches": True}, "a batch of 8 (per_device_train_batch_size) cannot be split evenly"),
        ({"do_train": False, "do_eval": True}, "with do_train=false there is no training to plan"),
        ({"training_data_path": "sample:pairs.jsonl"}, "the data are not tokenized yet"),
    ],
)
def test_what_cannot_be_planned_is_one_sentence(
    keys: dict[str, Any], sentence: str, data: dict[str, Path], model_dir: Path, tmp_path: Path
) -> None:
    usual = {"training_data_path": str(data["rows"]), "model_name_or_path": str(model_dir), "use_cpu": True}
    places = {"output_dir": str(tmp_path / "out"), "cache_dir": str(tmp_path / "cache")}
    with pytest.raises(ConfigError) as error:
        sftkit.plan_training(**{**usual, **places, **keys})
    assert sentence in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_run_refuses_the_keys_of_a_plan_that_it_would_not_follow(
    data: dict[str, Path], model_dir: Path, tmp_path: Path
) -> None:
    usual = {"training_data_path": str(data["rows"]), "model_name_or_path": str(model_dir), "use_cpu": True}
    with pytest.raises(ConfigError, match="processes is only for dry_run; start several processes with torchrun"):
        sftkit.train(**usual, output_dir=str(tmp_path), processes=2)
    with pytest.raises(ConfigError, match=r"call sftkit\.plan_training instead"):
        sftkit.train(**usual, output_dir=str(tmp_path), dry_run=True)


def test_the_peak_of_every_named_gpu_is_known() -> None:
    assert all(peak_flops(name, torch.bfloat16) for name in GPUS)
