"""Imported by the fork server before it forks any worker, so that what all of them need is imported and loaded once."""

from __future__ import annotations

import base64
import gc
import os
import pickle
from contextlib import suppress

import sftkit.build  # noqa: F401 - what the workers will run
from sftkit.early import WARM_UP
from sftkit.planning import tool_spec
from sftkit.shared_tools import tools_of
from sftkit.torchless import import_transformers_without_torch

if WARM_UP in os.environ:
    with suppress(Exception):  # what fails here fails again, and is told, in the worker that needs it
        import_transformers_without_torch()
        size, config = pickle.loads(base64.b64decode(os.environ.pop(WARM_UP)))
        tools_of(tool_spec(config, size)).load()
        gc.freeze()  # the workers' collectors leave alone what they share, and so leave it shared
