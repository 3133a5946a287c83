"""Buckets of an S3-compatible server on this machine, for tests."""

from __future__ import annotations

import ast
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec


@dataclass(frozen=True)
class Bucket:
    """A bucket on a server."""

    endpoint: str
    name: str

    @property
    def options(self) -> dict[str, Any]:
        return {"endpoint_url": self.endpoint, "key": "test", "secret": "test"}

    @property
    def system(self) -> Any:
        return fsspec.filesystem("s3", **self.options)

    def url(self, name: str) -> str:
        return f"s3://{self.name}/{name}"

    def put(self, path: Path, name: str) -> str:
        self.system.put_file(str(path), f"{self.name}/{name}")
        return self.url(name)

    def names(self, folder: str) -> list[str]:
        """Return the names of all files below a folder."""
        system, root = self.system, f"{self.name}/{folder}/"
        system.invalidate_cache()
        return [name.removeprefix(root) for name in system.find(root)]

    def files(self, folder: str) -> dict[str, bytes]:
        """Return the contents of all files below a folder by name."""
        return {name: self.system.cat_file(f"{self.name}/{folder}/{name}") for name in self.names(folder)}

    def failures(self) -> tuple[int, int]:
        """Return the number of requests that the server received and the number of those that it failed."""
        requests, failures = ast.literal_eval(self._ask("failures"))
        return requests, failures

    @contextmanager
    def holding(self, part: str, after: int = 0) -> Iterator[Callable[[], bool]]:
        """Make the server block writes of names that contain `part` after the first `after` of them.

        Blocked writes fail when the block ends. Yields a function that returns whether a write is blocked.
        """
        self._ask(f"hold?{after}&{part}")
        try:
            yield lambda: self._ask("held") != "0"
        finally:
            self._ask("release")

    def _ask(self, what: str) -> str:
        with urllib.request.urlopen(f"{self.endpoint}/{what}") as answer:
            said: str = answer.read().decode()
        return said


@contextmanager
def server(failing: float = 0.0) -> Iterator[str]:
    """Start a server in another process that fails a fraction of its requests; yields its endpoint."""
    script = Path(__file__).with_name("s3_server.py")
    process = subprocess.Popen(
        [sys.executable, str(script), str(failing)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.wait()


def new_bucket(endpoint: str) -> Bucket:
    bucket = Bucket(endpoint, f"bucket-{uuid.uuid4().hex[:8]}")
    bucket.system.mkdir(bucket.name)
    return bucket
