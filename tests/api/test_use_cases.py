"""`sftkit.preprocess`, `inspect_shards` and `train` called from Python: arguments, results, errors, side effects."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers.utils import logging as transformers_logging

import sftkit
from reliability.material import sftkit as command
from sftkit.training.callbacks.listener import SilentListener
from support import shard_bytes

SAMPLE: dict[str, Any] = {"data_config_path": "sample:data_config.yaml", "model_name_or_path": "sample:model"}
TINY: dict[str, Any] = {
    "model_name_or_path": "sample:model", "init_from_config": True, "use_cpu": True, "max_steps": 2, "logging_steps": 1,
    "per_device_train_batch_size": 4,
}  # fmt: skip


class Recorder:
    """Records the stages of a run."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.rows = 0

    def begin(self, stage: str, total: int) -> None:
        self.stages.append(stage)

    def advance(self, steps: int, *, rows: int = 0, tokens: int = 0) -> None:
        self.rows += rows

    def end(self) -> None: ...


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps({"input": f"{n} + 1?", "output": f"{n + 1}"}) + "\n" for n in range(20)))
    return path


def make(pairs: Path, **keys: Any) -> sftkit.PreprocessResult:
    return sftkit.preprocess(
        training_data_path=pairs, model_name_or_path="sample:model", output_dir=pairs.parent / "shards", **keys
    )


def test_preprocess_writes_the_same_bytes_as_the_command(sample_shards: Path, tmp_path: Path) -> None:
    options = [f"--{key}={value}" for key, value in SAMPLE.items()]
    assert command("preprocess", *options, "--output_dir", tmp_path / "shards").code == 0
    assert shard_bytes(tmp_path / "shards") == shard_bytes(sample_shards)


def test_preprocess_returns_the_manifest_and_reports_progress(pairs: Path) -> None:
    progress = Recorder()
    result = make(pairs, progress=progress)
    assert (result.ran, result.output_dir) == (True, str(pairs.parent / "shards"))
    assert result.manifest is not None
    assert result.manifest.rows_written == 20
    assert (len(progress.stages), progress.rows) == (2, 40)


def test_preprocess_finds_shards_that_are_complete(pairs: Path) -> None:
    first, again = make(pairs), make(pairs)
    assert (first.ran, again.ran) == (True, False)
    assert again.manifest is not None
    assert first.manifest is not None
    assert again.manifest.fingerprint == first.manifest.fingerprint


def test_a_dry_run_returns_the_plan_and_writes_nothing(pairs: Path) -> None:
    result = make(pairs, dry_run=True)
    assert (result.ran, result.manifest) == (False, None)
    assert [file.file.path for file in result.plan.files] == [str(pairs)]
    assert not (pairs.parent / "shards").exists()


def test_a_config_object_config_files_and_keywords_give_the_same_shards(pairs: Path, tmp_path: Path) -> None:
    keys = {"training_data_path": [str(pairs)], "model_name_or_path": "sample:model", "max_seq_length": 30}
    first, second = tmp_path / "first.json", tmp_path / "second.yaml"
    first.write_text(json.dumps({**keys, "max_seq_length": 8}))
    second.write_text("max_seq_length: 30\n")
    config = sftkit.PreprocessConfig(
        training_data_path=(str(pairs),), model_name_or_path="sample:model", output_dir="x", max_seq_length=8
    )
    results = [
        sftkit.preprocess(**keys, output_dir=tmp_path / "0"),
        sftkit.preprocess([first, second], output_dir=tmp_path / "1"),
        sftkit.preprocess(config=(str(first), second), output_dir=tmp_path / "2"),
        sftkit.preprocess(config, max_seq_length=np.int64(30), output_dir=tmp_path / "3"),
    ]
    assert len({result.plan.fingerprint for result in results}) == 1
    assert results[1].plan.config.config == (str(first), str(second))


def test_datasets_and_sections_are_plain_values_or_config_objects(pairs: Path, tmp_path: Path) -> None:
    columns = {"input_field_name": "input", "output_field_name": "output"}
    handler = {"name": "tokenize_and_apply_input_masking", "arguments": {"fn_kwargs": columns}}
    plain = {"name": "pairs", "data_paths": [pairs], "data_handlers": [handler]}
    typed = sftkit.DatasetConfig(
        name="pairs", data_paths=(str(pairs),),
        data_handlers=(sftkit.HandlerConfig(name=handler["name"], arguments=handler["arguments"]),),
    )  # fmt: skip
    common = {"model_name_or_path": "sample:model", "dry_run": True, "output_dir": tmp_path / "out"}
    one = sftkit.preprocess(**common, datasets=[plain], dataprocessor={"seed": 3})
    other = sftkit.preprocess(**common, datasets=[typed], dataprocessor=sftkit.ProcessorConfig(seed=3))
    dotted = sftkit.preprocess(**common, datasets=[plain], **{"dataprocessor.seed": 3})
    assert one.plan.config == other.plan.config == dotted.plan.config
    assert one.plan.config.dataprocessor.seed == 3


