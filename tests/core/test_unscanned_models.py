"""Importing transformers without scanning its models: faster, and with the same names."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from sftkit.core.startup.unscanned_models import put_off_scan

PLAIN = "import os, sys; sys.modules['torch'] = None; os.environ['TRANSFORMERS_NO_ADVISORY_WARNINGS'] = '1'"
UNSCANNED = "from sftkit.core.startup.transformers_import import import_transformers_without_torch as load; load()"
KNOWN = """
import json, sys, transformers, transformers.models
packages = (transformers, transformers.models)
def known():
    return [
        [each._class_to_module, {name: sorted(of) for name, of in each._object_missing_backend.items()}]
        for each in packages
    ]
"""
ALL = "print(json.dumps([known(), *[sorted(each.__all__) for each in packages], known()]))"
TOKENIZERS = """
for each, names in zip(packages, json.loads(sys.argv[1])):
    for name in names:
        hasattr(each, name)
print(json.dumps([known(), ["_unscanned" in vars(each) for each in packages]]))
"""


def result_of(code: str, *arguments: str) -> Any:
    """What a fresh process prints last, as JSON data."""
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_loading_a_tokenizer_scans_no_models() -> None:
    load = "from sftkit.tokenization.loading.tokenizer_loading import TokenizerSpec, load_tokenizer as load"
    code = f"{UNSCANNED}\n{KNOWN}\n{load}\nload(TokenizerSpec('sample:model')); transformers.Qwen2Tokenizer"
    assert result_of(f"{code}\nprint(json.dumps(['_unscanned' in vars(each) for each in packages]))") == [True, True]


@pytest.mark.slow  # three processes import transformers
def test_all_names_are_where_they_are_otherwise() -> None:
    expected = result_of(f"{PLAIN}\n{KNOWN}\n{ALL}")
    early, *found = result_of(f"{UNSCANNED}\n{KNOWN}\n{ALL}")
    assert found == expected[1:]
    modules, lacking = expected[0][0]
    assert early[0][0].items() <= modules.items()
    assert early[0][1].items() <= lacking.items()
    tokenizers = [[name for name in modules if name.endswith("Tokenizer")] for modules, _ in expected[0]]
    assert min(map(len, tokenizers)) > 50
    found, unscanned = result_of(f"{UNSCANNED}\n{KNOWN}\n{TOKENIZERS}", json.dumps(tokenizers))
    assert unscanned == [True, True]
    for names, (known, _), (every, _) in zip(tokenizers, found, expected[0], strict=True):
        assert {name: known.get(name) for name in names} == {name: every[name] for name in names}


def test_nothing_changes_in_a_version_without_the_functions() -> None:
    module = SimpleNamespace(__file__="import_utils.py", define_import_structure=len)
    put_off_scan(module)
    assert module.define_import_structure is len
