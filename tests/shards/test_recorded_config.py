"""The config in a manifest, which may come from anyone, has the types that the commands rely on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reliability.material import sftkit
from sftkit.shards.recorded_config import recorded_config_problem
from support import write_jsonl

HANDLER = {"name": "tokenize", "arguments": {}}
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"datasets": "x"}, "config.datasets is not a list"),
    ({"datasets": {"x": 1}}, "config.datasets is not a list"),
    ({"datasets": ["x"]}, "config.datasets[0] is not a mapping"),
    ({"datasets": [{"data_handlers": 5}]}, "config.datasets[0].data_handlers is not a list"),
    ({"datasets": [{"data_handlers": [HANDLER, {}]}]}, "config.datasets[0].data_handlers[1] is not a handler with"),
    ({"datasets": [{"data_handlers": [{**HANDLER, "arguments": "x"}]}]}, "data_handlers[0] is not a handler with"),
    ({"datasets": [{"data_handlers": ["x"]}]}, "config.datasets[0].data_handlers[0] is not a handler with"),
    ({"packing": {"x": 1}}, "config.packing is not text"),
    ({"response_template": 5}, "config.response_template is not text"),
    ({"chat_template_kwargs": [1]}, "config.chat_template_kwargs is not a mapping"),
    ({"dataprocessor": "x"}, "config.dataprocessor is not a mapping"),
    ({"template_date": "yesterday"}, "config.template_date is not a day in the form YYYY-MM-DD"),
    ({"template_date": 10**400}, "config.template_date is not a day in the form YYYY-MM-DD"),
]


@pytest.mark.parametrize(("config", "problem"), WRONG)
def test_a_key_of_another_type_is_named(config: dict[str, Any], problem: str) -> None:
    assert problem in (recorded_config_problem(config) or "")


def test_other_keys_and_keys_that_are_not_set_may_have_any_value() -> None:
    config = {"num_workers": "x", "of another version": [1], "packing": None, "datasets": None, "dataprocessor": None}
    assert recorded_config_problem(config) is None


@pytest.mark.parametrize("command", [("inspect-shards", "out"), ("inspect-shards", "out", "--verify")])
def test_a_manifest_with_such_a_config_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "a.jsonl", [{"text": "one"}])
    options = ("--training_data_path", "a.jsonl", "--dataset_text_field", "text", "--train_on", "all")
    assert sftkit("preprocess", *options, "--tokenizer_name_or_path", "sample:model", "--output_dir", "out").code == 0
    manifest = json.loads(Path("out/manifest.json").read_text())
    for config, problem in WRONG:
        forged = {**manifest, "config": {**manifest["config"], **config}}
        Path("out/manifest.json").write_text(json.dumps(forged))
        outcome = sftkit(*command)
        assert outcome.clear
        assert problem in outcome.err
