"""Getting worker processes ready while the run is still being planned. Light to import, for it comes first.

On Linux workers are forked from a server (Python's `forkserver`) that has imported and loaded what all of them need.
It takes about as long to do that as this process takes to plan, so it is told to begin at once.
"""

from __future__ import annotations

import base64
import gc
import glob
import multiprocessing
import os
import pickle
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from multiprocessing import forkserver
from pathlib import Path

from sftkit.config.schema import DataOptions
from sftkit.execution.processes import SMALL_SOURCE, START_METHOD, available_cores, deferred_interrupts
from sftkit.sample import sample_path

WARM_UP = "SFTKIT_WARM_UP"
"""Environment variable of the fork server: the size of the sources and the options of the run, pickled, base64."""


def warm_up_workers(config: DataOptions) -> None:
    """Let the fork server begin, where a run will have workers.

    Without this, or where it cannot be done, workers load what they need when they first need it.
    """
    listed = [path for dataset in config.datasets for path in dataset.data_paths]
    size = _local_size([*listed, *config.training_data_path, *config.validation_data_path])
    if START_METHOD != "forkserver" or size < SMALL_SOURCE or config.num_workers == 1 or available_cores() == 1:
        return
    told = replace(config, datasets=(), storage_options={})  # who says how rows become tokens; no passwords
    given = {
        WARM_UP: base64.b64encode(pickle.dumps((size, told))).decode(),
        "TOKENIZERS_PARALLELISM": "false",  # the workers are the parallelism
    }
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        multiprocessing.get_context(START_METHOD).set_forkserver_preload([__name__])
        with deferred_interrupts():
            forkserver.ensure_running()
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _local_size(paths: Sequence[str]) -> int:
    """Bytes that lie at local paths, at a glance: 0 for what is not there, not local, or cannot be looked at."""
    size = 0
    for path in paths:
        pattern = str(Path(sample_path(path)).expanduser())
        # Path.glob wants a root and a relative pattern; what the user wrote is neither
        for name in [] if "://" in path else glob.glob(pattern, recursive=True) or [pattern]:  # noqa: PTH207
            with suppress(OSError):
                place = Path(name)
                inside = place.rglob("*") if place.is_dir() else [place]
                size += sum(file.stat().st_size for file in inside if file.is_file())
    return size


def _load_what_workers_need() -> None:
    """Import and load, in the fork server, what every worker needs, so that it is done once."""
    import sftkit.preprocessing.build  # noqa: F401 - what the workers will run
    from sftkit.core.transformers_import import import_transformers_without_torch
    from sftkit.preprocessing.planning import chat_tokenizer_spec
    from sftkit.preprocessing.recipe_bundle import cached_chat_tokenizer

    with suppress(Exception):  # what fails here fails again, and is reported, in the worker that needs it
        import_transformers_without_torch()
        size, config = pickle.loads(base64.b64decode(os.environ.pop(WARM_UP)))
        cached_chat_tokenizer(chat_tokenizer_spec(config, size)).load()
        gc.freeze()  # garbage collection in a worker would copy the memory that it shares


if WARM_UP in os.environ:
    _load_what_workers_need()
