"""Runs on a Ray cluster give the bytes of a local run, even if nodes, object stores or the driver fail.

SFTKIT_CLUSTER_ROWS=50000 makes the corpus as large as a real one.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from buckets import new_bucket, server
from execution.cluster.conftest import add_node
from execution.cluster.tasks import square, staged_in
from sftkit.config.commands import PreprocessConfig
from sftkit.config.schema.data_config import ProcessorConfig
from sftkit.core.progress import SilentProgress
from sftkit.errors import ConfigError, DataError, SourceError
from sftkit.execution import ray_cluster
from sftkit.execution.ray_cluster import RayCluster, VersionMismatchError
from sftkit.execution.runner import Runner, WorkerError
from sftkit.preprocessing.build import open_cluster, run
from sftkit.preprocessing.planning import plan
from sftkit.preprocessing.recipe_bundle import bundle_recipe
from support import dataset, handler, shard_bytes, wait_until, write_jsonl

ROWS = int(os.environ.get("SFTKIT_CLUSTER_ROWS", "1500"))
UNITS = 24
_TIMES = ("seconds", "worker_seconds", "rows_by_programs", "digest")
HOW = ("executor", "ray_address", "num_workers", "config", "output_dir", "staging_dir", "datasets")


def conversations() -> Iterator[dict[str, Any]]:
    words = ("alder", "birch", "cedar", "elm", "fir", "hazel", "larch", "maple")
    for number in range(ROWS):
        turns = [
            {"role": role, "content": " ".join(words[(number * step + turn) % 8] for step in range(number % 37 + turn))}
            for turn in range(1, number % 3 + 2)
            for role in ("user", "assistant")
        ]
        yield {"id": number, "messages": turns}


@dataclass(frozen=True)
class Job:
    """A run of the command line, and its result on this machine without a cluster."""

    config: dict[str, Any]
    place: Path
    shards: dict[str, bytes]
    manifest: dict[str, Any]

    def begun(self, name: str, **changes: Any) -> subprocess.Popen[str]:
        path = self.place / f"{name}.json"
        path.write_text(json.dumps({**self.config, **changes}))
        tests = str(Path(__file__).parents[2])
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([tests, os.environ.get("PYTHONPATH", "")])}
        return subprocess.Popen(
            [sys.executable, "-m", "sftkit", "preprocess", f"--config={path}"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip

    def hold_at(self, out: Path, units: int) -> None:
        """Let the run into `out` wait once it has staged so many units; those at work may still be staged."""
        (self.place / "next").symlink_to(f"{out / '.staging'}:{units}")
        (self.place / "next").replace(self.place / "gate")

    @contextmanager
    def holding_at(self, out: Path, units: int) -> Iterator[None]:
        self.hold_at(out, units)
        try:
            yield
        finally:
            (self.place / "gate").unlink()


def timeless(manifest: dict[str, Any]) -> dict[str, Any]:
    """A manifest without times, paths and executor settings."""
    kept = {key: value for key, value in manifest.items() if key not in _TIMES}
    return {**kept, "config": {key: value for key, value in kept["config"].items() if key not in HOW}}


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    place = tmp_path_factory.mktemp("job")
    source = write_jsonl(place / "conversations.jsonl", conversations())
    data = {
        "name": "conversations",
        "data_paths": [str(source)],
        "shuffle": True,
        "split": {"train": 0.9, "validation": 0.1},
        "retain_columns": ["id", "messages"],
        "data_handlers": [
            {
                "name": "execution.cluster.tasks:wait_at_gate",
                "arguments": {"fn_kwargs": {"gate": str(place / "gate")}},
            },
            {"name": "tokenize_and_apply_chat_template_with_masking"},
        ],
    }
    config = {
        "datasets": [data], "model_name_or_path": "sample:model", "output_dir": str(place / "local"), "num_workers": 2,
        "packing": "bfd", "pack_length": 256, "num_dataset_shards": 4, "unit_size": source.stat().st_size // UNITS,
    }  # fmt: skip
    made = Job(config, place, {}, {})
    _, stderr = (child := made.begun("local")).communicate()
    assert child.returncode == 0, stderr
    manifest = json.loads((place / "local" / "manifest.json").read_text())
    assert manifest["units"] >= UNITS
    return Job(config, place, shard_bytes(place / "local"), timeless(manifest))


def check_made(job: Job, child: subprocess.Popen[str], out: Path) -> None:
    stdout, stderr = child.communicate()
    assert child.returncode == 0, stderr
    assert "Traceback" not in stderr
    assert shard_bytes(out) == job.shards
    assert timeless(json.loads((out / "manifest.json").read_text())) == job.manifest
    assert "rows read" in stdout


def on(nodes: Any) -> dict[str, Any]:
    return {"executor": "ray", "ray_address": nodes.address, "num_workers": None}


def test_three_nodes_make_the_bytes_of_a_local_run(job: Job, nodes: Any) -> None:
    out = job.place / "three"
    check_made(job, job.begun("three", output_dir=str(out), **on(nodes)), out)


@pytest.mark.parametrize("deduplicate", [{"compare": "trained"}, {"method": "near", "ngram": 1}], ids=str)
def test_duplicates_are_removed_as_by_a_local_run(job: Job, nodes: Any, deduplicate: dict[str, Any]) -> None:
    outputs = []
    for name, how in (("here", {}), ("there", on(nodes))):
        out = job.place / f"{deduplicate.get('method')}-{name}"
        changes = {"dataprocessor": {"deduplicate": deduplicate}, "output_dir": str(out), **how}
        _, stderr = (child := job.begun(out.name, **changes)).communicate()
        assert child.returncode == 0, stderr
        outputs.append((shard_bytes(out), (out / "dropped.jsonl").read_bytes()))
    assert outputs[0] == outputs[1]
    assert b"duplicate of " in outputs[0][1]


def test_the_bytes_are_those_of_a_local_run_when_a_node_is_lost_and_another_joins(job: Job, nodes: Any) -> None:
    out = job.place / "lost"
    with job.holding_at(out, UNITS // 6):
        child = job.begun("lost", output_dir=str(out), **on(nodes))
        wait_until(lambda: staged_in(out / ".staging") >= UNITS // 6, child)
        nodes.remove_node(nodes.worker_nodes.copy().pop(), allow_graceful=False)
        job.hold_at(out, UNITS // 3)
        wait_until(lambda: staged_in(out / ".staging") >= UNITS // 3, child)
        add_node(nodes)
    check_made(job, child, out)


def test_the_bytes_are_those_of_a_local_run_with_a_failing_store_and_a_killed_driver(job: Job, nodes: Any) -> None:
    with server(failing=0.05) as endpoint:
        bucket = new_bucket(endpoint)
        [data] = job.config["datasets"]
        raw = bucket.put(Path(data["data_paths"][0]), "raw/conversations.jsonl")
        changes = {
            "datasets": [{**data, "data_paths": [raw]}], "output_dir": bucket.url("out"),
            "storage_options": bucket.options, **on(nodes),
        }  # fmt: skip

        def staged_in_store() -> int:
            return sum(".account" in name for name in bucket.names("out"))

        for share in (0.2, 0.5, 0.8):
            with bucket.holding(".account", int(UNITS * share) - staged_in_store()) as is_held:
                child = job.begun("store", **changes)
                wait_until(is_held, child)
                child.kill()
                child.communicate()
        child = job.begun("store", **changes)
        stdout, stderr = child.communicate()
        assert child.returncode == 0, stderr
        assert " found staged" in stdout
        files = bucket.files("out")
        assert {name: data for name, data in files.items() if name.endswith(".parquet")} == job.shards
        manifest = files["manifest.json"].decode().replace(raw, data["data_paths"][0])
        assert timeless(json.loads(manifest)) == job.manifest
        assert bucket.failures()[1] > 10


def test_an_interrupted_run_ends_its_tasks_and_can_be_resumed(job: Job, nodes: Any) -> None:
    import ray

    out = job.place / "interrupted"
    with job.holding_at(out, 2):
        child = job.begun("interrupted", output_dir=str(out), **on(nodes))
        wait_until(lambda: staged_in(out / ".staging") >= 2, child)
        child.send_signal(signal.SIGINT)
        _, stderr = child.communicate()
        assert child.returncode == 130, stderr
        assert "the same command resumes from them" in stderr
        assert stderr.endswith("interrupted\n")
        kept = staged_in(out / ".staging")
    with RayCluster(nodes.address, None):
        wait_until(lambda: ray.available_resources().get("CPU") == ray.cluster_resources()["CPU"])
    assert staged_in(out / ".staging") == kept < UNITS


def test_a_thread_may_connect_and_signal_handlers_stay(nodes: Any) -> None:
    def connect() -> Any:
        with RayCluster(nodes.address, None) as cluster:
            return list(cluster.run(square, [2]))

    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(connect).result() == [(2, 4)]
    assert connect() == [(2, 4)]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers


# --- Tasks ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def runner(nodes: Any) -> Iterator[Runner]:
    with RayCluster(nodes.address, None) as cluster:
        yield cluster


def test_results_come_with_their_tasks(runner: Runner) -> None:
    assert sorted(runner.run(square, range(10))) == [(number, number * number) for number in range(10)]


def test_an_error_is_the_one_that_was_raised(runner: Runner) -> None:
    with pytest.raises(DataError, match=r"^in\.jsonl:13: an unlucky row; leave it out$"):
        list(runner.run(square, range(20)))
    assert list(runner.run(square, [3])) == [(3, 9)]
    with pytest.raises(OSError, match=r"No such file or directory \(on node .+\): '/somewhere'"):
        list(runner.run(square, [28]))


def test_the_error_for_a_task_that_always_kills_its_process_names_it(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_cluster, "RETRIES", 1)
    with pytest.raises(WorkerError, match=r"^Ray gave up on 666, after 2 tries: "):
        list(runner.run(square, [666]))


def test_nodes_with_other_versions_are_refused(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    here = ray_cluster._versions()
    monkeypatch.setattr(ray_cluster, "_versions", lambda: {**here, "pyarrow": "1.0"})
    expected = rf"has pyarrow {here['pyarrow']} \(here: 1\.0\): the shards would have"
    with pytest.raises(VersionMismatchError, match=expected):
        list(runner.run(square, [1]))


HANDLER = """
import {helper}

