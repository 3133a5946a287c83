"""The files in `configs/accelerate`: accelerate reads every key, and runs with their settings train on the CPU."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import FullyShardedDataParallelPlugin, ParallelismConfig
from accelerate.utils.dataclasses import DeepSpeedPlugin
from accelerate.utils.launch import (
    prepare_deepspeed_cmd_env,
    prepare_multi_gpu_env,
    prepare_simple_launcher_cmd_env,
)
from safetensors.torch import load_file

from .material import Launch, events, logged, run_launches

FOLDER = Path(__file__).resolve().parents[2] / "configs" / "accelerate"
PROCESSES = {
    "cpu_2_processes": 2,
    "ddp_8_gpus": 8,
    "deepspeed_zero2": 8,
    "deepspeed_zero3": 8,
    "fsdp2_8_gpus": 8,
    "multi_node": 16,
    "one_gpu": 1,
    "tensor_parallel_8_gpus": 8,
}
SHARDED = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "true",
    "FSDP_ACTIVATION_CHECKPOINTING": "true",
    "FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT",
}
ENVIRONMENT = {
    "cpu_2_processes": {"ACCELERATE_MIXED_PRECISION": "no"},
    "ddp_8_gpus": {"ACCELERATE_MIXED_PRECISION": "bf16"},
    "deepspeed_zero2": {
        "ACCELERATE_MIXED_PRECISION": "bf16",
        "ACCELERATE_USE_DEEPSPEED": "true",
        "ACCELERATE_DEEPSPEED_ZERO_STAGE": "2",
        "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": "none",
    },
    "deepspeed_zero3": {
        "ACCELERATE_MIXED_PRECISION": "bf16",
        "ACCELERATE_USE_DEEPSPEED": "true",
        "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3",
        "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": "none",
        "ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE": "none",
        "ACCELERATE_DEEPSPEED_ZERO3_INIT": "true",
        "ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL": "true",
    },
    "fsdp2_8_gpus": {"ACCELERATE_MIXED_PRECISION": "bf16", **SHARDED},
    "multi_node": {
        "ACCELERATE_MIXED_PRECISION": "bf16",
        **SHARDED,
        "ACCELERATE_USE_PARALLELISM_CONFIG": "true",
        "PARALLELISM_CONFIG_DP_REPLICATE_SIZE": "2",
        "PARALLELISM_CONFIG_DP_SHARD_SIZE": "8",
    },
    "one_gpu": {"ACCELERATE_MIXED_PRECISION": "bf16", "ACCELERATE_USE_CPU": "False"},
    "tensor_parallel_8_gpus": {
        "ACCELERATE_MIXED_PRECISION": "bf16",
        "ACCELERATE_USE_PARALLELISM_CONFIG": "true",
        "PARALLELISM_CONFIG_TP_SIZE": "2",
        "PARALLELISM_CONFIG_DP_SHARD_SIZE": "4",
    },
}
VARIABLES = {"$NODE_RANK": "1", "$MASTER_ADDR": "10.0.0.1", "$MASTER_PORT": "29511"}

every_file = pytest.mark.parametrize("name", sorted(PROCESSES))


@pytest.fixture(autouse=True)
def no_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove variables of a launch that the tests themselves may run under, and pretend that all ports are free."""
    for name in [*os.environ]:
        if name.startswith(("ACCELERATE_", "FSDP_", "PARALLELISM_CONFIG_")) or name in ("RANK", "WORLD_SIZE"):
            monkeypatch.delenv(name)
    monkeypatch.setattr("accelerate.utils.launch.is_port_in_use", lambda port: False)


def launch_line(name: str) -> list[str]:
    """The words after `accelerate launch` in the comment at the top of a file."""
    comment = [line for line in (FOLDER / f"{name}.yaml").read_text().splitlines() if line.startswith("#   ")]
    words = shlex.split(" ".join(line.removeprefix("#").strip().removesuffix("\\") for line in comment))
    assert words[:2] == ["accelerate", "launch"]
    return [VARIABLES.get(word, word) for word in words[2:]]


