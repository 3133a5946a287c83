"""A handler of another installed package, from the command line to the shards."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from plugins_support import install_plugin, run_sftkit
from sftkit.tokenization.loading.tokenizer_loading import TokenizerSpec, load_tokenizer
from support import write_jsonl, written

SHOUT = """
from dataclasses import dataclass

from sftkit.config.fields import option
from sftkit.handlers.base import Handler, row_step, text_in


@dataclass(frozen=True, kw_only=True)
class Shout(Handler):
    column: str = option(help="Column whose text is changed.")
    mark: str = option("!", help="What is appended.")

    def reads(self):
        return (self.column,)

    def produces(self):
        return None

    def bind(self, tokenizer):
        return row_step(lambda row: {**row, self.column: text_in(row, self.column).upper() + self.mark})
"""
REGISTERED = {"sftkit.handlers": {"shout": "Shout"}}


@pytest.fixture
def data_config(tmp_path: Path) -> Path:
    """A data config whose rows go through the plugin before they are tokenized."""
    source = write_jsonl(tmp_path / "in.jsonl", [{"input": f"word {n}", "output": f"answer {n}"} for n in range(400)])
    pair = {"input_field_name": "input", "output_field_name": "output"}
    handlers = [
        {"name": "shout", "arguments": {"fn_kwargs": {"column": "output", "mark": "?"}}},
        {"name": "tokenize_and_apply_input_masking", "arguments": {"fn_kwargs": pair}},
    ]
    config = {"datasets": [{"name": "data", "data_paths": [str(source)], "data_handlers": handlers}]}
    path = tmp_path / "data.json"
    path.write_text(json.dumps(config))
    return path


def preprocess(site: Path, data_config: Path, output: Path) -> dict[str, Any]:
    done = run_sftkit(
        *(site, "preprocess", "--data_config_path", data_config, "--model_name_or_path", "sample:model"),
        *("--output_dir", output, "--num_workers", 2, "--unit_size", 4096, "--staging_dir", output.parent / "staged"),
    )
    assert done.returncode == 0, done.stderr
    manifest: dict[str, Any] = json.loads((output / "manifest.json").read_text())
    return manifest


@pytest.mark.slow
def test_workers_run_the_handler_of_a_plugin_and_its_changes_invalidate_staged_units(
    tmp_path: Path, data_config: Path
) -> None:
    site = install_plugin(tmp_path / "site", SHOUT, REGISTERED)
    first = preprocess(site, data_config, tmp_path / "first")
    tokenizer = load_tokenizer(TokenizerSpec("sample:model", None))
    texts = [tokenizer.decode(row["input_ids"]) for row in written(tmp_path / "first")]
    assert texts[:2] == ["word 0 ANSWER 0?<|im_end|>", "word 1 ANSWER 1?<|im_end|>"]
    assert (len(texts), first["rows_written"], first["audit"]["findings"]) == (400, 400, [])
    staged = set((tmp_path / "staged").rglob("unit-*"))
    assert len(staged) > 2
    preprocess(site, data_config, tmp_path / "second")
    assert set((tmp_path / "staged").rglob("unit-*")) == staged
    (site / "toys.py").write_text(SHOUT.replace(".upper()", ".title()"))
    preprocess(site, data_config, tmp_path / "third")
    assert len(set((tmp_path / "staged").rglob("unit-*"))) == 2 * len(staged)
    assert "Answer 0?" in tokenizer.decode(written(tmp_path / "third")[0]["input_ids"])


@pytest.mark.parametrize(
    ("source", "registered", "message"),
    [
        (SHOUT, {"tokenize": "Shout"}, "registers 'tokenize' as sftkit.handlers, which is the name of a built-in"),
        (
            SHOUT,
            {"whisper": "Shout"},
            "unknown handler 'shout'; known handlers: .*tokenize_segments, whi",
        ),
        (
            "class Shout: pass",
            {"shout": "Shout"},
            "'shout' of the package toys must be a subclass of sftkit.handlers.b",
        ),
        (
            SHOUT.replace("def produces", "def x"),
            {"shout": "Shout"},
            "'shout' of the package toys must define produces",
        ),
        (
            "import no_such_module",
            {"shout": "Shout"},
            "cannot be loaded from toys:Shout: No module named 'no_such_modul",
        ),
    ],
    ids=["name of a built-in", "unknown", "not a handler", "abstract", "broken"],
)
def test_a_plugin_that_cannot_be_used_is_a_config_error(
    tmp_path: Path,
    data_config: Path,
    forked_sftkit: Callable[..., tuple[int, str]],
    source: str,
    registered: dict[str, str],
    message: str,
) -> None:
    site = install_plugin(tmp_path / "site", source, {"sftkit.handlers": registered})
    arguments = ("--data_config_path", data_config, "--output_dir", tmp_path / "out")
    code, errors = forked_sftkit(site, "preprocess", *arguments)
    assert code == 2
    assert re.search(message, " ".join(errors.split())), errors