def shout(row, by):
    return {{**row, "text": {helper}.louder(row["text"]) + by}}
"""


def write_handler(folder: Path, name: str) -> None:
    """A user module that imports another."""
    folder.mkdir()
    (folder / f"{name}.py").write_text(HANDLER.format(helper=f"{name}_helper"))
    (folder / f"{name}_helper.py").write_text("def louder(text): return text.upper()\n")


def test_user_functions_and_the_tokenizer_are_sent_to_the_nodes(
    runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokenizer_path: Callable[[str], str]
) -> None:
    code = tmp_path / "code"
    write_handler(code, "sftkit_test_shouting")
    monkeypatch.syspath_prepend(str(code))
    monkeypatch.chdir(tmp_path)
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": f"row {number}"} for number in range(5)])
    config = PreprocessConfig(
        output_dir=str(tmp_path / "out"),
        datasets=(dataset(source, data_handlers=[handler("sftkit_test_shouting:shout", by="!")]),),
        tokenizer_name_or_path=tokenizer_path("bpe"),
        train_on="all",
        num_workers=1,
    )
    run(plan(config), SilentProgress())
    elsewhere = replace(config, output_dir=str(tmp_path / "elsewhere"))
    run(plan(elsewhere, runner), SilentProgress(), runner)
    assert shard_bytes(tmp_path / "elsewhere") == shard_bytes(tmp_path / "out")


@pytest.mark.slow
def test_a_recipe_bundle_is_unpacked_on_a_machine_without_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokenizer_path: Callable[[str], str]
) -> None:
    """The files of the tokenizer and the modules are deleted; another process gets them from the bundle."""
    code, files = tmp_path / "code", tmp_path / "tokenizer"
    write_handler(code, "sftkit_test_traveling")
    shutil.copytree(tokenizer_path("bpe"), files)
    monkeypatch.syspath_prepend(str(code))
    monkeypatch.chdir(tmp_path)
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": "a"}])
    data = dataset(source, data_handlers=[handler("sftkit_test_traveling:shout", by="!")])
    planned = plan(PreprocessConfig(output_dir="out", datasets=(data,), tokenizer_name_or_path=str(files)))
    (tmp_path / "bundle").write_bytes(pickle.dumps(bundle_recipe(planned.recipe)))
    shutil.rmtree(code)
    shutil.rmtree(files)
    there = f"""
