"""The examples in docstrings are true. Those of the public API, which need shards, are run by tests/api."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import sftkit

PACKAGE = Path(sftkit.__file__).parent
MODULES = [
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted(PACKAGE.rglob("*.py"))
    if ">>>" in path.read_text(encoding="utf-8") and path.parent.name != "api"
]


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_of_a_module_are_true(module: str) -> None:
    shown: list[str] = []
    for example in doctest.DocTestFinder().find(importlib.import_module(module), module):
        doctest.DocTestRunner().run(example, out=shown.append)
    assert shown == []
