"""Runs that read from and write to an object store: they write the bytes of a local run, even after failures."""

from __future__ import annotations

import errno
import json
import logging
import os
import pickle
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from buckets import Bucket, new_bucket
from sftkit.config.commands import InspectConfig, PreprocessConfig
from sftkit.config.fields import to_plain_data
from sftkit.core.progress import SilentProgress
from sftkit.errors import DataError, OutputError, SourceError
from sftkit.inspection.report import inspect_shards
from sftkit.inspection.verify.verify_dataset import verify
from sftkit.preprocessing.build import find_finished, output_for, run
from sftkit.preprocessing.planning import plan
from sftkit.shards.formats.output_formats import OUTPUT_FORMATS
from sftkit.shards.manifest import Manifest
from sftkit.shards.reading import open_shards
from sftkit.shards.staging.row_index import build_row_index
from sftkit.shards.staging.unit_record import read_row_index
from sftkit.shards.writing.row_gatherer import open_unit_reader
from sftkit.shards.writing.shard_writer import ShardWriter
from sftkit.sources.discovery.source_files import find_source_files
from sftkit.storage import lease_lock
from sftkit.storage.files import read_bytes, remove, write_text
from sftkit.storage.lease_lock import Lease, hold_lease
from sftkit.storage.paths import RemotePath, parse_path
from support import dataset, handler, shard_bytes, wait_until, write_jsonl

TIMES = ("seconds", "worker_seconds", "rows_by_programs", "digest")


def conversations(count: int) -> list[dict[str, Any]]:
    return [
        {
            "id": number,
            "topic": f"Thema {number % 7} ✓",
            "messages": [
                {"role": "user", "content": f"What is {number}?"},
                {"role": "assistant", "content": f"It is {number}. " * (number % 9 + 1)},
            ],
        }
        for number in range(count)
    ]


def config(source: str, output: str, bucket: Bucket, **options: Any) -> PreprocessConfig:
    data = dataset(
        source,
        shuffle=True,
        retain_columns=("id", "topic", "messages"),
        data_handlers=[handler("tokenize_and_apply_chat_template_with_masking", conversation_column="messages")],
    )
    given = {"unit_size": 12_000, "num_dataset_shards": 3, "num_workers": 1, "packing": "bfd", "pack_length": 64}
    return PreprocessConfig(
        output_dir=output,
        datasets=(data,),
        model_name_or_path="sample:model",
        storage_options=bucket.options,
        **{**given, **options},
    )


def made(wanted: PreprocessConfig) -> Manifest:
    planned = plan(wanted)
    done = find_finished(planned)
    return done if done is not None else run(planned, SilentProgress())


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_jsonl(tmp_path_factory.mktemp("source") / "conversations.jsonl", conversations(300))


@pytest.fixture(scope="module")
def finished(source: Path, endpoint: str) -> dict[str, bytes]:
    """The files of the data set that `config` makes, by name; made once, in a bucket."""
    bucket = new_bucket(endpoint)
    made(config(str(source), bucket.url("out"), bucket))
    return bucket.files("out")


@pytest.fixture
def filled(bucket: Bucket, finished: dict[str, bytes]) -> Bucket:
    """A bucket with these files in `out`."""
    for name, data in finished.items():
        bucket.system.pipe_file(f"{bucket.name}/out/{name}", data)
    return bucket


def shards_in(bucket: Bucket, folder: str) -> dict[str, bytes]:
    return {name: data for name, data in bucket.files(folder).items() if name.endswith(".parquet")}


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_shards_are_identical_to_those_of_a_local_run(
    workers: int, source: Path, tmp_path: Path, bucket: Bucket
) -> None:
    local = made(config(str(source), str(tmp_path / "out"), bucket))
    url = bucket.put(source, "raw/conversations.jsonl")
    remote = made(config(bucket.url("raw"), bucket.url("out"), bucket, num_workers=workers))
    assert shards_in(bucket, "out") == shard_bytes(tmp_path / "out")
    assert set(bucket.names("out")) == {"README.md", "manifest.json", *shard_bytes(tmp_path / "out")}
    assert remote.fingerprint == local.fingerprint
    assert remote.splits == local.splits
    assert [each.path for each in remote.sources] == [url]


