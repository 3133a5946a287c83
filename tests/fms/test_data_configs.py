"""The predefined data configs of fms-hf-tuning make the rows that it makes, or are refused with a reason."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import sftkit
from fms.data_configs import CONFIGS, REFUSED, rows_of, write_data
from fms.reference import run
from sftkit.errors import ConfigError
from support import written

NEEDS_COMPAT = frozenset({"multiple_datasets_with_sampling_and_split_2"})
"""A fraction of a split that is not given: left out there, the rest here."""


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_data(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _save(config: dict[str, Any], folder: Path, suffix: str) -> str:
    path = folder / f"data_config{suffix}"
    text = json.dumps(config) if suffix == ".json" else yaml.safe_dump(config, sort_keys=False)
    path.write_text(text, encoding="utf-8")
    return str(path)


def _expected(config: dict[str, Any], tokenizer: Any) -> dict[str, list[dict[str, Any]]]:
    config = copy.deepcopy(config)
    processor = config.get("dataprocessor") or {}
    if "chat_template_base64" in processor:
        import base64

        processor["chat_template"] = base64.b64decode(processor["chat_template_base64"]).decode()
    return run(config, rows_of, tokenizer)


@pytest.mark.parametrize("tokenizer", ["bos", "sample:model"])
@pytest.mark.parametrize(
    ("name", "compat"),
    [(name, compat) for name in CONFIGS for compat in ("fms", "none") if compat == "fms" or name not in NEEDS_COMPAT],
)
def test_a_predefined_config_gives_the_rows_of_the_reference(
    name: str, compat: str, tokenizer: str, data: Path, tokenizer_path: Callable[[str], str]
) -> None:
    from transformers import AutoTokenizer

    from sftkit.sample import sample_path

    path = tokenizer_path(tokenizer)
    config = CONFIGS[name]
    expected = _expected(config, AutoTokenizer.from_pretrained(str(sample_path(path))))
    suffix = ".json" if compat == "fms" else ".yaml"
    sftkit.preprocess(
        data_config_path=_save(config, data, suffix), model_name_or_path=path, output_dir="out", compat=compat
    )
    assert expected["train"]
    columns = [column for column in expected["train"][0] if column not in ("attention_mask", "messages", "source")]
    for split, rows in expected.items():
        made = written(data / "out", split)
        assert [list(row) for row in made] == [["input_ids", "labels"] if "input_ids" in columns else columns] * len(
            rows
        )
        shared = [column for column in columns if compat == "fms" or column != "labels"]
        assert [{column: row[column] for column in shared} for row in made] == [
            {column: row[column] for column in shared} for row in rows
        ]


def test_a_split_without_one_of_its_fractions_names_compat_where_weights_are_missing(data: Path) -> None:
    path = _save(CONFIGS["multiple_datasets_with_sampling_and_split_2"], data, ".yaml")
    with pytest.raises(ConfigError, match=r"sampling is missing for dataset_3; .*compat: fms"):
        sftkit.preprocess(data_config_path=path, model_name_or_path="sample:model", output_dir="out")


@pytest.mark.parametrize("name", REFUSED)
def test_a_config_that_cannot_be_run_is_refused_with_one_sentence(name: str, data: Path) -> None:
    config, reason = REFUSED[name]
    path = _save(config, data, ".yaml")
    with pytest.raises(ConfigError) as raised:
        sftkit.preprocess(data_config_path=path, model_name_or_path="sample:model", output_dir="out")
    [problem] = raised.value.problems
    assert reason in problem
    assert not (data / "out").exists()
