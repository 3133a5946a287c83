"""Training options of fms-hf-tuning: each sets a key, or says in one sentence what is done instead."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import sftkit
from sftkit.cli.app import app
from sftkit.config.commands import TrainConfig
from sftkit.config.loading import load_config
from sftkit.errors import ConfigError, OutputError
from sftkit.training.arguments.build_arguments import argument_problems, extra_keys
from sftkit.training.arguments.fms_arguments import FMS_ARGUMENTS, with_fms_arguments
from support import write_jsonl


def parsed(*argv: str) -> TrainConfig:
    return load_config(TrainConfig, ["--output_dir=out", *argv], extra_keys=extra_keys(), check_extra=argument_problems)


def config(*argv: str) -> TrainConfig:
    return with_fms_arguments(parsed(*argv))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--peft_method lora --r 4 --lora_alpha 8", {"use_peft": True, "lora_r": 4, "lora_alpha": 8}),
        ("--peft_method none", {"use_peft": False}),
        ("--target_modules q_proj v_proj", {"lora_target_modules": ("q_proj", "v_proj")}),
        ("--aim_remote_server_ip 10.0.0.1 --aim_remote_server_port 53800", {"aim_repo": "aim://10.0.0.1:53800"}),
        ("--aim_url aim://h:1", {"aim_repo": "aim://h:1"}),
        ("--trackers aim", {"aim_repo": "."}),
        ("--trackers aim --aim_repo /db", {"aim_repo": "/db"}),
        ("--trackers aim file_logger --aim_url aim://h:1", {"aim_repo": "aim://h:1"}),
        ("--aim_experiment e", {"experiment": "e"}),
        ("--padding_free huggingface", {"padding_free": "true"}),
        ("--flash_attn_implementation flash_attention_2", {"use_flash_attn": True, "attn_implementation": None}),
        ("--flash_attn_implementation sdpa", {"use_flash_attn": False, "attn_implementation": "sdpa"}),
        ("--bnb_qlora nf4 False", {"load_in_4bit": True}),
        ("--save_model_dir saved", {"save_model_dir": "saved"}),
        ("--embedding_size_multiple_of 8", {"embedding_size_multiple_of": 8}),
        ("--num_train_dataset_shards 3 --num_eval_dataset_shards 2", {"num_dataset_shards": 3}),
        ("--do_dataprocessing_only", {"do_dataprocessing_only": True}),
        ("--quantization_method mxfp4 --dequantize true", {"load_in_4bit": False}),
        ("--quantization_method none --bias none --dequantize false", {"load_in_4bit": False}),
    ],
)
def test_an_option_sets_keys_of_this_package(line: str, expected: dict[str, Any]) -> None:
    made = config(*line.split())
    assert {key: getattr(made, key) for key in expected} == expected
    assert not set(made.training_arguments) & set(FMS_ARGUMENTS)


def test_metadata_of_an_experiment_are_json() -> None:
    assert config("--exp_metadata", '{"gpu": "A100", "nodes": 2}').exp_metadata == {"gpu": "A100", "nodes": 2}


@pytest.mark.parametrize(
    ("line", "report_to"),
    [
        ("--trackers mlflow", ["mlflow"]),
        ("--trackers file_logger", None),
        ("--trackers none", None),
        ("--trackers mlflow wandb --report_to tensorboard", ["tensorboard", "mlflow", "wandb"]),
        ("--trackers MLflow --report_to none", ["mlflow"]),
    ],
)
def test_trackers_of_transformers_are_reported_to(line: str, report_to: list[str] | None) -> None:
    assert config(*line.split()).training_arguments.get("report_to") == report_to


def test_the_server_of_mlflow_is_named_by_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.setenv(name, "before")
    config("--mlflow_tracking_uri", "http://h:5000", "--mlflow_experiment", "e")
    assert (os.environ["MLFLOW_TRACKING_URI"], os.environ["MLFLOW_EXPERIMENT_NAME"]) == ("http://h:5000", "e")


NO_EFFECT = {
    "multipack": "16",
    "enable_reduce_loss_sum": "true",
    "fast_kernels": "True True True",
    "fused_lora": "auto_gptq True",
    "fast_moe": "1",
    "dequantize": "true",
    "run_uri_export_path": "p",
    "scanner_output_filename": "s.json",
    "training_logs_filename": "other.jsonl",
    "num_virtual_tokens": "8",
    "prompt_tuning_init": "RANDOM",
    "prompt_tuning_init_text": "Classify",
}
REFUSED = {
    "quantization_method": "gptq",
    "auto_gptq": "triton_v2",
    "bias": "all",
    "alora_invocation_string": "a",
    "invocation_string": "a",
    "trainer_controller_config_file": "c.yaml",
    "mcp": "2",
    "dataset_image_field": "images",
}
SETTING = {
    "peft_method", "trackers", "aim_remote_server_ip", "aim_remote_server_port", "aim_url", "aim_experiment",
    "mlflow_tracking_uri", "mlflow_experiment", "clearml_project", "clearml_task", "flash_attn_implementation",
    "bnb_qlora",
}  # fmt: skip


@pytest.mark.parametrize("name", NO_EFFECT)
def test_an_option_without_effect_is_a_warning_of_one_sentence(name: str, caplog: pytest.LogCaptureFixture) -> None:
    config(f"--{name}", *NO_EFFECT[name].split())
    [record] = caplog.records
    assert record.getMessage().startswith(f"{name} has no effect: ")


def test_an_option_that_asks_for_what_happens_anyway_is_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    config("--enable_reduce_loss_sum", "false", "--training_logs_filename", "training_logs.jsonl")
    assert caplog.records == []


@pytest.mark.parametrize("name", REFUSED)
def test_an_option_that_would_train_something_else_is_refused_with_the_reason(name: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parsed(f"--{name}", REFUSED[name])
    [problem] = raised.value.problems
    assert problem.startswith(f"{name} is not supported: ")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("--peft_method pt", "peft_method must be lora or none, not 'pt': there is no prompt tuning"),
        ("--bnb_qlora fp4 False", "bnb_qlora must be nf4, not 'fp4'"),
        ("--aim_remote_server_ip h", "aim_remote_server_ip is given alone; set aim_remote_server_port, too"),
        ("--aim_remote_server_port 1", "aim_remote_server_port is given alone; set aim_remote_server_ip, too"),
        ("--exp_metadata text", "exp_metadata must hold keys and values, not 'text'"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(line: str, problem: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parsed(*line.split())
    assert raised.value.problems[0].startswith(problem)


def test_every_option_is_tested_here() -> None:
    assert {*NO_EFFECT, *REFUSED, *SETTING} == set(FMS_ARGUMENTS)


# --- Runs ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pairs = [{"input": f"number {number}", "output": "the cat sat"} for number in range(8)]
    return write_jsonl(tmp_path_factory.mktemp("rows") / "rows.jsonl", pairs)


def test_a_run_saves_to_another_directory_logs_metadata_and_rounds_the_embedding(tmp_path: Path, rows: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    before = len(AutoTokenizer.from_pretrained(str(sftkit_sample())))
    sftkit.train(
        training_data_path=rows,
        model_name_or_path="sample:model",
        init_from_config=True,
        output_dir=tmp_path / "out",
        save_model_dir=tmp_path / "saved",
        exp_metadata={"gpu": "none"},
        embedding_size_multiple_of=64,
        add_special_tokens=["<|new|>"],
        cache_dir=tmp_path / "cache",
        max_steps=1,
        use_cpu=True,
    )
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    assert model.get_input_embeddings().weight.shape[0] == -(-(before + 1) // 64) * 64
    assert len(AutoTokenizer.from_pretrained(tmp_path / "saved")) == before + 1
    first = (tmp_path / "out" / "training_logs.jsonl").read_text(encoding="utf-8").splitlines()[0]
    assert json.loads(first) == {"step": 0, "experiment_metadata": {"gpu": "none"}}


def sftkit_sample() -> Path:
    from sftkit.sample import sample_path

    return Path(str(sample_path("sample:model")))


def test_a_directory_for_the_model_that_is_a_file_is_refused_before_training(tmp_path: Path, rows: Path) -> None:
    (tmp_path / "saved").write_text("", encoding="utf-8")
    with pytest.raises(OutputError, match=r"save_model_dir .*saved: is a file; choose another save_model_dir"):
        sftkit.train(
            training_data_path=rows, model_name_or_path="sample:model", init_from_config=True,
            output_dir=tmp_path / "out", save_model_dir=tmp_path / "saved", max_steps=1, use_cpu=True,
        )  # fmt: skip


def test_only_the_data_are_processed_on_request(tmp_path: Path, rows: Path) -> None:
    result = CliRunner().invoke(
        app,
        [
            "train", "--do_dataprocessing_only", "--num_train_dataset_shards", "2", "--learning_rate", "1e-5",
            "--training_data_path", str(rows), "--model_name_or_path", "sample:model",
            "--output_dir", str(tmp_path / "out"), "--num_workers", "1",
        ],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    shards = sorted((tmp_path / "out").glob("train-*.parquet"))
    assert [pq.read_metadata(shard).num_rows for shard in shards] == [4, 4]
    assert (tmp_path / "out" / "manifest.json").is_file()


def test_processing_alone_is_another_function_of_the_api(tmp_path: Path, rows: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no training to report; call sftkit\.preprocess instead"):
        sftkit.train(
            training_data_path=rows, model_name_or_path="sample:model", output_dir=tmp_path,
            do_dataprocessing_only=True,
        )  # fmt: skip
