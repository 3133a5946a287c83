"""Pausing garbage collection."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from sftkit.core.startup.garbage_collection import paused_garbage_collection


@pytest.fixture(autouse=True)
def enabled() -> Iterator[None]:
    yield
    gc.unfreeze()
    gc.enable()


def test_nothing_is_collected_in_the_block_and_collecting_begins_again_after_it() -> None:
    with paused_garbage_collection():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_an_error_ends_the_pause() -> None:
    with pytest.raises(KeyError), paused_garbage_collection():
        raise KeyError
    assert gc.isenabled()


def test_what_the_caller_has_disabled_stays_disabled() -> None:
    gc.disable()
    with paused_garbage_collection():
        pass
    assert not gc.isenabled()


def test_what_was_loaded_is_old_and_what_was_frozen_stays_frozen() -> None:
    with paused_garbage_collection():
        kept: list[list[int]] = [[] for _ in range(10_000)]
    assert gc.get_count()[0] < len(kept)
    gc.freeze()
    frozen = gc.get_freeze_count()
    with paused_garbage_collection():
        pass
    assert gc.get_freeze_count() == frozen
