"""Prepares worker processes while the run is still being planned.

On Linux, workers are forked from a server (Python's `forkserver`) that has imported and loaded everything they need.
That takes about as long as planning, so the server is started first; this module must therefore be quick to import.
The server imports this module too, and then loads what the workers need.
"""

from __future__ import annotations

import base64
import gc
import glob
import logging
import multiprocessing
import os
import pickle
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from multiprocessing import forkserver
from pathlib import Path

from sftkit.config.schema.shared_options import DataOptions
from sftkit.execution.processes import SMALL_SOURCE, START_METHOD, available_cores, deferred_interrupts
from sftkit.sample import sample_path

WARM_UP = "SFTKIT_WARM_UP"
"""Environment variable of the fork server: size of the sources and options of the run, pickled, in base64."""


def warm_up_workers(config: DataOptions) -> None:
    """Start the fork server if the run will use worker processes.

    Without it, each worker loads what it needs when it first needs it.
    """
    listed = [path for dataset in config.datasets for path in dataset.data_paths]
    size = _local_size([*listed, *config.training_data_path, *config.validation_data_path])
    if START_METHOD != "forkserver" or size < SMALL_SOURCE or config.num_workers == 1 or available_cores() == 1:
        return
    options = replace(config, datasets=(), storage_options={})  # only what the tokenizer depends on; no passwords
    environment = {
        WARM_UP: base64.b64encode(pickle.dumps((size, options))).decode(),
        "TOKENIZERS_PARALLELISM": "false",  # the workers are the parallelism
    }
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
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
    """Bytes of the files at local paths; anything missing, remote or unreadable counts as 0."""
    size = 0
    for given in paths:
        pattern = str(Path(sample_path(given)).expanduser())
        # Path.glob needs a root and a relative pattern, and the user gives neither.
        for name in [] if "://" in given else glob.glob(pattern, recursive=True) or [pattern]:  # noqa: PTH207
            with suppress(OSError):
                path = Path(name)
                files = path.rglob("*") if path.is_dir() else [path]
                size += sum(file.stat().st_size for file in files if file.is_file())
    return size


def _load_what_workers_need() -> None:
    """Import and load, in the fork server, what every worker needs, so that it is done once."""
    import sftkit.preprocessing.build  # noqa: F401 - what the workers will run
    from sftkit.core.startup.transformers_import import import_transformers_without_torch
    from sftkit.preprocessing.recipe_bundle import cached_chat_tokenizer
    from sftkit.tokenization.chat_tokenizer_spec import chat_tokenizer_spec

    logging.getLogger("sftkit").setLevel(logging.ERROR)  # the run itself loads the tokenizer too, and warns
    with suppress(Exception):  # what fails here fails again, and is reported, in the worker that needs it
        import_transformers_without_torch()
        size, config = pickle.loads(base64.b64decode(os.environ.pop(WARM_UP)))
        cached_chat_tokenizer(chat_tokenizer_spec(config, size)).load()
        gc.freeze()  # garbage collection in a worker would copy the memory that it shares


if WARM_UP in os.environ:
    _load_what_workers_need()
