"""Importing transformers: faster, and with the same names."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sftkit.core.transformers_import import from_last_all

PLAIN = "import os, sys; sys.modules['torch'] = None; os.environ['TRANSFORMERS_NO_ADVISORY_WARNINGS'] = '1'"
FASTER = "from sftkit.core.transformers_import import import_transformers_without_torch as load; load()"
NAMES = """
import json, transformers, transformers.models
packages = (transformers, transformers.models)
for each in packages:
    missing = {name: sorted(backends) for name, backends in each._object_missing_backend.items()}
    print(json.dumps([each._class_to_module, missing, sorted(each.__all__)], sort_keys=True))
"""


def names_after(code: str) -> list[str]:
    """The names of transformers, their modules and what they lack, in a fresh process."""
    done = subprocess.run([sys.executable, "-c", code + NAMES], capture_output=True, text=True, check=True)
    assert len(done.stdout) > 100_000
    return done.stdout.splitlines()[-2:]


@pytest.mark.slow  # two processes import transformers
def test_all_names_of_transformers_are_there() -> None:
    assert names_after(FASTER) == names_after(PLAIN)


@pytest.mark.parametrize(
    "source", ["", "x = 1\n", '__all__ = ["A"]\n', '"""__all__"""\n__all__ = [\n    "A",\n]\n', "\n__all__ = ['B']"]
)
def test_the_scan_begins_with_the_last_line_of_all(source: str) -> None:
    from transformers.utils.import_utils import fetch__all__

    for before in ("", "import os\n", '__all__ = ["Z"]\n', "\x0c__all__ = ['Y']\n", "a\u2028__all__ = []\n"):
        assert fetch__all__(from_last_all(before + source)) == fetch__all__(before + source)