import pickle, sys, pathlib
from sftkit.preprocessing.recipe_bundle import unpack_recipe
from sftkit.handlers.user_function import import_function
from sftkit.tokenization.chat_tokenizer import ChatTokenizer
recipe = unpack_recipe(pickle.loads(pathlib.Path({str(tmp_path / "bundle")!r}).read_bytes()))
row = import_function("sftkit_test_traveling:shout")({{"text": "a"}}, by="!")
print(row["text"], *ChatTokenizer(recipe.chat_tokenizer).identity)
"""
    (tmp_path / "there").mkdir()
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "sftkit_test_traveling.py").write_text(
        "def shout(row, by): return {'text': 'of another day'}\n"
    )
    search = os.pathsep.join(filter(None, [str(tmp_path / "old"), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "TMPDIR": str(tmp_path / "there"), "PYTHONPATH": search}
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", there], capture_output=True, text=True, env=environment, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.split()[:2] == ["A!", planned.pipeline.chat_tokenizer.identity[0]]
    [home] = (tmp_path / "there").iterdir()
    assert (len(list(home.iterdir())), home.stat().st_mode & 0o77) == (1, 0)


def test_relative_paths_refer_to_the_directory_of_the_driver(
    runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "in.jsonl", [{"text": "a"}])
    run(plan(PreprocessConfig(output_dir="out", datasets=(dataset("in.jsonl"),)), runner), SilentProgress(), runner)
    assert (tmp_path / "out" / "manifest.json").is_file()


def test_a_mix_and_a_curriculum_are_those_of_a_local_run(runner: Runner, tmp_path: Path) -> None:
    pairs = handler("tokenize_and_apply_input_masking", input_field_name="input", output_field_name="output")
    sets = tuple(
        dataset(
            write_jsonl(
                tmp_path / f"{name}.jsonl",
                [{"input": f"{name} {n}", "output": "word " * (n % 5 + 1), "rank": n * 7 % 11} for n in range(rows)],
            ),
            name=name, weight=weight, data_handlers=[pairs], retain_columns=("rank",),
        )
        for name, rows, weight in (("large", 60, 1), ("small", 20, 2))
    )  # fmt: skip
    processor = ProcessorConfig(mix_by="tokens", total_tokens=900, order="curriculum:-rank")
    config = PreprocessConfig(
        output_dir=str(tmp_path / "local"), datasets=sets, model_name_or_path="sample:model", dataprocessor=processor,
        unit_size=300, num_workers=1,
    )  # fmt: skip
    local = run(plan(config), SilentProgress())
    on_ray = run(plan(replace(config, output_dir=str(tmp_path / "ray"))), SilentProgress(), runner)
    assert shard_bytes(tmp_path / "ray") == shard_bytes(tmp_path / "local")
    assert [source.mix for source in on_ray.sources] == [source.mix for source in local.sources]


def test_errors_on_a_node_are_reported_as_local_errors(runner: Runner, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": "a"}, ["no object"], {"text": "b"}])
    config = PreprocessConfig(output_dir=str(tmp_path / "out"), datasets=(dataset(source),))
    with pytest.raises(DataError, match=r"in\.jsonl:2: a row must be a JSON object, not a list"):
        run(plan(config, runner), SilentProgress(), runner)
    planned = plan(replace(config, output_dir=str(tmp_path / "other")), runner)
    source.unlink()
    with pytest.raises(SourceError, match=r"in\.jsonl: cannot be read: No such file or directory \(on node .+\)$"):
        run(planned, SilentProgress(), runner)


# --- Without a cluster ------------------------------------------------------------------------------------------------


def test_the_error_for_an_address_without_a_cluster_is_one_sentence() -> None:
    with pytest.raises(
        ConfigError, match=r"^ray_address 127\.0\.0\.1:1: nothing answers at .*:1 \(Connection refused\); give "
    ):
        RayCluster("127.0.0.1:1", None).__enter__()


def test_the_error_without_ray_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from sftkit.config.validation import validate_config

    config = PreprocessConfig(output_dir="out", datasets=(dataset(tmp_path),), executor="ray")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(
        ConfigError, match=r"^executor: ray needs Ray, which is not installed; pip install 'sftkit\[ray\]'$"
    ):
        validate_config(config)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'sftkit\[ray\]'"), open_cluster(config):
        pass


@pytest.mark.slow
def test_a_local_run_imports_nothing_of_ray(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": "a"}])
    argv = [
        "preprocess",
        f"--training_data_path={source}",
        f"--output_dir={tmp_path / 'out'}",
        "--dataset_text_field=text",
    ]
    code = f"""
import sys
from sftkit.cli.app import app
try:
    app({argv!r})
finally:
    assert not {{"ray", "s3fs"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "manifest.json").is_file()


def test_an_address_is_refused_without_the_executor(tmp_path: Path) -> None:
    from sftkit.config.validation import validate_config

    with pytest.raises(ConfigError, match=r"^ray_address=auto needs executor=ray; set it$"):
        validate_config(PreprocessConfig(output_dir="out", datasets=(dataset(tmp_path),), ray_address="auto"))