@pytest.mark.slow
def test_shards_are_identical_if_one_request_in_twenty_fails(
    source: Path, tmp_path: Path, failing_bucket: Bucket
) -> None:
    made(config(str(source), str(tmp_path / "out"), failing_bucket))
    requests, failures = failing_bucket.failures()
    failing_bucket.put(source, "raw.jsonl")
    made(config(failing_bucket.url("raw.jsonl"), failing_bucket.url("out"), failing_bucket, num_workers=2))
    assert shards_in(failing_bucket, "out") == shard_bytes(tmp_path / "out")
    asked, failed = (
        after - before for after, before in zip(failing_bucket.failures(), (requests, failures), strict=True)
    )
    assert failed > 3
    assert failed > 0.02 * asked


@pytest.mark.parametrize(
    ("staging", "output"),
    [("local", "remote"), *(pytest.param("remote", output, marks=pytest.mark.slow) for output in ("local", "remote"))],
)
def test_staged_units_can_be_in_another_place_than_the_shards(
    staging: str, output: str, source: Path, tmp_path: Path, bucket: Bucket
) -> None:
    units = str(tmp_path / "units") if staging == "local" else bucket.url("units")
    out = str(tmp_path / "out") if output == "local" else bucket.url("out")
    first = made(config(str(source), out, bucket, staging_dir=units))
    again = made(config(str(source), out, bucket, staging_dir=units, num_dataset_shards=2, overwrite=True))
    assert (first.units_found, again.units_found) == (0, again.units)
    assert again.units > 3
    there = shards_in(bucket, "out") if output == "remote" else shard_bytes(tmp_path / "out")
    assert sorted(there) == ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"]


def test_keep_staging_keeps_the_staged_units(source: Path, bucket: Bucket) -> None:
    kept = config(str(source), bucket.url("out"), bucket, keep_staging=True)
    units = 2 * made(kept).units
    assert sum("unit-" in name for name in bucket.names("out")) == units
    assert made(config(str(source), bucket.url("out"), bucket, overwrite=True, pack_length=128)).units_found
    assert set(bucket.names("out")) == {
        *("README.md", "manifest.json"), *(f"train-{number:05d}-of-00003.parquet" for number in range(3))
    }  # fmt: skip


def test_the_unit_record_holds_the_row_index(source: Path, tmp_path: Path, bucket: Bucket) -> None:
    for column in ("messages", None):
        staged = tmp_path / f"units-{column}"
        made(config(str(source), str(tmp_path / f"out-{column}"), bucket, staging_dir=str(staged)))
        files = [path for path in staged.glob("unit-*.arrow") if ".account" not in path.suffixes]
        columns = ("input_ids", "labels", "sftkit_extras")
        for path in files:
            recorded, found = read_row_index(path, columns), build_row_index(path, columns)
            assert recorded.batch_rows.tolist() == found.batch_rows.tolist()
            assert recorded.value_bytes == found.value_bytes
            for name in columns:
                assert recorded.batch_starts[name].tolist() == found.batch_starts[name].tolist()
                assert recorded.lengths[name].tolist() == found.lengths[name].tolist()
        assert files


