"""What runs remove from an output directory: nothing that no run has made, and nothing behind a link."""

from __future__ import annotations

import errno
import logging
import os
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from sftkit.config.commands import PreprocessConfig
from sftkit.core.progress import SilentProgress
from sftkit.errors import DataError, OutputError, SftkitError
from sftkit.preprocessing.build import find_finished, output_for, run
from sftkit.preprocessing.planning import plan
from support import dataset, examples, handler, shard_bytes, write_jsonl

KEY = "0123456789abcdef" * 4
RUN = "4711-0a1b2c3d"
ROWS = [{"input": f"q{number}", "output": f"answer {number}"} for number in range(6)]
MASKING = handler("tokenize_and_apply_input_masking", input_field_name="input", output_field_name="output")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "pairs.jsonl", ROWS)


def made(output: Path, source: Path, **options: Any) -> None:
    """Run as the command does: a data set that is complete is left alone."""
    config = PreprocessConfig(
        output_dir=str(output),
        datasets=(dataset(source, data_handlers=[MASKING]),),
        model_name_or_path="sample:model",
        **{"num_workers": 1, **options},
    )
    planned = plan(config)
    if find_finished(planned) is None:
        run(planned, SilentProgress())
    else:
        output_for(planned.config).finish_cleanup()


def tree(folder: Path) -> dict[str, bytes | str]:
    """All files and links below a folder, with their content or target; folders end in a slash."""
    found: dict[str, bytes | str] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = str(path.readlink())
        elif path.is_dir():
            found[f"{name}/"] = ""
        else:
            found[name] = path.read_bytes()
    return found


def foreign_files(folder: Path) -> None:
    """Fill a folder with what others may have there, much of it under names like those of runs."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "thesis").mkdir()
    (folder / "thesis" / "chapter1.tex").write_text("precious")
    (folder / "keep.txt").write_text("precious")
    (folder / f"unit-{KEY}.arrow").write_text("precious")
    (folder / f"unit-{KEY}.bad.account.arrow").write_text("")
    (folder / "unit-tests.arrow").write_text("precious")
    (folder / f".unit-{KEY}.arrow.0a1b2c3d.{RUN}.tmp").write_text("precious")
    (folder / ".manifest.json.tmp").write_text("precious")
    (folder / f"run-{RUN}").mkdir()
    (folder / f"run-{RUN}" / "train-00000-of-00001.parquet").write_text("precious")
    (folder / f"run-{RUN}" / "results").mkdir()
    (folder / f"run-{RUN}" / "results" / "table.csv").write_text("precious")
    (folder / "run-away").mkdir()
    (folder / "run-away" / "file").write_text("precious")
    (folder / "link-to-file").symlink_to(folder / "keep.txt")
    (folder / f"unit-{KEY[::-1]}.arrow").symlink_to(folder / "thesis" / "chapter1.tex")
    (folder / f"run-{RUN[:-1]}0").symlink_to(folder / "thesis", target_is_directory=True)
    (folder / "dangling").symlink_to(folder / "nowhere")


def test_a_staging_folder_that_is_a_link_is_used_and_only_files_of_runs_are_removed(
    tmp_path: Path, source: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scratch, out = tmp_path / "scratch", tmp_path / "out"
    foreign_files(scratch)
    before = tree(scratch)
    out.mkdir()
    (out / ".staging").symlink_to(scratch, target_is_directory=True)
    with caplog.at_level(logging.WARNING):
        made(out, source)
    assert tree(scratch) == before
    assert (out / ".staging").is_symlink()
    assert "sftkit did not make .manifest.json.tmp, " in caplog.text
    made(tmp_path / "plain", source)
    assert shard_bytes(out) == shard_bytes(tmp_path / "plain")
    made(out, source)  # complete and unchanged
    made(out, source, overwrite=True, num_dataset_shards=2)
    assert tree(scratch) == before


def test_an_empty_folder_behind_the_link_stays_empty(tmp_path: Path, source: Path) -> None:
    (tmp_path / "scratch").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".staging").symlink_to(tmp_path / "scratch", target_is_directory=True)
    made(tmp_path / "out", source)
    made(tmp_path / "out", source)
    assert tree(tmp_path / "scratch") == {}
    assert (tmp_path / "out" / ".staging").is_symlink()


@pytest.mark.parametrize("keep", [False, True])
def test_foreign_files_in_a_staging_folder_stay(tmp_path: Path, source: Path, keep: bool) -> None:
    staging = tmp_path / "out" / ".staging"
    foreign_files(staging)
    before = tree(staging)
    made(tmp_path / "out", source, keep_staging=keep)
    made(tmp_path / "out", source, keep_staging=keep)
    left = tree(staging)
    assert {name: left[name] for name in before} == before
    assert (len(left) > len(before)) == keep
    made(tmp_path / "out", source, num_dataset_shards=2, overwrite=True)
    assert tree(staging) == before


def interrupted(output: Path, source: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
    """A run that is killed when its shards are written: nothing is cleaned up."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("sftkit.preprocessing.build.make_manifest", stop)
        for name in ("remove_unfinished", "remove_if_empty"):
            patched.setattr(f"sftkit.shards.output.local_output.{name}", lambda *_: None)
        with pytest.raises(KeyboardInterrupt):
            made(output, source, **options)


