"""Fixtures of S3-compatible servers and buckets."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from buckets import Bucket, new_bucket, server


@pytest.fixture(scope="session")
def endpoint() -> Iterator[str]:
    with server() as endpoint:
        yield endpoint


@pytest.fixture
def bucket(endpoint: str) -> Bucket:
    return new_bucket(endpoint)


@pytest.fixture(scope="session")
def failing_endpoint() -> Iterator[str]:
    """The endpoint of a server that answers one request in twenty with an error."""
    with server(failing=0.05) as endpoint:
        yield endpoint


@pytest.fixture
def failing_bucket(failing_endpoint: str) -> Bucket:
    return new_bucket(failing_endpoint)
