from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from sftkit.config.commands import TrainConfig
from sftkit.config.loading import load_config
from sftkit.errors import TrainingError
from sftkit.shards.manifest import Manifest, TokenizerInfo
from sftkit.shards.reading import ShardSet, open_shards
from sftkit.tokenization.loading.tokenizer_identity import chat_template_sha256, fingerprint
from sftkit.tokenization.loading.tokenizer_loading import TokenizerSpec, load_tokenizer
from sftkit.training.arguments.build_arguments import extra_keys, make_training_arguments
from sftkit.training.callbacks.listener import LogEvent, SilentListener
from sftkit.training.run import train
from sftkit.training.training_report import TrainingReport

from .material import events, logged


def run(model: Path, shards: Path | ShardSet, output: Path, *argv: str) -> TrainingReport:
    found = shards if isinstance(shards, ShardSet) else open_shards(str(shards))
    return train(*prepared(model, output, *argv), found)


def prepared(model: Path, output: Path, *argv: str) -> Any:
    line = [f"--model_name_or_path={model}", f"--output_dir={output}", "--use_cpu=true", "--logging_steps=1", *argv]
    config = load_config(TrainConfig, line, extra_keys=extra_keys())
    return config, make_training_arguments(config)


def manifest_of(tokenizer: Any, *, added: tuple[str, ...] = (), config: dict[str, Any] | None = None) -> Manifest:
    made_with = TokenizerInfo(
        name="made-with",
        vocabulary_size=len(tokenizer),
        eos_token=tokenizer.eos_token,
        fingerprint=fingerprint(tokenizer),
        chat_template_sha256=chat_template_sha256(tokenizer),
        added_special_tokens=added,
    )
    return Manifest(
        columns=("input_ids", "labels"), text_column=None, splits={}, sources=(), rows_read=0, rows_written=0,
        rows_left_out=0, rows_repeated=0, dropped={}, quarantined=0, tokenizer=made_with, engine={}, fingerprint="",
        config=config or {}, versions={},
    )  # fmt: skip


def test_the_loss_falls_and_the_model_is_saved(tmp_path: Path, model_dir: Path, shard_dir: Path) -> None:
    report = run(
        model_dir, shard_dir, tmp_path, "--max_steps=12", "--learning_rate=1e-2", "--per_device_train_batch_size=4",
        "--eval_strategy=steps", "--eval_steps=5", "--save_strategy=no",
    )  # fmt: skip
    curve = logged(tmp_path, "loss")
    assert len(curve) == 12
    assert curve[-1] < curve[0] - 1
    assert (report.steps, report.first_loss, report.last_loss) == (12, curve[0], curve[-1])
    assert report.output_dir == tmp_path
    # Evaluated at 5, 10, and at the end of the run.
    assert [event["step"] for event in events(tmp_path) if "eval_loss" in event] == [5, 10, 12]
    assert report.eval_loss == [event["eval_loss"] for event in events(tmp_path) if "eval_loss" in event][-1]
    saved = AutoModelForCausalLM.from_pretrained(tmp_path)
    before = AutoModelForCausalLM.from_pretrained(model_dir)
    assert not torch.equal(saved.lm_head.weight, before.lm_head.weight)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert tokenizer.chat_template == PreTrainedTokenizerFast.from_pretrained(model_dir).chat_template
    assert fingerprint(tokenizer) == fingerprint(load_tokenizer(TokenizerSpec(str(model_dir))))


def test_the_logged_loss_is_the_unrounded_mean_over_trained_tokens(
    tmp_path: Path, model_dir: Path, shard_dir: Path
) -> None:
    report = run(
        model_dir, shard_dir, tmp_path, "--max_steps=1", "--per_device_train_batch_size=6",
        "--train_sampling_strategy=sequential", "--save_strategy=no", "--include_tokens_per_second",
    )  # fmt: skip
    rows = pq.read_table(shard_dir / "train-00000-of-00001.parquet").slice(0, 6).to_pylist()
    model = AutoModelForCausalLM.from_pretrained(model_dir).eval()
    total, count = 0.0, 0
    for row in rows:  # one row at a time: no padding, no batch
        with torch.no_grad():
            logits = model(torch.tensor([row["input_ids"]])).logits[0].double()
        for position, label in enumerate(row["labels"][1:]):
            if label != -100:
                total -= float(logits[position].log_softmax(-1)[label])
                count += 1
    [event] = [event for event in events(tmp_path) if "loss" in event]
    assert math.isclose(event["loss"], total / count, rel_tol=1e-5)
    assert event["loss"] != round(event["loss"], 4)
    assert event["tokens_per_second"] > 0
    assert (report.tokens, report.trained_tokens) == (sum(len(row["input_ids"]) for row in rows), count)