@pytest.mark.slow
def test_a_run_that_is_killed_repeatedly_resumes(source: Path, tmp_path: Path, bucket: Bucket) -> None:
    """The run is killed once some units are staged, and once the first shard is being written."""
    wanted = config(str(source), str(tmp_path / "out"), bucket, unit_size=6000)
    units = made(wanted).units
    (tmp_path / "config.yaml").write_text(
        json.dumps({**to_plain_data(wanted), "output_dir": bucket.url("out"), "num_workers": 2})
    )
    argv = [sys.executable, "-m", "sftkit", "preprocess", f"--config={tmp_path / 'config.yaml'}"]
    for part, after in ((".account", int(0.4 * units)), ("/train-", 0)):
        with bucket.holding(part, after) as is_held:
            child = subprocess.Popen(argv, stderr=subprocess.PIPE)
            wait_until(is_held, child)
            child.kill()
            assert child.wait() == -signal.SIGKILL
        assert "manifest.json" not in bucket.names("out")
    again = subprocess.run(argv, check=False, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert f"{units} of {units} work units found staged, 0 tokenized" in again.stdout
    assert shards_in(bucket, "out") == shard_bytes(tmp_path / "out")
    assert not any(name.startswith(".staging") for name in bucket.names("out"))


def test_another_data_set_is_overwritten_only_on_request(source: Path, filled: Bucket) -> None:
    before = filled.files("out")
    with pytest.raises(OutputError, match=r"^output_dir s3://.*/out: holds another data set; choose another directory"):
        made(config(str(source), filled.url("out"), filled, pack_length=128))
    assert filled.files("out") == before
    made(config(str(source), filled.url("out"), filled, num_dataset_shards=1, overwrite=True))
    assert sorted(shards_in(filled, "out")) == ["train-00000-of-00001.parquet"]


def test_other_formats_are_the_same_as_those_on_a_disk(source: Path, tmp_path: Path, bucket: Bucket) -> None:
    formats = tuple(OUTPUT_FORMATS)
    made(config(str(source), str(tmp_path / "out"), bucket, output_format=formats))
    made(config(str(source), bucket.url("out"), bucket, output_format=formats))
    local = {path.relative_to(tmp_path / "out").as_posix(): path for path in (tmp_path / "out").rglob("*")}
    shards = {name: path.read_bytes() for name, path in local.items() if path.is_file() and name != "manifest.json"}
    stored = bucket.files("out")
    assert {name: data for name, data in stored.items() if name != "manifest.json"} == shards
    assert find_finished(plan(config(str(source), bucket.url("out"), bucket, output_format=formats))) is not None
    bucket.put(source, "out/mds/theirs.jsonl")
    made(config(str(source), bucket.url("out"), bucket, overwrite=True))
    assert {name for name in bucket.names("out") if "/" in name} == {"mds/theirs.jsonl"}
    bucket.put(source, "new/mds/theirs.jsonl")
    with pytest.raises(OutputError, match=r"new: holds mds/theirs\.jsonl, which sftkit did not write"):
        made(config(str(source), bucket.url("new"), bucket, output_format=("mds",)))


def test_an_output_directory_with_foreign_files_is_rejected(source: Path, bucket: Bucket) -> None:
    bucket.put(source, "out/theirs.parquet")
    with pytest.raises(OutputError, match=r"out: holds theirs\.parquet, which sftkit did not write"):
        made(config(str(source), bucket.url("out"), bucket))
    assert set(bucket.names("out")) == {"theirs.parquet"}


def test_a_missing_shard_is_written_again(source: Path, filled: Bucket) -> None:
    wanted = config(str(source), filled.url("out"), filled)
    before = filled.files("out")
    filled.system.rm_file(f"{filled.name}/out/train-00001-of-00003.parquet")
    assert find_finished(plan(wanted)) is None
    made(wanted)
    assert shards_in(filled, "out") == {name: data for name, data in before.items() if name.endswith(".parquet")}
    assert find_finished(plan(wanted)) is not None


def test_quarantined_and_dropped_rows_are_written_next_to_the_shards(tmp_path: Path, bucket: Bucket) -> None:
    rows: list[Any] = conversations(50)
    rows[7] = {"messages": None}
    rows[9]["messages"][-1]["train"] = False
    bucket.put(write_jsonl(tmp_path / "bad.jsonl", rows), "bad.jsonl")
    made(config(bucket.url("bad.jsonl"), bucket.url("out"), bucket, max_bad_rows=1))
    [line] = bucket.files("out")["dropped.jsonl"].decode().splitlines()
    assert (json.loads(line)["path"], json.loads(line)["row"]) == (bucket.url("bad.jsonl"), 10)
    [line] = bucket.files("out")["quarantine.jsonl"].decode().splitlines()
    assert (json.loads(line)["path"], json.loads(line)["row"]) == (bucket.url("bad.jsonl"), 8)


def test_an_existing_data_set_stays_until_the_new_one_is_complete(
    source: Path, filled: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = filled.files("out")
    monkeypatch.setattr(ShardWriter, "__call__", broken)
    with pytest.raises(OutputError, match=r"^output_dir .*/out: cannot be written: No space left on device; its files"):
        made(config(str(source), filled.url("out"), filled, pack_length=128, overwrite=True))
    left = filled.files("out")
    assert {name: data for name, data in left.items() if not name.startswith(".staging/unit-")} == before


def broken(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_run_that_lost_its_lock_does_not_change_the_data_set_of_another_run(source: Path, bucket: Bucket) -> None:
    mine, theirs = (config(str(source), bucket.url("out"), bucket, pack_length=length) for length in (64, 128))
    with output_for(mine).open(overwrite=False) as output:  # the run then pauses for a long time
        bucket.system.rm_file(f"{bucket.name}/out/.staging/lock")
        other = made(theirs)
        before = bucket.files("out")
        with pytest.raises(OutputError, match="another run has taken over the lock, so this run stops writing"):
            output.publish(replace(other, splits={}), ())
    assert bucket.files("out") == before
    assert find_finished(plan(theirs)) is not None


@pytest.mark.parametrize("remote", [False, True])
def test_an_incomplete_data_set_is_rejected(remote: bool, source: Path, tmp_path: Path, filled: Bucket) -> None:
    out = filled.url("out") if remote else str(tmp_path / "out")
    if not remote:
        made(config(str(source), out, filled))
    root = parse_path(out, filled.options)
    remove(root / "manifest.json")
    if not remote:
        (tmp_path / "out" / ".staging").mkdir()
    write_text(root / ".staging" / "publishing.json", "[]")
    with pytest.raises(SourceError, match=r"out: preprocess has not finished writing this data set; rerun the command"):
        open_shards(out, filled.options)
    with pytest.raises(SourceError, match=r"out: preprocess has not finished writing this data set"):
        plan(config(out, str(tmp_path / "again"), filled))


def test_the_manifest_decides_which_shards_are_read(source: Path, bucket: Bucket) -> None:
    made(config(str(source), bucket.url("out"), bucket, packing="none", pack_length=None))
    bucket.put(source, "out/train-extra.parquet")
    files = find_source_files(dataset(bucket.url("out")), None, bucket.options)
    assert [Path(file.path).name for file in files] == [f"train-{number:05d}-of-00003.parquet" for number in range(3)]
    with pytest.raises(SourceError, match=r"out: no data files of split 'validation' in this directory"):
        find_source_files(dataset(bucket.url("out"), dataset_split_name="validation"), None, bucket.options)
    bucket.system.rm_file(f"{bucket.name}/out/train-00001-of-00003.parquet")
    with pytest.raises(SourceError, match=r"train-00001-of-00003\.parquet: is missing, but listed in .*manifest\.json"):
        find_source_files(dataset(bucket.url("out")), None, bucket.options)


def test_a_remote_file_whose_name_looks_like_a_glob_is_read(source: Path, bucket: Bucket) -> None:
    url = bucket.put(source, "br[x].jsonl")
    [file] = find_source_files(dataset(url), None, bucket.options)
    assert file.path == url


def test_credentials_are_neither_written_nor_shown(
    source: Path, bucket: Bucket, capsys: pytest.CaptureFixture[str]
) -> None:
    from sftkit.cli.console.output import results
    from sftkit.cli.console.reports.show_plan import print_plan

    wanted = config(str(source), bucket.url("out"), bucket)
    [data] = wanted.datasets
    wanted = replace(wanted, datasets=(replace(data, storage_options={"endpoint_url": bucket.endpoint}),))
    made(wanted)
    assert all(bucket.endpoint.encode() not in data for data in bucket.files("out").values())
    print_plan(plan(wanted), results())
    shown = capsys.readouterr().out
    assert "endpoint_url: '***'" in shown
    assert bucket.endpoint not in shown


def test_storage_options_of_a_data_set_override_those_of_the_run(source: Path, tmp_path: Path, bucket: Bucket) -> None:
    url = bucket.put(source, "raw.jsonl")
    wanted = config(url, str(tmp_path / "out"), bucket)
    [data] = wanted.datasets
    theirs = replace(data, storage_options={"endpoint_url": bucket.endpoint})
    given = {"s3": {**bucket.options, "endpoint_url": "http://127.0.0.1:1"}}
    assert made(replace(wanted, storage_options=given, datasets=(theirs,))).rows_read == 300


def test_file_urls_are_local_paths(source: Path, tmp_path: Path, bucket: Bucket) -> None:
    made(config(source.as_uri(), (tmp_path / "new" / "out").as_uri(), bucket))
    assert (tmp_path / "new" / "out" / "manifest.json").is_file()


def test_the_error_about_a_changed_source_names_it(source: Path, tmp_path: Path, bucket: Bucket) -> None:
    url = bucket.put(source, "raw.jsonl")
    planned = plan(config(url, str(tmp_path / "out"), bucket))
    bucket.put(write_jsonl(tmp_path / "other.jsonl", conversations(400)), "raw.jsonl")
    with pytest.raises(SourceError, match=r"raw\.jsonl: changed while it was read"):
        run(planned, SilentProgress())


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("s3://{bucket}/none.jsonl", "no such file or directory"),
        ("s3://{bucket}/none-*.jsonl", "no data files there"),
        ("s3://nobody-has-this-bucket/raw.jsonl", "no such file or directory|cannot be read: .*bucket"),
        ("nosuch://bucket/raw.jsonl", "cannot be read: Protocol not known"),
    ],
)
def test_a_missing_remote_source_is_reported_in_one_sentence(
    url: str, reason: str, tmp_path: Path, bucket: Bucket
) -> None:
    with pytest.raises(SourceError, match=reason):
        plan(config(url.format(bucket=bucket.name), str(tmp_path / "out"), bucket))


def test_a_missing_bucket_is_reported_in_one_sentence(source: Path, bucket: Bucket) -> None:
    with pytest.raises(OutputError, match=r"^output_dir s3://nobody-has-this/out: cannot be read or written: "):
        made(config(str(source), "s3://nobody-has-this/out", bucket))


# --- One run at a time ------------------------------------------------------------------------------------------------


@pytest.fixture
def place(bucket: Bucket) -> RemotePath:
    return RemotePath(bucket.url("out"), bucket.options)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_lock, "HEARTBEAT_SECONDS", 0.1)
    monkeypatch.setattr(lease_lock, "STALE_AFTER_SECONDS", 1.0)


