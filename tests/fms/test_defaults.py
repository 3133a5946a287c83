"""What `compat: fms` sets where a config does not, and how tokens and limits follow fms-hf-tuning."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

import sftkit
from sftkit.config.commands import PreprocessConfig, TrainConfig
from sftkit.config.loading import load_config
from sftkit.config.reading.python_values import load_values
from sftkit.sample import sample_path
from sftkit.shards.manifest import read_manifest
from sftkit.storage.paths import parse_path
from sftkit.tokenization.loading.special_tokens import add_missing_tokens
from sftkit.training.arguments.build_arguments import argument_problems, extra_keys
from support import write_jsonl, written

TOKENIZE = {"name": "tokenize", "arguments": {"fn_kwargs": {"dataset_text_field": "t"}}}


def _train(*argv: str) -> TrainConfig:
    return load_config(
        TrainConfig, ["--output_dir", "o", *argv], extra_keys=extra_keys(), check_extra=argument_problems
    )


def test_the_defaults_of_fms_hf_tuning_are_set_by_one_key() -> None:
    plain, fms = _train(), _train("--compat", "fms")
    keys = ("max_seq_length", "torch_dtype", "lora_r", "lora_alpha", "lora_dropout", "lora_target_modules")
    assert [getattr(plain, key) for key in keys] == [None, None, None, None, None, ("all-linear",)]
    assert [getattr(fms, key) for key in keys] == [4096, "bfloat16", 8, None, 0.05, ("q_proj", "v_proj")]
    assert dict(fms.training_arguments) == {"logging_strategy": "epoch", "save_strategy": "epoch"}
    assert dict(plain.training_arguments) == {}


def test_what_is_set_wins_over_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("compat: fms\nlora_rank: 4\nsave_strategy: steps\n", encoding="utf-8")
    config = _train("--config", str(path), "--max_seq_length", "100", "--torch_dtype", "float32")
    assert (config.max_seq_length, config.torch_dtype, config.lora_r) == (100, "float32", 4)
    assert config.training_arguments["save_strategy"] == "steps"


def test_a_config_object_gets_them_as_well() -> None:
    config = load_values(PreprocessConfig, PreprocessConfig(output_dir="o", compat="fms"))
    assert config.max_seq_length == 4096


@pytest.mark.parametrize(
    ("keywords", "truncation"),
    [
        ({}, True),
        ({"truncation": False}, False),
        ({"max_length": 3}, True),
        ({"tokenizer_kwargs": {"truncation": False}}, None),
        ({"tokenizer_kwargs": {"padding": False}}, True),
    ],
)
def test_tokenize_truncates_unless_its_arguments_forbid_it(keywords: dict[str, Any], truncation: bool | None) -> None:
    handlers = [
        {"name": "tokenize", "arguments": {"batched": True, "fn_kwargs": {"dataset_text_field": "t", **keywords}}},
        {"name": "retain_columns", "arguments": {"columns": ["t"]}},
    ]
    datasets = [{"name": "a", "data_paths": ["p"], "data_handlers": handlers}]
    for compat, expected in (("fms", truncation), ("none", keywords.get("truncation"))):
        config = load_values(PreprocessConfig, None, {"output_dir": "o", "compat": compat, "datasets": datasets})
        first, second = config.datasets[0].data_handlers
        assert first.arguments["fn_kwargs"].get("truncation") == expected
        assert second.arguments == {"columns": ["t"]}


def test_a_fraction_that_is_not_given_is_left_out() -> None:
    datasets = [
        {"name": "a", "data_paths": ["p"], "split": {"train": 0.6}},
        {"name": "b", "data_paths": ["p"], "split": {"validation": 0.1}},
        {"name": "c", "data_paths": ["p"]},
    ]
    config = load_values(PreprocessConfig, None, {"output_dir": "o", "compat": "fms", "datasets": datasets})
    splits = [each.split and (each.split.train, each.split.validation) for each in config.datasets]
    assert splits == [(0.6, 0.0), (0.0, 0.1), None]


def test_a_manifest_repeats_them(tmp_path: Path) -> None:
    rows = write_jsonl(tmp_path / "rows.jsonl", [{"t": f"the cat sat {number}"} for number in range(10)])
    copy = {"name": "duplicate_columns", "arguments": {"old_column": "input_ids", "new_column": "labels"}}
    datasets = [
        {"name": "a", "data_paths": [str(rows)], "split": {"train": 0.6}, "data_handlers": [TOKENIZE, copy]},
    ]
    keys: dict[str, Any] = {"model_name_or_path": "sample:model", "datasets": datasets, "compat": "fms"}
    sftkit.preprocess(output_dir=tmp_path / "one", **keys)
    manifest = tmp_path / "one" / "manifest.json"
    sftkit.preprocess(manifest, output_dir=tmp_path / "two", model_name_or_path="sample:model")
    assert written(tmp_path / "one") == written(tmp_path / "two")
    assert len(written(tmp_path / "one")) == 6
    assert not written(tmp_path / "one", "validation")
    recorded = json.loads(manifest.read_text(encoding="utf-8"))["config"]
    assert (recorded["compat"], recorded["max_seq_length"]) == ("fms", 2048)  # what its tokenizer takes


@pytest.mark.parametrize(("version", "shuffled"), [(3, True), (4, False)])
def test_shuffle_false_of_an_older_manifest_is_the_default(tmp_path: Path, version: int, shuffled: bool) -> None:
    rows = write_jsonl(tmp_path / "rows.jsonl", [{"input_ids": [n, 1], "labels": [n, 1]} for n in range(1, 21)])
    dataset = {"name": "a", "data_paths": [str(rows)], "split": {"train": 0.5}, "shuffle": False}
    manifest = {"format_version": version, "fingerprint": "0" * 64, "config": {"datasets": [dataset]}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    sftkit.preprocess(tmp_path / "manifest.json", output_dir=tmp_path / "out")
    ids = [row["input_ids"][0] for row in written(tmp_path / "out")]
    assert (ids != list(range(1, 11))) is shuffled
    assert len(ids) == 10


# --- Tokens -------------------------------------------------------------------------------------------


def test_a_text_that_begins_with_bos_gets_a_second_one_as_there(
    tmp_path: Path, tokenizer_path: Callable[[str], str]
) -> None:
    path = tokenizer_path("bos")
    rows = write_jsonl(tmp_path / "rows.jsonl", [{"t": "<s>the cat"}])
    copy = {"name": "duplicate_columns", "arguments": {"old_column": "input_ids", "new_column": "labels"}}
    datasets = [{"name": "a", "data_paths": [str(rows)], "data_handlers": [TOKENIZE, copy]}]
    keys: dict[str, Any] = {"model_name_or_path": path, "datasets": datasets}
    sftkit.preprocess(output_dir=tmp_path / "fms", compat="fms", **keys)
    sftkit.preprocess(output_dir=tmp_path / "plain", **keys)
    ids = AutoTokenizer.from_pretrained(path)("<s>the cat")["input_ids"]
    assert ids[:2] == [1, 1]
    assert written(tmp_path / "fms")[0]["input_ids"] == ids
    assert written(tmp_path / "plain")[0]["input_ids"] == ids[1:]


def test_max_seq_length_is_at_most_what_the_tokenizer_takes(
    tmp_path: Path, tokenizer_path: Callable[[str], str], caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_path("bpe"))
    tokenizer.model_max_length = 5
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    rows = write_jsonl(tmp_path / "rows.jsonl", [{"input": "the cat", "output": "sat on the mat and the dog ran"}])
    keys: dict[str, Any] = {"model_name_or_path": tmp_path / "tokenizer", "training_data_path": rows}
    sftkit.preprocess(output_dir=tmp_path / "fms", compat="fms", max_seq_length=7, **keys)
    sftkit.preprocess(output_dir=tmp_path / "plain", max_seq_length=7, **keys)
    assert len(written(tmp_path / "fms")[0]["input_ids"]) == 5
    assert len(written(tmp_path / "plain")[0]["input_ids"]) == 7
    assert "max_seq_length=7 exceeds the tokenizer's model_max_length=5, which is used (compat: fms)" in caplog.text


def test_special_tokens_that_a_tokenizer_lacks_are_added(tokenizer_path: Callable[[str], str]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_path("bpe"))
    tokenizer.bos_token = tokenizer.unk_token = None
    before = len(tokenizer)
    add_missing_tokens(tokenizer, "bpe")
    assert (tokenizer.bos_token, tokenizer.unk_token, tokenizer.pad_token) == ("<s>", "<unk>", "<PAD>")
    assert len(tokenizer) == before + 1  # <s> and <unk> are in the vocabulary
    assert tokenizer.convert_tokens_to_ids("<PAD>") == before


def test_a_pad_token_that_is_the_eos_token_is_replaced(tokenizer_path: Callable[[str], str]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_path("bpe"))
    tokenizer.pad_token = tokenizer.eos_token
    add_missing_tokens(tokenizer, "bpe")
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("</s>", "<PAD>")
    tokenizer.eos_token = tokenizer.pad_token
    add_missing_tokens(tokenizer, "bpe")
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("</s>", "<PAD>")


def test_the_tokenizer_of_a_model_gets_them_and_one_that_is_named_does_not(
    tmp_path: Path, tokenizer_path: Callable[[str], str]
) -> None:
    path = tokenizer_path("bpe")
    rows = write_jsonl(tmp_path / "rows.jsonl", [{"input": "a <PAD>", "output": "the cat"}])
    sizes = {}
    for name, keys in {
        "model": {"model_name_or_path": path, "compat": "fms"},
        "named": {"tokenizer_name_or_path": path, "compat": "fms"},
        "plain": {"model_name_or_path": path},
    }.items():
        sftkit.preprocess(output_dir=tmp_path / name, training_data_path=rows, **keys)
        manifest = read_manifest(parse_path(str(tmp_path / name), {}))
        assert manifest is not None
        assert manifest.tokenizer is not None
        assert manifest.tokenizer.adds_missing_tokens is (name == "model")
        assert bool(sftkit.inspect_shards(tmp_path / name, verify=True).differences) is False
        sizes[name] = manifest.tokenizer.vocabulary_size
    assert sizes["model"] == sizes["named"] + 1 == sizes["plain"] + 1
    assert len(written(tmp_path / "model")[0]["input_ids"]) < len(written(tmp_path / "named")[0]["input_ids"])


@pytest.mark.parametrize(
    "template",
    [
        "Text: {{Tweet text}} Label: {{label}}",
        "Text: {{element['Tweet text']}} Label: {{label}}{{eos_token}}",
        "Text: {{ Tweet text }} Label: {% if label %}{{ label }}{% endif %}",
    ],
)
def test_a_formatter_template_is_placeholders_or_jinja(tmp_path: Path, template: str) -> None:
    rows = write_jsonl(tmp_path / "rows.jsonl", [{"Tweet text": "the cat", "label": "ok"}])
    keys: dict[str, Any] = {"training_data_path": rows, "model_name_or_path": "sample:model"}
    sftkit.preprocess(output_dir=tmp_path / "out", data_formatter_template=template, **keys)
    eos = AutoTokenizer.from_pretrained(str(sample_path("sample:model"))).eos_token
    assert written(tmp_path / "out") == [{"formatted_text": f"Text: the cat Label: ok{eos}"}]