def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(
    tmp_path: Path, model_dir: Path, shard_dir: Path
) -> None:
    flags = ["--max_steps=6", "--save_steps=3", "--per_device_train_batch_size=4", "--learning_rate=1e-2"]
    run(model_dir, shard_dir, tmp_path / "whole", *flags)
    shutil.copytree(tmp_path / "whole", tmp_path / "resumed")
    shutil.rmtree(tmp_path / "resumed" / "checkpoint-6")
    (tmp_path / "resumed" / "checkpoint-5").mkdir()  # an unfinished checkpoint
    report = run(model_dir, shard_dir, tmp_path / "resumed", *flags, "--resume_from_checkpoint=true")
    assert logged(tmp_path / "resumed", "loss") == logged(tmp_path / "whole", "loss")
    assert report.steps == 6
    weights = [AutoModelForCausalLM.from_pretrained(tmp_path / name).lm_head.weight for name in ("whole", "resumed")]
    assert torch.equal(*weights)


def test_running_a_finished_run_again_changes_nothing(tmp_path: Path, model_dir: Path, shard_dir: Path) -> None:
    flags = ["--max_steps=4", "--save_steps=2", "--learning_rate=1e-2", "--lr_scheduler_type=constant"]
    run(model_dir, shard_dir, tmp_path, *flags)
    before, done = (tmp_path / "model.safetensors").read_bytes(), events(tmp_path)[-1]
    report = run(model_dir, shard_dir, tmp_path, *flags)
    assert report.steps == 4
    assert (tmp_path / "model.safetensors").read_bytes() == before
    assert not (tmp_path / "checkpoint-5").exists()
    assert events(tmp_path)[-1]["train_loss"] == pytest.approx(done["train_loss"])