def test_a_second_run_is_rejected(
    source: Path, bucket: Bucket, place: RemotePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_lock, "HEARTBEAT_SECONDS", 0.1)
    monkeypatch.setattr(lease_lock, "STALE_AFTER_SECONDS", 600.0)  # it waits for a single heartbeat
    wanted = config(str(source), place.url, bucket)
    planned = plan(wanted)
    with output_for(wanted).open(overwrite=False), pytest.raises(OutputError, match="another run is writing there"):
        run(planned, SilentProgress())
    run(planned, SilentProgress())


@pytest.mark.usefixtures("quick")
def test_the_lock_of_a_dead_run_is_taken_over(place: RemotePath, caplog: pytest.LogCaptureFixture) -> None:
    lock = place / "lock"
    other = Lease(lock, place)
    other.take()
    other._ended.set()  # as if killed, on another machine
    held = json.loads(read_bytes(lock))
    held[0]["machine"] = "another"
    lease_lock.write_bytes(lock, json.dumps(held).encode())
    with caplog.at_level(logging.WARNING), hold_lease(lock, place) as mine:
        mine.check()
        with pytest.raises(OutputError, match="another run has taken over the lock, so this run stops writing"):
            other.check()
    assert "there is a lock; checking for 1 s whether its run is alive" in caplog.text