def test_leftovers_of_killed_runs_are_removed_and_foreign_files_among_them_stay(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    interrupted(out, source, monkeypatch, num_dataset_shards=2)
    interrupted(out, source, monkeypatch, max_seq_length=7)  # leaves units of another recipe
    [first, second] = sorted((out / ".staging").glob("run-*"))
    assert (first / "train-00000-of-00002.parquet").exists() != (second / "train-00000-of-00002.parquet").exists()
    run_of_first = first.name.removeprefix("run-")
    (out / ".staging" / f".unit-{KEY}.arrow.0a1b2c3d.{run_of_first}.tmp").write_text("")
    (out / f".manifest.json.{run_of_first}.tmp").write_text("{")
    (out / f".manifest.json.{RUN}.tmp").write_text("of nobody")
    (second / "notes.txt").write_text("precious")
    made(out, source)
    names = {name: content for name, content in tree(out).items() if name.startswith(".")}
    assert names == {
        f".manifest.json.{RUN}.tmp": b"of nobody",
        ".staging/": "",
        f".staging/{second.name}/": "",
        f".staging/{second.name}/notes.txt": b"precious",
        f".staging/{second.name}/sftkit_run": b"",
    }
    (second / "notes.txt").unlink()
    made(out, source, num_dataset_shards=2, overwrite=True)
    assert not (out / ".staging").exists()


@pytest.mark.parametrize("name", ["lock", "publishing.json", "quarantine.jsonl", "dropped.jsonl"])
@pytest.mark.parametrize("kind", ["file", "link", "link to a list", "link to a folder"])
def test_foreign_files_under_names_that_a_run_needs_are_refused(
    tmp_path: Path, source: Path, name: str, kind: str
) -> None:
    staging = tmp_path / "out" / ".staging"
    staging.mkdir(parents=True)
    real = staging / name if kind == "file" else tmp_path / "folder" / "precious.txt"
    real.parent.mkdir(exist_ok=True)
    content = "[]" if kind == "link to a list" else "precious"
    real.write_text(content)
    if kind != "file":
        (staging / name).symlink_to(real.parent if kind == "link to a folder" else real)
    with pytest.raises(OutputError, match=rf"holds \.staging/{name}, which sftkit did not write"):
        made(tmp_path / "out", source)
    assert real.read_text() == content
    assert [path.name for path in staging.iterdir()] == [name]


@pytest.mark.parametrize(
    "name", ["README.md", "manifest.json", "quarantine.jsonl", "dropped.jsonl", "train-00000-of-00001.parquet"]
)
def test_foreign_files_of_a_data_set_are_refused(tmp_path: Path, source: Path, name: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text('{"precious": true}\n')
    with pytest.raises(OutputError, match=rf"holds {name}, which sftkit did not write"):
        made(tmp_path / "out", source, overwrite=True)
    assert tree(tmp_path / "out") == {name: b'{"precious": true}\n'}


def test_a_foreign_file_in_the_place_of_a_new_shard_is_refused_and_the_old_data_set_stays(
    tmp_path: Path, source: Path
) -> None:
    out = tmp_path / "out"
    made(out, source)
    (out / "train-00001-of-00002.parquet").write_text("precious")
    before = {name: data for name, data in tree(out).items() if not name.startswith(".staging")}
    with pytest.raises(OutputError, match=r"holds train-00001-of-00002\.parquet, which sftkit did not write"):
        made(out, source, num_dataset_shards=2, overwrite=True)
    assert {name: data for name, data in tree(out).items() if not name.startswith(".staging")} == before


def test_a_manifest_of_a_stranger_deletes_nothing_but_shards_beside_it(tmp_path: Path, source: Path) -> None:
    out = tmp_path / "out"
    made(out, source)
    for name in ("../../x", "../out/thesis.tex", "thesis.tex", "data.parquet", "sub/train-00000-of-00001.parquet"):
        for file in (out / "thesis.tex", out / "data.parquet", tmp_path / "x"):
            file.write_text("precious")
        text = (out / "manifest.json").read_text()
        (out / "manifest.json").write_text(text.replace("train-00000-of-00001.parquet", name))
        if (out / "train-00000-of-00001.parquet").exists():
            (out / "train-00000-of-00001.parquet").unlink()
        made(out, source, overwrite=True)
        for file in (out / "thesis.tex", out / "data.parquet", tmp_path / "x"):
            assert file.read_text() == "precious", name


def test_overwriting_replaces_links_and_hard_links_not_what_they_lead_to(tmp_path: Path, source: Path) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    made(out, source, num_dataset_shards=2)
    elsewhere.mkdir()
    for path in sorted(out.iterdir()):
        path.replace(elsewhere / path.name)
        if path.name == "train-00000-of-00002.parquet":
            os.link(elsewhere / path.name, path)
        else:
            path.symlink_to(elsewhere / path.name)
    before = tree(elsewhere)
    made(out, source, overwrite=True)
    assert tree(elsewhere) == before
    made(tmp_path / "plain", source)
    assert shard_bytes(out) == shard_bytes(tmp_path / "plain")


def test_an_output_directory_that_is_a_link_stays_one(tmp_path: Path, source: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk", target_is_directory=True)
    made(tmp_path / "out", source)
    assert (tmp_path / "out").is_symlink()
    assert "manifest.json" in tree(tmp_path / "disk")


@pytest.mark.parametrize("target", ["a file", "nothing"])
@pytest.mark.parametrize("name", ["out", "out/.staging"])
def test_a_link_that_is_no_folder_ends_the_run_with_one_sentence(
    tmp_path: Path, source: Path, name: str, target: str
) -> None:
    link = tmp_path / name
    link.parent.mkdir(exist_ok=True)
    if target == "a file":
        (tmp_path / "target").write_text("precious")
    link.symlink_to(tmp_path / "target")
    with pytest.raises(OutputError, match=f"^output_dir {tmp_path}/out: "):
        made(tmp_path / "out", source)
    assert link.is_symlink()
    assert (tmp_path / "target").exists() == (target == "a file")


def test_shards_are_copied_if_the_staging_folder_is_on_another_disk(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.replace

    def replace(self: Path, target: Path) -> Path:
        if self.parent.parent.name == ".staging" and target.parent.name == "out":
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(self), None, str(target))
        return rename(self, target)

    made(tmp_path / "plain", source, num_dataset_shards=2)
    monkeypatch.setattr(Path, "replace", replace)
    made(tmp_path / "out", source, num_dataset_shards=2)
    assert tree(tmp_path / "out").keys() == tree(tmp_path / "plain").keys()
    assert shard_bytes(tmp_path / "out") == shard_bytes(tmp_path / "plain")


def test_a_failing_run_replaces_its_own_quarantine_only(tmp_path: Path, source: Path) -> None:
    source.write_text("[1]\n" + source.read_text())
    for _ in range(2):
        with pytest.raises(DataError, match="1 row cannot be used"):
            made(tmp_path / "out", source)
    made(tmp_path / "out", source, max_bad_rows=1)
    (tmp_path / "out" / "quarantine.jsonl").write_text("my notes\n")
    with pytest.raises(OutputError, match=r"holds quarantine\.jsonl, which sftkit did not write"):
        made(tmp_path / "out", source, max_bad_rows=1, num_dataset_shards=2, overwrite=True)


PLACES = ("", ".staging", "elsewhere", f".staging/run-{RUN}", "sub")
NAMES = (
    *("lock", "publishing.json", "quarantine.jsonl", "dropped.jsonl", "README.md", "manifest.json"),
    "train-00000-of-00001.parquet",
    *(f"unit-{KEY}.arrow", f"unit-{KEY}.account.arrow", f".manifest.json.{RUN}.tmp", "sftkit_run", ".hidden", "a b"),
)
CONTENTS = (b"", b"precious", b"[]", b"{}", b"null", b'["../x"]', b"PAR1PAR1", b"ARROW1\0\0")


@pytest.mark.parametrize("seed", range(examples(60)))
def test_no_file_of_others_is_lost_whatever_is_in_the_directory(tmp_path: Path, source: Path, seed: int) -> None:
    """Either the run succeeds, or it ends with one sentence; every file and link that was there still is."""
    chance = random.Random(seed)
    out = tmp_path / "out"
    if chance.random() < 0.5:
        made(out, source)
    ours = set(tree(out))
    (out / "elsewhere").mkdir(parents=True, exist_ok=True)
    if chance.random() < 0.4:
        (out / ".staging").symlink_to(chance.choice([out / "elsewhere", tmp_path / "nowhere", source]))
    planted: dict[Path, bytes | str] = {}
    for _ in range(chance.randrange(1, 6)):
        path = out / chance.choice(PLACES) / chance.choice(NAMES)
        path = path.with_name(path.name) if chance.random() < 0.9 else path / "below"
        if path.relative_to(out).as_posix() in ours or not _can_hold(path.parent) or os.path.lexists(path):
            continue
        if chance.random() < 0.3:
            path.symlink_to(chance.choice([source, tmp_path / "nowhere", out / "elsewhere"]))
            planted[path] = str(path.readlink())
        else:
            path.write_bytes(chance.choice(CONTENTS))
            planted[path] = path.read_bytes()
    for options in ({}, {"num_dataset_shards": 2}, {"overwrite": True, "num_dataset_shards": 3}):
        with suppress(SftkitError):
            made(out, source, **options)
    allowed = {"lock": (b"",), "publishing.json": (b"[]", b'["../x"]')}  # equal to what a run leaves there
    for path, content in planted.items():
        found = str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.exists() else None
        assert found == content or content in allowed.get(path.name, ()), path
    assert source.read_text().count("\n") == len(ROWS)


def _can_hold(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return True
