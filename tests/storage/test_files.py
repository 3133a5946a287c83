"""Local and remote files: atomic writes, retries and broken connections."""

from __future__ import annotations

import errno
import io
import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from sftkit.storage import retry, streams
from sftkit.storage.files import (
    atomic_replace,
    create_exclusively,
    file_size,
    file_sizes,
    file_sizes_recursive,
    file_version,
    read_bytes,
    read_ranges,
    remove,
    write_text,
)
from sftkit.storage.paths import RemotePath, filesystem_options, parse_path, relative_name
from sftkit.storage.streams import open_binary


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry.time, "sleep", lambda _: None)


@pytest.fixture
def folder() -> Iterator[RemotePath]:
    yield RemotePath("memory://folder")
    fsspec.filesystem("memory").rm("/", recursive=True)


def test_a_url_has_the_names_of_a_path() -> None:
    url = RemotePath("s3://bucket/some/data.tar.gz", {"key": "secret"})
    assert (url.name, url.stem, str(url.parent)) == ("data.tar.gz", "data.tar", "s3://bucket/some")
    assert str(url.with_name("other")) == "s3://bucket/some/other"
    assert (url.parent / "a" / "b").options == {"key": "secret"}
    assert relative_name(url, RemotePath("s3://bucket/")) == "some/data.tar.gz"
    assert relative_name(url, url) == "data.tar.gz"
    assert relative_name(Path("/a/b/c"), Path("/a")) == "b/c"


def test_a_url_keeps_its_options_but_does_not_show_them() -> None:
    url = RemotePath("s3://bucket/file", {"secret": "hush"})
    assert "hush" not in f"{url} {url!r}"
    assert pickle.loads(pickle.dumps(url)).options == {"secret": "hush"}
    assert url == RemotePath("s3://bucket/file")


def test_options_under_the_name_of_a_protocol_apply_to_it() -> None:
    given = {"anon": True, "s3": {"endpoint_url": "here"}, "gs": {"token": "t"}, "client_kwargs": {"a": 1}}
    assert filesystem_options("s3://x", given) == {"anon": True, "client_kwargs": {"a": 1}, "endpoint_url": "here"}
    assert filesystem_options("gs://x", given) == {"anon": True, "client_kwargs": {"a": 1}, "token": "t"}
    assert parse_path("~/x", given) == Path("~/x").expanduser()


@pytest.mark.parametrize("remote", [False, True])
def test_a_file_is_written_completely_or_not_at_all(remote: bool, tmp_path: Path, folder: RemotePath) -> None:
    root = folder if remote else tmp_path
    target = root / "file"
    with pytest.raises(ZeroDivisionError), atomic_replace(target) as temporary:
        temporary.write_text(f"{1 // 0}")
    assert file_size(target) == -1
    with atomic_replace(target) as temporary:
        temporary.write_bytes(b"whole")
        assert file_size(target) == -1
    before = file_version(target)
    assert (file_size(target), read_bytes(target), file_sizes(root)) == (5, b"whole", {"file": 5})
    write_text(target, "other \udcff")
    assert read_bytes(target) == b"other \\udcff"
    assert file_version(target) != before
    remove(target, root / "none")
    assert file_sizes(root) == {}
    with pytest.raises(FileNotFoundError):
        read_bytes(target)


def test_files_in_a_folder_are_listed_by_name(folder: RemotePath) -> None:
    for name in ("b/two", "a", "b/one"):
        write_text(folder / name, name)
    assert file_sizes_recursive(folder) == {"a": 1, "b/one": 5, "b/two": 5}
    assert file_sizes(folder) == {"a": 1}
    assert file_sizes_recursive(folder / "none") == {}


def test_a_file_is_created_only_once(folder: RemotePath) -> None:
    assert create_exclusively(folder / "lock", b"mine")
    assert not create_exclusively(folder / "lock", b"yours")
    assert read_bytes(folder / "lock") == b"mine"


def test_ranges_are_read_in_order(folder: RemotePath) -> None:
    write_text(folder / "file", "0123456789")
    assert read_ranges(folder / "file", [(8, 10), (0, 3)]) == [b"89", b"012"]
    with pytest.raises(OSError, match="it ends too early"):
        read_ranges(folder / "file", [(8, 12)])


def failing(times: int, error: Exception) -> Callable[[], str]:
    left = [error] * times

    def call() -> str:
        if left:
            raise left.pop()
        return "done"

    return call


def test_temporary_failures_are_retried() -> None:
    place = RemotePath("s3://bucket/file")
    assert retry.with_retries(place, failing(retry.MAX_ATTEMPTS - 1, TimeoutError("slow"))) == "done"
    with pytest.raises(OSError, match="slow") as failure:
        retry.with_retries(place, failing(retry.MAX_ATTEMPTS, RuntimeError("slow")))
    assert (failure.value.filename, failure.value.errno) == ("s3://bucket/file", errno.EIO)


@pytest.mark.parametrize("error", [FileNotFoundError(2, "gone"), PermissionError("no"), ImportError("Install s3fs")])
def test_permanent_failures_are_not_retried(error: Exception) -> None:
    with pytest.raises(OSError, match=r"gone|no|s3fs") as failure:
        retry.with_retries(RemotePath("s3://bucket/file"), failing(1, error))
    assert isinstance(failure.value, type(error)) or isinstance(error, ImportError)


def test_the_error_about_a_missing_package_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    place = RemotePath("gs://bucket/file")
    assert file_size(place) == -1
    for reach in (read_bytes, file_sizes, open_binary, file_version):
        with pytest.raises(OSError, match=r"pip install 'sftkit\[gcs\]'"):
            reach(place)


class UnreliableConnection(io.BytesIO):
    """A connection that breaks at every third read and returns a few bytes at the others."""

    reads = 0
    size = 1000

    def read(self, size: int | None = -1) -> bytes:
        UnreliableConnection.reads += 1
        if UnreliableConnection.reads % 3 == 0:
            raise ConnectionResetError("reset by peer")
        return super().read(min(size or 7, 7))


def test_reading_continues_after_a_broken_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytes(number % 251 for number in range(1000))
    opened: list[Any] = []
    monkeypatch.setattr(streams, "_opened", lambda _: opened.append(1) or UnreliableConnection(content))
    with open_binary(RemotePath("s3://bucket/file")) as stream:
        assert stream.read() == content
        stream.seek(-10, 2)
        assert (stream.read(4), stream.tell()) == (content[-10:-6], 994)
        assert stream.seek(990) == 990
        assert stream.read(100) == content[990:]
    assert len(opened) > 20


def test_a_file_that_ends_too_early_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Short(io.BytesIO):
        size = 1000

    monkeypatch.setattr(streams, "_opened", lambda _: Short(b"short"))
    with open_binary(RemotePath("s3://bucket/file")) as stream, pytest.raises(OSError, match="it ends too early"):
        stream.read()