def test_the_lock_of_a_dead_process_on_this_machine_is_taken_over_at_once(
    place: RemotePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    holder = {"run": "x", "machine": lease_lock._machine(), "process": int(dead.stdout)}
    lease_lock.write_bytes(place / "lock", json.dumps([holder, 3]).encode())
    monkeypatch.setattr(lease_lock, "STALE_AFTER_SECONDS", 1e9)  # longer than any test waits
    with hold_lease(place / "lock", place) as mine:
        mine.check()
    assert os.getpid() != int(dead.stdout)


def test_rows_of_a_remote_unit_are_read_with_few_requests(source: Path, bucket: Bucket) -> None:
    import numpy as np

    made(config(str(source), bucket.url("out"), bucket, staging_dir=bucket.url("units"), unit_size=1 << 20))
    [name] = [name for name in bucket.files("units") if ".account" not in name]
    columns = ("input_ids", "labels", "sftkit_extras")
    reader = open_unit_reader(RemotePath(bucket.url(f"units/{name}"), bucket.options), columns)
    rows = np.arange(0, 300, 7)
    places, lengths = reader.locate("input_ids", rows)
    into = [np.empty(length, np.int32) for length in lengths.tolist()]
    before, _ = bucket.failures()
    reader.read(list(zip(places.tolist(), into, strict=True)))
    assert bucket.failures()[0] - before == 1
    assert all(len(set(row.tolist())) > 3 for row in into)


# --- What reads shards ------------------------------------------------------------------------------------------------


@pytest.fixture
def both(source: Path, tmp_path: Path, filled: Bucket) -> tuple[str, str]:
    """The same shards in a directory and in the bucket."""
    made(config(str(source), str(tmp_path / "out"), filled))
    return str(tmp_path / "out"), filled.url("out")


def test_remote_shards_are_read_like_local_ones(both: tuple[str, str], bucket: Bucket) -> None:
    local, remote = (open_shards(place, bucket.options) for place in both)
    assert list(remote.splits) == list(local.splits)
    for (_, here), (_, there) in zip(local.tables("train"), remote.tables("train"), strict=True):
        assert here.equals(there)
    one = open_shards(f"{both[1]}/train-00001-of-00003.parquet", bucket.options)
    assert one.manifest is not None
    bucket.system.rm_file(f"{bucket.name}/out/manifest.json")
    assert [path.name for path in open_shards(both[1], bucket.options).splits["train"]] == [
        path.name for path in local.splits["train"]
    ]
    with pytest.raises(SourceError, match=r"none: no files of shards in this directory"):
        open_shards(bucket.url("none"), bucket.options)


def test_the_error_about_a_missing_shard_names_it(both: tuple[str, str], bucket: Bucket) -> None:
    bucket.system.rm_file(f"{bucket.name}/out/train-00001-of-00003.parquet")
    with pytest.raises(DataError, match=r"out/train-00001-of-00003\.parquet: is listed in the manifest but missing"):
        open_shards(both[1], bucket.options)


@pytest.mark.parametrize("streaming", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_training_reads_remote_shards(streaming: bool, both: tuple[str, str], bucket: Bucket) -> None:
    from sftkit.training.data.rows.open_split import open_split

    held = 1 << 20
    local, remote = (
        open_split(open_shards(place, bucket.options), "train", 3000, None, held, streaming=streaming) for place in both
    )
    remote = pickle.loads(pickle.dumps(remote))  # as a loader's worker process gets it
    assert len(remote) == len(local)
    groups = [[rows.groups_of(file) for file in range(rows.files)] for rows in (local, remote)]
    assert groups[0] == groups[1]
    for group in (group for file in groups[0] for group in file):
        assert remote.group(group).input_ids.values.tolist() == local.group(group).input_ids.values.tolist()


def test_inspection_and_verification_of_remote_shards_agree_with_local_ones(
    both: tuple[str, str], bucket: Bucket
) -> None:
    reports = [
        inspect_shards(
            InspectConfig(directory=place, storage_options=bucket.options, audit=True),
            open_shards(place, bucket.options),
        )
        for place in both
    ]
    assert reports[0].audit == reports[1].audit
    verified = [verify(InspectConfig(directory=place, storage_options=bucket.options)) for place in both]
    assert [each.differences for each in verified] == [(), ()]
    bucket.system.pipe_file(f"{bucket.name}/out/train-00001-of-00003.parquet", b"other")
    [difference] = verify(InspectConfig(directory=both[1], storage_options=bucket.options)).differences
    assert difference.place == "train-00001-of-00003.parquet"