def test_a_keyword_may_set_one_entry_of_a_list(tmp_path: Path) -> None:
    keys = {"datasets[1].shuffle": True}
    result = sftkit.preprocess(**SAMPLE, output_dir=tmp_path, dry_run=True, **keys)
    assert [dataset.shuffle for dataset in result.plan.config.datasets] == [None, True, None]


def test_text_of_python_values_is_literal(pairs: Path) -> None:
    folder = pairs.parent / "${output_dir}"
    result = sftkit.preprocess(
        training_data_path=pairs, model_name_or_path="sample:model", output_dir=folder, dry_run=True
    )
    assert result.output_dir == str(folder)


@pytest.mark.parametrize(
    ("keys", "messages"),
    [
        (
            {"outptu_dir": "x", "max_seq_length": "many"},
            [
                "unknown key 'outptu_dir' (did you mean 'output_dir'?)",
                "max_seq_length must be a whole number, not 'many'",
                "missing key 'output_dir': ",
            ],
        ),
        ({"output_dir": "x", "dataprocessor": {"sed": 1}}, ["unknown key 'dataprocessor.sed' (did you mean 'seed'?)"]),
        ({"output_dir": "x", "packing": print}, ["packing cannot be <built-in function print>: give text, numbers"]),
        (
            {"output_dir": "x", "datasets[0].sampling": 1},
            ["datasets[0].sampling cannot be set: the config has no"],
        ),
        ({"output_dir": "x"}, ["no data: give data_config_path, `datasets`, or training_data_path"]),
        ({"config": "nowhere.yaml"}, ["nowhere.yaml: no such config file"]),
        ({"config": 5}, ["`config` must be a PreprocessConfig, the path of a config file or a list of paths, not 5"]),
    ],
)
def test_every_mistake_is_named_by_one_config_error(keys: dict[str, Any], messages: list[str]) -> None:
    with pytest.raises(sftkit.ConfigError) as caught:
        sftkit.preprocess(**keys)
    assert len(caught.value.problems) == len(messages)
    for problem, message in zip(caught.value.problems, messages, strict=True):
        assert problem.startswith(message)


def test_a_data_config_is_not_merged_with_the_datasets_of_a_config_object(pairs: Path) -> None:
    dataset = sftkit.DatasetConfig(name="pairs", data_paths=(str(pairs),))
    config = sftkit.PreprocessConfig(output_dir="x", datasets=(dataset,))
    with pytest.raises(sftkit.ConfigError, match=r"the config object and in sample:data_config\.yaml"):
        sftkit.preprocess(config, data_config_path="sample:data_config.yaml")


def test_training_arguments_are_keywords_of_train(tmp_path: Path) -> None:
    with pytest.raises(sftkit.ConfigError, match=r"unknown key 'learning_rat' .did you mean 'learning_rate'"):
        sftkit.train(output_dir=tmp_path, learning_rat=1e-3)
    with pytest.raises(sftkit.ConfigError, match="per_device_train_batch_size must be 1 or more, not 0"):
        sftkit.train(output_dir=tmp_path, per_device_train_batch_size=0)


def test_inspect_shards_returns_a_report_or_a_verification(sample_shards: Path) -> None:
    report = sftkit.inspect_shards(sample_shards, rows=2, split="validation")
    assert [(split.name, split.rows) for split in report.summary.splits] == [("validation", 40)]
    assert len(report.rows) == 2
    audited = sftkit.inspect_shards(sample_shards, audit=True)
    assert audited.audit is not None
    assert audited.audit.rows == 640
    progress = Recorder()
    verification = sftkit.inspect_shards(sample_shards, verify=True, progress=progress)
    assert (verification.differences, bool(progress.stages)) == ((), True)


def test_inspect_shards_previews_a_data_config() -> None:
    report = sftkit.inspect_shards(**SAMPLE, rows=2)
    assert len(report.rows) == 2
    config = sftkit.InspectConfig(**SAMPLE, rows=3)
    previewed = sftkit.inspect_shards(config=config)
    assert isinstance(previewed, sftkit.Report)
    assert len(previewed.rows) == 3


@pytest.mark.parametrize("keys", [{}, {**SAMPLE, "directory": "shards"}])
def test_inspect_shards_takes_either_shards_or_raw_data(keys: dict[str, Any]) -> None:
    with pytest.raises(sftkit.ConfigError, match="give either a directory of shards, or a data config"):
        sftkit.inspect_shards(**keys)


