"""What worker processes share. The fork server imports this before it forks any of them, so that what all of them need
is imported and loaded once.
"""

from __future__ import annotations

import base64
import os
import pickle
from contextlib import suppress
from functools import lru_cache

from sftkit.errors import TokenizerError
from sftkit.execution import WARM_UP
from sftkit.tokenization.toolbox import Toolbox, ToolSpec
from sftkit.torchless import import_transformers_without_torch


def tools_like(spec: ToolSpec, identity: tuple[str, str | None] | None) -> Toolbox:
    """This process's toolbox of a spec, with the tokenizer that the process which planned the run has (`identity`).

    Raises:
        TokenizerError: the tokenizer's files were changed since.
    """
    if identity is not None and _tools(spec).identity != identity:
        _tools.cache_clear()  # this process, or the one it was forked from, is older than the plan
        if _tools(spec).identity != identity:
            raise TokenizerError("the tokenizer's files were changed while the run was going on; run it again")
    return _tools(spec)


@lru_cache(maxsize=1)
def _tools(spec: ToolSpec) -> Toolbox:
    return Toolbox(spec)


if WARM_UP in os.environ:
    with suppress(Exception):  # what fails here fails again, and is told, in the worker that needs it
        import_transformers_without_torch()
        _tools(pickle.loads(base64.b64decode(os.environ.pop(WARM_UP)))).load()
