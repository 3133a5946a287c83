"""Runs tasks on a Ray cluster, which repeats them elsewhere when a node is lost.

What all tasks of a run need (the function, with the recipe and the tokenizer's files) is put into Ray's object store
once, and fetched once by each node. A task and its result are small: the data is in files that all nodes can access.
"""

from __future__ import annotations

import logging
import os
import pickle
import platform
import signal
import socket
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from sftkit import __version__
from sftkit.core.error_text import single_line
from sftkit.core.plugins import plugin_packages
from sftkit.core.progress import Done, Report, no_report
from sftkit.errors import ConfigError, SftkitError, SourceError
from sftkit.execution.runner import WorkerError

T = TypeVar("T")
R = TypeVar("R")

RETRIES = 5
"""How often a task is repeated whose node was lost or whose process died."""

_TASKS_PER_CORE = 2  # one that runs and one that waits, from which an autoscaler sees that there is work
_CONNECT_TIMEOUT = 15.0  # seconds
_LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
_SIZE_LIFETIME = 5.0  # seconds after which the size of the cluster is queried again
_PACKAGES = ("numpy", "pyarrow", "transformers", "tokenizers", "jinja2", "gigatoken")


class VersionMismatchError(ConfigError):
    """A node has other versions of packages than this machine."""


@dataclass(frozen=True)
class _Sent:
    """What is sent once for many tasks; compared by name, because it may be large."""

    name: str
    content: bytes = field(compare=False, repr=False)


class RayCluster:
    """A connection to a Ray cluster; use it in a `with` block."""

    runs_in_process = False
    shares_local_files = False

    def __init__(self, address: str | None, at_once: int | None) -> None:
        """Describe the connection.

        Args:
            address: `auto`, HOST:PORT, or None for a cluster of this machine alone that ends with the block.
            at_once: how many tasks may run at the same time; None for as many as the cluster has cores.
        """
        self._address = address
        self._at_once = at_once
        self._looked = 0.0
        self._cores = 1

    def __enter__(self) -> RayCluster:
        """Connect.

        Raises:
            ConfigError: Ray is not installed, or there is no cluster at the address.
        """
        ray = _ray()
        _check_address(ray, self._address)
        handlers = _signal_handlers()
        own: dict[str, Any] = {"include_dashboard": False, "num_cpus": self._at_once} if self._address is None else {}
        try:
            ray.init(
                address=self._address or "local",
                log_to_driver=False,
                logging_level=logging.ERROR,
                ignore_reinit_error=False,
                **own,
            )
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            reason = single_line(error)
            if self._address is None:
                raise ConfigError(f"executor: Ray cannot start on this machine: {reason}") from None
            raise ConfigError(
                f"ray_address {self._address}: no Ray cluster can be reached there ({reason}); start one (ray start "
                "--head), or set it to null for one of this machine alone"
            ) from None
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)  # Ray replaces them
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _ray().shutdown()

    def run(self, function: Callable[[T], R], tasks: Sequence[T]) -> Iterator[tuple[T, R]]:
        """As `Runner.run`; a few more tasks are submitted than the cluster has cores.

        Raises:
            VersionMismatchError: a node has other versions of packages that decide the bytes of shards.
            WorkerError: a task was lost repeatedly.
        """
        ray = _ray()
        work = ray.remote(_work).options(num_cpus=1, max_retries=RETRIES)
        sent = ray.put(_Sent(uuid.uuid4().hex, pickle.dumps(function)))
        versions, folder = _versions(), str(Path.cwd())
        waiting = list(reversed(tasks))
        running: dict[Any, T] = {}
        try:
            while waiting or running:
                while waiting and len(running) < self._most_at_once():
                    task = waiting.pop()
                    running[work.remote(sent, pickle.dumps(task), versions, folder)] = task
                done, _ = ray.wait(list(running), num_returns=1)
                done, _ = ray.wait(list(running), num_returns=len(running), timeout=0)
                for reference in done:
                    task = running.pop(reference)
                    yield task, self._result(reference, task)
        except KeyboardInterrupt:
            running.clear()  # disconnecting ends them; Ray may abort if one ends while it is cancelled
            raise
        finally:
            for reference in running:
                ray.cancel(reference)

    def run_reporting(
        self, function: Callable[[T, Report], R], tasks: Sequence[T], on_report: Callable[[T, Done], None]
    ) -> Iterator[tuple[T, R]]:
        """As `Runner.run_reporting`, without any reports: a cluster has so many tasks that whole ones show enough."""
        return self.run(partial(_unreported, function), tasks)

    def _most_at_once(self) -> int:
        now = time.monotonic()
        if now - self._looked > _SIZE_LIFETIME:
            self._cores, self._looked = int(_ray().cluster_resources().get("CPU", 1)), now
        return self._at_once or max(1, self._cores) * _TASKS_PER_CORE

    def _result(self, reference: Any, task: T) -> Any:
        ray = _ray()
        try:
            is_done, content = pickle.loads(ray.get(reference))
        except ray.exceptions.RayError as error:
            reason = single_line(error)[:300]
            raise WorkerError(
                f"Ray gave up on {task}, after {RETRIES + 1} tries: {reason}; run the command again, with fewer "
                "tasks at a time (num_workers) if memory is short"
            ) from None
        if not is_done:
            raise content
        return content