def launched(words: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> tuple[argparse.Namespace, dict[str, str]]:
    """How accelerate reads a launch line: its settings, and the environment of the processes it starts."""
    monkeypatch.chdir(FOLDER.parents[1])  # launch lines are relative to the repository
    args, defaults, precision = _validate_launch_command(launch_command_parser().parse_args([*words]))
    if args.use_deepspeed:
        fields = [*defaults.deepspeed_config, *(["mixed_precision"] if precision else [])]  # as launch_command does
        args.deepspeed_fields_from_accelerate_config = ",".join(fields)
        return args, prepare_deepspeed_cmd_env(args)[1]
    if args.use_fsdp or args.multi_gpu:
        return args, prepare_multi_gpu_env(args)
    return args, prepare_simple_launcher_cmd_env(args)[1]


def test_all_files_are_tested() -> None:
    assert sorted(path.stem for path in FOLDER.iterdir()) == sorted(PROCESSES)


@every_file
def test_accelerate_accepts_every_key(name: str) -> None:
    load_config_from_file(str(FOLDER / f"{name}.yaml"))  # raises for unknown keys at the top level
    content = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    known = {action.dest for action in launch_command_parser()._actions}
    assert {key for section in content.values() if isinstance(section, dict) for key in section} <= known
    # Options with a default in the parser are only taken from the command line.
    assert not {"rdzv_backend", "same_network", "enable_cpu_affinity", "downcast_bf16"} & set(content)


@every_file
def test_the_launch_line_in_a_file_gives_the_settings_of_the_file(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    args, environment = launched(launch_line(name), monkeypatch)
    assert (args.module, args.training_script, args.training_script_args[0]) == (True, "sftkit", "train")
    assert args.config_file == f"configs/accelerate/{name}.yaml"
    assert int(args.num_processes) == PROCESSES[name]
    assert {key: environment.get(key) for key in ENVIRONMENT[name]} == ENVIRONMENT[name]


def test_the_launch_line_takes_the_rendezvous_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    args, _ = launched(launch_line("multi_node"), monkeypatch)
    assert (args.nnodes, args.node_rank, args.nproc_per_node) == ("2", 1, "8")
    assert args.rdzv_endpoint == "10.0.0.1:29511"


@pytest.mark.parametrize("name", ["fsdp2_8_gpus", "multi_node"])
def test_fsdp_gets_the_settings_of_the_file(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in launched(launch_line(name), monkeypatch)[1].items():
        monkeypatch.setenv(key, value)
    plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2
    assert plugin.reshard_after_forward is True
    assert plugin.activation_checkpointing is True
    assert plugin.cpu_ram_efficient_loading is True
    assert plugin.auto_wrap_policy is not None
    assert plugin.state_dict_type is not None
    assert plugin.state_dict_type.name == "SHARDED_STATE_DICT"
    if name == "multi_node":
        sizes = ParallelismConfig()
        assert (sizes.dp_replicate_size, sizes.dp_shard_size, sizes.total_size) == (2, 8, 16)


@pytest.mark.parametrize(("name", "stage"), [("deepspeed_zero2", 2), ("deepspeed_zero3", 3)])
def test_deepspeed_gets_the_settings_of_the_file(name: str, stage: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in launched(launch_line(name), monkeypatch)[1].items():
        monkeypatch.setenv(key, value)
    plugin = DeepSpeedPlugin()
    assert plugin.deepspeed_config["zero_optimization"]["stage"] == stage
    assert plugin.deepspeed_config["zero_optimization"]["stage3_gather_16bit_weights_on_model_save"] is (stage == 3)
    assert plugin.zero3_init_flag is (stage == 3)
    # The Trainer fills these in from its own arguments.
    assert [plugin.deepspeed_config[key] for key in ("gradient_accumulation_steps", "gradient_clipping")] == [
        "auto"
    ] * 2


@pytest.fixture(scope="module")
def common(model_dir: Path) -> list[str]:
    return [
        f"--model_name_or_path={model_dir}", "--use_cpu=true", "--learning_rate=1e-3", "--logging_steps=1",
        "--save_strategy=no", "--log_level=error",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory, common: list[str], shard_dir: Path) -> Path:
    """A directory with the outputs of launches with and without FSDP; `fsdp` was resumed in the middle."""
    folder = tmp_path_factory.mktemp("sharded")
    launches: list[Launch] = []

    def add(name: str, processes: int, words: Sequence[str], *argv: str, remove: Sequence[Path] = ()) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("accelerate.utils.launch.is_port_in_use", lambda port: False)
            variables = launched([*words, "-m", "sftkit", "train"], patch)[1] if words else {}
        environment = {key: value for key, value in variables.items() if os.environ.get(key) != value}
        data = [f"--training_data_path={shard_dir}", "--max_steps=6", f"--output_dir={folder / name}"]
        launches.append(Launch([*common, *data, *argv], processes, environment, remove=[*map(str, remove)]))

    one = ["--config_file", "configs/accelerate/fsdp2_8_gpus.yaml", "--num_processes", "2", "--mixed_precision", "no"]
    two = ["--config_file", "configs/accelerate/multi_node.yaml", "--num_processes", "4", "--mixed_precision", "no"]
    two += ["--machine_rank", "0", "--main_process_ip", "127.0.0.1", "--parallelism_config_dp_shard_size", "2"]
    add("alone", 1, [], "--per_device_train_batch_size=4", "--gradient_accumulation_steps=2")
    saving = ("--per_device_train_batch_size=4", "--save_strategy=steps", "--save_steps=3")
    add("fsdp", 2, one, *saving)
    add("fsdp", 2, one, *saving, remove=[folder / "fsdp" / "checkpoint-6"])
    add("best", 2, one, *saving, "--eval_strategy=steps", "--eval_steps=3", "--load_best_model_at_end=true")
    add("hybrid", 4, two, "--per_device_train_batch_size=2")
    parts = ["--config_file", "configs/accelerate/tensor_parallel_8_gpus.yaml", "--mixed_precision", "no"]
    parts += ["--num_processes", "4", "--parallelism_config_dp_shard_size", "2"]
    evaluating = ("--eval_strategy=steps", "--eval_steps=3")
    add("tensor", 4, parts, "--per_device_train_batch_size=4", *evaluating)
    run_launches(launches)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fsdp", "hybrid", "tensor"])
def test_a_sharded_model_trains_as_one_that_is_not_sharded(sharded: Path, name: str) -> None:
    assert len(logged(sharded / "alone", "loss")) == 6
    assert logged(sharded / name, "loss") == pytest.approx(logged(sharded / "alone", "loss"), rel=1e-5)
    expected, found = (load_file(sharded / each / "model.safetensors") for each in ("alone", name))
    assert set(found) == set(expected)
    assert all(found[key].sub(expected[key]).abs().max() < 1e-5 for key in expected)


@pytest.mark.slow
def test_a_sharded_run_resumes_from_its_checkpoint(sharded: Path) -> None:
    assert {path.name for path in (sharded / "fsdp").glob("checkpoint-*")} == {"checkpoint-3", "checkpoint-6"}
    assert not (sharded / "fsdp" / "checkpoint-3" / "model.safetensors").exists()
    resumed, whole = (json.loads((sharded / name / "report.json").read_text()) for name in ("fsdp", "alone"))
    assert resumed["steps"] == whole["steps"] == 6
    assert 0 < resumed["tokens"] < whole["tokens"]


@pytest.mark.slow
def test_a_sharded_run_finds_its_best_checkpoint_without_a_deadlock(sharded: Path) -> None:
    assert logged(sharded / "best", "loss") == pytest.approx(logged(sharded / "alone", "loss"), rel=1e-5)
    evaluated, in_parts = (
        {event["step"]: event["eval_loss"] for event in events(sharded / name) if "eval_loss" in event}
        for name in ("best", "tensor")
    )
    assert in_parts == pytest.approx(evaluated, rel=1e-5)
    assert set(evaluated) == {3, 6}
    best = json.loads((sharded / "best" / "trainer_state.json").read_text())["best_model_checkpoint"]
    assert Path(best).name == f"checkpoint-{min(evaluated, key=evaluated.__getitem__)}"


@pytest.mark.slow
def test_the_cpu_config_trains_in_two_processes(
    tmp_path: Path, common: list[str], write_rows: Callable[..., None]
) -> None:
    rows = [[2 + number, *range(10, 12 + number)] for number in range(11)]  # the last of three steps of 4 rows has 3
    write_rows(tmp_path / "shards" / "train-0.parquet", rows, rows)
    words = ["--config_file", str(FOLDER / "cpu_2_processes.yaml"), "--main_process_port", "0", "-m", "sftkit", "train"]
    argv = ["--per_device_train_batch_size=2", "--num_train_epochs=1"]
    argv += [f"--training_data_path={tmp_path / 'shards'}", f"--output_dir={tmp_path / 'out'}"]
    done = subprocess.run(
        [sys.executable, "-m", "accelerate.commands.launch", *words, *common, *argv],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(logged(tmp_path / "out", "loss")) == 3
    assert f"{sum(map(len, rows))} tokens" in " ".join(done.stdout.split())
    assert (tmp_path / "out" / "model.safetensors").is_file()
