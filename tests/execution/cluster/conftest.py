"""A Ray cluster of three nodes on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

STORE = 100 << 20  # bytes of the object store of a node


def add_node(nodes: Any) -> Any:
    return nodes.add_node(num_cpus=1, object_store_memory=STORE)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests that start the cluster as slow."""
    for item in items:
        if "nodes" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    """Three nodes with one core each; the first is the head."""
    from ray.cluster_utils import Cluster

    monkeypatch = pytest.MonkeyPatch()
    tests = str(Path(__file__).parents[2])  # nodes import the functions of the tests from here
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [tests, os.environ.get("PYTHONPATH")])))
    head = {"num_cpus": 1, "object_store_memory": STORE, "include_dashboard": False}
    try:
        cluster = Cluster(initialize_head=True, head_node_args=head)
    except Exception as error:  # no sockets, no shared memory: nothing of ours has run yet
        pytest.skip(f"Ray cannot start a node on this machine: {error}")
    try:
        for _ in range(2):
            add_node(cluster)
        yield cluster
    finally:
        cluster.shutdown()
        monkeypatch.undo()
