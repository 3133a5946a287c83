"""Panics of tokenizers are one error, not a traceback."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import NormalizedString, Regex

from reliability.material import copy_tokenizer, sftkit
from sftkit.core.panics import panics_as_errors
from sftkit.errors import TokenizerError
from support import write_jsonl

PATTERN = "(a+)+$"  # takes 2 ** n steps


def test_a_panic_is_an_error_and_other_exceptions_stay() -> None:
    with (
        pytest.raises(TokenizerError, match=r"^the tokenizer cannot be used: .+; choose another one$"),
        panics_as_errors(),
    ):
        NormalizedString("a" * 40 + "!").split(Regex(PATTERN), "isolated")
    with pytest.raises(KeyboardInterrupt), panics_as_errors():
        raise KeyboardInterrupt


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_pattern_that_takes_too_many_steps_ends_the_run_with_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.chdir(tmp_path)
    copy_tokenizer(tmp_path / "tokenizer")
    path = tmp_path / "tokenizer" / "tokenizer.json"
    split = {"type": "Split", "pattern": {"Regex": PATTERN}, "behavior": "Isolated", "invert": False}
    path.write_text(json.dumps({**json.loads(path.read_text()), "pre_tokenizer": split}))
    write_jsonl(tmp_path / "rows.jsonl", [{"input": "q", "output": "a" * 40 + "!"}] * 4)
    outcome = sftkit(
        *("preprocess", "--training_data_path", "rows.jsonl", "--tokenizer_name_or_path", "tokenizer"),
        *("--input_field_name", "input", "--output_field_name", "output", "--output_dir", "out"),
        *("--num_workers", str(workers), "--unit_size", "60"),
    )
    assert outcome.clear
    assert "error: the tokenizer cannot be used: " in outcome.err