def test_train_returns_a_report_and_tells_the_listener(sample_shards: Path, tmp_path: Path) -> None:
    class Listener:
        """Records what it receives."""

        def __init__(self) -> None:
            self.steps: list[int] = []
            self.losses: list[float] = []

        def on_note(self, sentence: str) -> None: ...

        def on_step(self, step: int, max_steps: int) -> None:
            self.steps.append(step)

        def on_log(self, event: Any) -> None:
            self.losses += [event["loss"]] if "loss" in event else []

        def on_sample(self, sample: Any) -> None: ...

    listener = Listener()
    report = sftkit.train(**TINY, training_data_path=sample_shards, output_dir=tmp_path / "model", listener=listener)
    assert report.steps == 2
    assert listener.steps == [0, 1, 2]
    assert listener.losses == [report.first_loss, report.last_loss]


def test_a_listener_with_on_phase_learns_what_happens_before_the_first_step(
    sample_shards: Path, tmp_path: Path
) -> None:
    class Listener(SilentListener):
        def __init__(self) -> None:
            self.heard: list[str] = []

        def on_phase(self, phase: str) -> None:
            self.heard.append(phase)

        def on_step(self, step: int, max_steps: int) -> None:
            self.heard.append(f"step {step}")

    listener = Listener()
    sftkit.train(**TINY, training_data_path=sample_shards, output_dir=tmp_path / "model", listener=listener)
    assert listener.heard == [
        "loading torch and transformers",
        "looking for the data",
        "loading the Trainer",
        "loading the model from sample:model",
        "trying the model on short sequences",
        "preparing the model",
        "reading the first rows",
        "looking for checkpoints",
        "preparing the first step",
        *(f"step {step}" for step in range(3)),
    ]


def test_train_builds_shards_from_a_data_config(tmp_path: Path) -> None:
    config = sftkit.TrainConfig(
        output_dir=str(tmp_path / "model"), cache_dir=str(tmp_path / "cache"),
        data_config_path="sample:data_config.yaml", training_arguments={"max_steps": 9},
    )  # fmt: skip
    assert sftkit.train(config, **TINY).steps == 2
    assert len(list((tmp_path / "cache").iterdir())) == 1


def state() -> tuple[Any, ...]:
    """What a library must not change in the process of its caller."""
    signals = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    names = ("", "sftkit", "transformers")
    logs = [(logging.getLogger(name).level, list(logging.getLogger(name).handlers)) for name in names]
    bars = transformers_logging.is_progress_bar_enabled()
    return (signals, logs, logging.getLogger("sftkit").propagate, bars, Path.cwd())


def test_nothing_is_printed_and_signals_and_logging_stay_as_they_were(
    pairs: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    transformers_logging.enable_progress_bar()
    before = state()
    make(pairs)
    sftkit.inspect_shards(pairs.parent / "shards", audit=True)
    model = pairs.parent / "model"
    sftkit.train(**TINY, training_data_path=pairs.parent / "shards", output_dir=model, log_level="info")
    assert capfd.readouterr() == ("", "")
    assert state() == before


def test_preprocess_may_run_in_a_thread(pairs: Path) -> None:
    results: list[sftkit.PreprocessResult] = []
    thread = threading.Thread(target=lambda: results.append(make(pairs)))
    thread.start()
    thread.join()
    assert results[0].ran


def run_script(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    script = folder / "script.py"
    script.write_text(text)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    return subprocess.run([sys.executable, str(script)], cwd=folder, capture_output=True, text=True, env=environment)


@pytest.mark.slow
def test_a_script_may_preprocess_and_then_train(pairs: Path) -> None:
    done = run_script(
        pairs.parent,
        "import sftkit\n"
        "sftkit.preprocess(training_data_path='pairs.jsonl', model_name_or_path='sample:model', output_dir='shards')\n"
        f"print(sftkit.train(**{TINY!r}, training_data_path='shards', output_dir='model').steps)\n",
    )
    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr


@pytest.mark.slow
def test_worker_processes_do_not_run_the_script_again(pairs: Path) -> None:
    done = run_script(
        pairs.parent,
        "import sftkit\n"  # and no `if __name__ == '__main__':`
        "result = sftkit.preprocess(training_data_path='pairs.jsonl', model_name_or_path='sample:model',\n"
        "                           output_dir='shards', num_workers=2, unit_size=200)\n"
        "print(result.manifest.rows_written)\n",
    )
    assert (done.returncode, done.stdout) == (0, "20\n"), done.stderr