def test_resuming_without_a_checkpoint_starts_from_the_beginning_or_is_an_error(
    tmp_path: Path, model_dir: Path, shard_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(model_dir, shard_dir, tmp_path, "--max_steps=1", "--save_strategy=no", "--resume_from_checkpoint=last")
    assert f"{tmp_path} has no checkpoint to resume from: the run starts from the beginning" in caplog.messages
    with pytest.raises(TrainingError, match="resume_from_checkpoint: /no/such is not a checkpoint"):
        run(model_dir, shard_dir, tmp_path, "--resume_from_checkpoint=/no/such")


def test_shards_of_another_tokenizer_are_refused(
    tmp_path: Path, model_dir: Path, shard_dir: Path, make_tokenizer: Callable[..., Path]
) -> None:
    other = load_tokenizer(TokenizerSpec(str(make_tokenizer(tmp_path / "other", ["quite other words, these"]))))
    shards = replace(open_shards(str(shard_dir)), manifest=manifest_of(other))
    with pytest.raises(TrainingError, match=r"made with another .* than .*made-with.*vocabulary \d+ tokens"):
        run(model_dir, shards, tmp_path / "out")
    flags = ["--max_steps=1", "--save_strategy=no", "--allow_mismatch"]
    assert run(model_dir, shards, tmp_path / "out", *flags).steps == 1


def test_shards_of_another_chat_template_are_refused_unless_the_manifest_has_it(
    tmp_path: Path, model_dir: Path, shard_dir: Path
) -> None:
    template = "{{ messages[0].content }}"
    made_with = load_tokenizer(TokenizerSpec(str(model_dir), chat_template=template))
    shards = replace(open_shards(str(shard_dir)), manifest=manifest_of(made_with))
    with pytest.raises(TrainingError, match=r"chat template [0-9a-f]{12}\.\.\. there, [0-9a-f]{12}\.\.\. here"):
        run(model_dir, shards, tmp_path / "out")
    known = manifest_of(made_with, config={"dataprocessor": {"chat_template": template}})
    run(model_dir, replace(shards, manifest=known), tmp_path / "out", "--max_steps=1", "--save_strategy=no")
    assert PreTrainedTokenizerFast.from_pretrained(tmp_path / "out").chat_template == template


def test_special_tokens_of_the_shards_are_added_to_model_and_tokenizer(
    tmp_path: Path, model_dir: Path, shard_dir: Path
) -> None:
    made_with = load_tokenizer(TokenizerSpec(str(model_dir), added_special_tokens=("<tool>", "</tool>")))
    manifest = manifest_of(made_with, added=("<tool>", "</tool>"))
    shards = replace(open_shards(str(shard_dir)), manifest=manifest)
    run(model_dir, shards, tmp_path, "--max_steps=1", "--save_strategy=no", "--learning_rate=0")
    old = AutoModelForCausalLM.from_pretrained(model_dir).get_input_embeddings().weight
    new = AutoModelForCausalLM.from_pretrained(tmp_path).get_input_embeddings().weight
    assert len(new) == len(old) + 2
    torch.testing.assert_close(new[-2:], old.mean(0).expand(2, -1))
    # The saved model can be trained with the same shards, because its tokenizer matches them.
    run(tmp_path, shards, tmp_path / "next", "--max_steps=1", "--save_strategy=no")


def test_evaluation_without_a_validation_split_is_refused(tmp_path: Path, model_dir: Path, shard_dir: Path) -> None:
    found = open_shards(str(shard_dir))
    shards = replace(found, splits={"train": found.splits["train"]})
    with pytest.raises(TrainingError, match="there is no validation split"):
        run(model_dir, shards, tmp_path, "--eval_strategy=epoch")


def test_the_listener_receives_every_event_and_nothing_is_printed(
    tmp_path: Path, model_dir: Path, shard_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    received: list[Any] = []
    steps: list[tuple[int, int]] = []

    class Listener(SilentListener):
        def on_log(self, event: LogEvent) -> None:
            received.append(event)

        def on_step(self, step: int, max_steps: int) -> None:
            steps.append((step, max_steps))

    config, arguments = prepared(model_dir, tmp_path, "--max_steps=2", "--report_to=tensorboard")
    capsys.readouterr()
    train(config, arguments, open_shards(str(shard_dir)), Listener())
    assert capsys.readouterr().out == ""
    assert received == events(tmp_path)
    assert steps == [(0, 2), (1, 2), (2, 2)]
    assert list((tmp_path / "runs").rglob("events.out.tfevents.*"))


@pytest.mark.slow
def test_two_processes_train_as_one_with_the_launch_flags_of_fms_hf_tuning(
    tmp_path: Path, model_dir: Path, shard_dir: Path
) -> None:
    """On the CPU, FSDP is disabled, and the losses are those of one process."""
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "from sftkit.config.loading import load_config\n"
        "from sftkit.config.commands import TrainConfig\n"
        "from sftkit.shards.reading import open_shards\n"
        "from sftkit.training.arguments.build_arguments import extra_keys, make_training_arguments\n"
        "from sftkit.training.distributed import main_process_first\n"
        "config = load_config(TrainConfig, sys.argv[1:], extra_keys=extra_keys())\n"
        "arguments = make_training_arguments(config)\n"
        "with main_process_first():\n"
        "    shards = open_shards(config.training_data_path[0])\n"
        "from sftkit.training.run import train\n"
        "train(config, arguments, shards)\n"
    )
    launch = [
        sys.executable, "-m", "accelerate.commands.launch", "--num_processes=2", "--dynamo_backend=no",
        "--fsdp_auto_wrap_policy=TRANSFORMER_BASED_WRAP", "--fsdp_cpu_ram_efficient_loading=true",
        "--fsdp_forward_prefetch=false", "--fsdp_offload_params=false", "--fsdp_sharding_strategy=HYBRID_SHARD",
        "--fsdp_state_dict_type=FULL_STATE_DICT", "--fsdp_sync_module_states=true", "--machine_rank=0",
        "--main_process_ip=127.0.0.1", "--main_process_port=0", "--mixed_precision=no", "--num_machines=1",
        "--rdzv_backend=static", "--same_network", "--use_fsdp",
    ]  # fmt: skip
    flags = ["--max_steps=4", "--logging_steps=1", "--learning_rate=1e-2", "--save_strategy=no", "--split_batches=true",
             "--per_device_train_batch_size=4", "--dataloader_drop_last=true", "--use_cpu=true"]  # fmt: skip
    paths = [
        f"--model_name_or_path={model_dir}",
        f"--training_data_path={shard_dir}",
        f"--output_dir={tmp_path / 'two'}",
    ]
    environment = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    done = subprocess.run(
        [*launch, str(script), *paths, *flags],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    run(model_dir, shard_dir, tmp_path / "one", *(flag for flag in flags if flag != "--split_batches=true"))
    torch.testing.assert_close(logged(tmp_path / "two", "loss"), logged(tmp_path / "one", "loss"), rtol=1e-5, atol=0)
    AutoModelForCausalLM.from_pretrained(tmp_path / "two")


def test_rows_can_be_grouped_by_length(tmp_path: Path, model_dir: Path, shard_dir: Path) -> None:
    flags = ["--group_by_length=true", "--max_steps=1", "--save_strategy=no"]
    assert run(model_dir, shard_dir, tmp_path, *flags).steps == 1


def test_an_output_directory_that_cannot_be_created_is_one_sentence(
    tmp_path: Path, model_dir: Path, shard_dir: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match=r"the run cannot be set up: .*file"):
        run(model_dir, shard_dir, tmp_path / "file" / "out", "--max_steps=1")


def test_dropping_the_last_batch_never_drops_every_row(
    tmp_path: Path, model_dir: Path, shard_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    argv = ("--max_steps", "2", "--dataloader_drop_last", "true", "--per_device_train_batch_size", "1000")
    report = run(model_dir, shard_dir, tmp_path / "out", *argv)
    assert report.steps == 2
    assert "dataloader_drop_last would drop every row" in caplog.text