def _unreported(function: Callable[[T, Report], R], task: T) -> R:
    return function(task, no_report)


def _check_address(ray: Any, address: str | None) -> None:
    """Raise `ConfigError` if nothing answers at HOST:PORT; Ray itself would try for many minutes."""
    host, colon, port = (address or "").rpartition(":")
    if not colon or "://" in host or not port.isdecimal():
        return
    if host in _LOCAL_HOSTS:
        host = ray.util.get_node_ip_address()  # as Ray does
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_TIMEOUT).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"ray_address {address}: nothing answers at {host}:{port} ({reason}); give the address of a cluster that "
            "runs, or set it to null for one of this machine alone"
        ) from None


def _signal_handlers() -> dict[signal.Signals, Any]:
    """Return the handlers that Ray would replace: those set in Python, in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    return {number: handler for number, handler in handlers.items() if handler is not None}


def _ray() -> Any:
    try:
        import ray
    except ImportError:
        raise ConfigError("executor: ray needs Ray, which is not installed; pip install 'sftkit[ray]'") from None
    return ray


def _versions() -> dict[str, str]:
    """The versions of everything that decides the bytes of shards, plugins included."""
    own = {"sftkit": __version__, "python": ".".join(platform.python_version_tuple()[:2])}
    return own | {name: version(name) for name in _PACKAGES} | plugin_packages()


def _work(sent: _Sent, task: bytes, versions: dict[str, str], folder: str) -> bytes:
    """Run a task in a process of the cluster.

    Args:
        sent: the pickled function.
        task: the pickled task.
        versions: of the packages on the machine that sends the task.
        folder: the directory that relative paths refer to.

    Returns:
        (True, result) or (False, exception), pickled.
    """
    try:
        _prepare(tuple(versions.items()), folder)
        outcome: tuple[bool, Any] = (True, _unpacked(sent)(pickle.loads(task)))
    except SourceError as error:
        outcome = (False, SourceError(f"{error} (on node {platform.node()})"))
    except SftkitError as error:
        outcome = (False, error)
    except OSError as error:
        where = f"{error.strerror or error} (on node {platform.node()})"
        outcome = (False, OSError(error.errno, where, error.filename))
    except Exception as error:
        error.add_note(f"in a process of the cluster:\n{traceback.format_exc()}")
        outcome = (False, error)
    try:
        pickled = pickle.dumps(outcome)
        pickle.loads(pickled)
    except Exception as error:
        pickled = pickle.dumps((False, RuntimeError(f"{outcome[1]!r} cannot be sent: {error!r}")))
    return pickled


@lru_cache(maxsize=1)
def _unpacked(sent: _Sent) -> Callable[[Any], Any]:
    function: Callable[[Any], Any] = pickle.loads(sent.content)
    return function


@lru_cache(maxsize=1)
def _prepare(versions: tuple[tuple[str, str], ...], folder: str) -> None:
    """Prepare a process of the cluster.

    Raises:
        VersionMismatchError: its packages differ from those of the machine that sends the tasks.
    """
    here = _versions()
    others = [
        f"{name} {here.get(name, '(missing)')} (here: {expected})"
        for name, expected in versions
        if here.get(name) != expected
    ]
    if others:
        raise VersionMismatchError(
            f"the node {platform.node()} has {', '.join(others)}: the shards would have other bytes; install the same "
            "versions on all nodes"
        )
    try:
        os.chdir(folder)
    except OSError:
        os.chdir("/")  # so that no relative path finds another file by chance
    from sftkit.core.startup.transformers_import import import_transformers_without_torch
    from sftkit.execution.worker_pool import collect_garbage_rarely

    import_transformers_without_torch()
    collect_garbage_rarely()
