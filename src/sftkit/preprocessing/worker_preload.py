"""Imported by the fork server before it forks any worker, so that what all of them need is imported and loaded once."""

from __future__ import annotations

import base64
import gc
import os
import pickle
from contextlib import suppress

import sftkit.preprocessing.build  # noqa: F401 - what the workers will run
from sftkit.core.transformers_import import import_transformers_without_torch
from sftkit.preprocessing.planning import tool_spec
from sftkit.preprocessing.tokenizer_cache import tools_of
from sftkit.preprocessing.worker_warmup import WARM_UP

if WARM_UP in os.environ:
    with suppress(Exception):  # what fails here fails again, and is told, in the worker that needs it
        import_transformers_without_torch()
        size, config = pickle.loads(base64.b64decode(os.environ.pop(WARM_UP)))
        tools_of(tool_spec(config, size)).load()
        gc.freeze()  # the workers' collectors leave alone what they share, and so leave it shared
