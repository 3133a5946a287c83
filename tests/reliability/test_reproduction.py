"""A manifest, or its `config` as YAML or JSON, reproduces its shards bit for bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from sftkit.config.commands import PreprocessConfig
from sftkit.config.loading import load_config
from sftkit.core.progress import SilentProgress
from sftkit.errors import ConfigError
from sftkit.preprocessing.build import run
from sftkit.preprocessing.planning import plan
from sftkit.shards.manifest import Manifest
from support import shard_bytes, write_jsonl

Write = Callable[[Manifest, Path, Path], str]


def preprocess(*argv: object) -> Manifest:
    """Run `sftkit preprocess` in this process."""
    return run(plan(load_config(PreprocessConfig, [*map(str, argv), "--num_workers=1"])), SilentProgress())


def _as_yaml(manifest: Manifest, shards: Path, folder: Path) -> str:
    path = folder / "resolved.yaml"
    path.write_text(yaml.safe_dump(_config_in(shards)), encoding="utf-8")
    return str(path)


def _as_json(manifest: Manifest, shards: Path, folder: Path) -> str:
    path = folder / "resolved.json"
    path.write_text(json.dumps(_config_in(shards)), encoding="utf-8")
    return str(path)


def _as_it_is(manifest: Manifest, shards: Path, folder: Path) -> str:
    return str(shards / "manifest.json")


def _config_in(shards: Path) -> Any:
    return json.loads((shards / "manifest.json").read_text(encoding="utf-8"))["config"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Chats, pairs and texts, and a chat template."""
    chats = [
        {
            "messages": [
                {"role": "user", "content": f"say ${{x}} {n}"},
                {"role": "assistant", "content": f"{n}" * (n % 7)},
            ]
        }
        for n in range(1, 40)
    ]
    write_jsonl(tmp_path / "chats.jsonl", [chat for chat in chats if chat["messages"][1]["content"]])
    write_jsonl(tmp_path / "a ${b} pairs.jsonl", [{"q": f"{n} + 1", "a": str(n + 1), "id": n} for n in range(40)])
    write_jsonl(tmp_path / "texts.jsonl", [{"body": f"Q: {n} + 1\nA: {n + 1}"} for n in range(30)])
    template = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    generation = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    (tmp_path / "own.jinja").write_text(template + generation)
    return tmp_path


def _mixed(data: Path) -> list[object]:
    config = {
        "dataprocessor": {
            "type": "default", "seed": 5, "sampling_stopping_strategy": "first_exhausted",
            "chat_template_path": str(data / "own.jinja"),
        },
        "datasets": [
            {
                "name": "chats", "data_paths": [str(data / "chats.jsonl")], "sampling": 0.25,
                "split": {"train": 0.8, "validation": 0.2}, "shuffle": True,
                "data_handlers": [{"name": "tokenize_and_apply_chat_template_with_masking"}],
            },
            {
                "name": "pairs", "data_paths": [str(data / "a ${b} pairs.jsonl").replace("${b}", "\\${b}")],
                "sampling": 0.75, "rename_columns": {"q": "question"}, "retain_columns": ["id", "question", "a"],
                "data_handlers": [
                    {
                        "name": "tokenize_and_apply_input_masking",
                        "arguments": {
                            "remove_columns": "all",
                            "fn_kwargs": {"input_field_name": "question", "output_field_name": "a"},
                        },
                    }
                ],
            },
        ],
    }  # fmt: skip
    (data / "data.yaml").write_text(yaml.safe_dump(config))
    (data / "options.yaml").write_text("max_seq_length: 99\noverflow: drop\nengine: reference\n")
    return [
        "--data_config_path", data / "data.yaml", "--config", data / "options.yaml", "--max_seq_length=64",
        "datasets[0].sampling=0.5", "datasets[1].sampling=0.5", "--num_dataset_shards=3", "--overwrite",
    ]  # fmt: skip


def _packed(data: Path) -> list[object]:
    return [*_mixed(data), "--packing=bfd", "--pack_length=80", "--num_eval_dataset_shards=2"]


def _simple(data: Path) -> list[object]:
    return [
        "--training_data_path", data / "texts.jsonl", "--validation_data_path", data / "texts.jsonl",
        "--dataset_text_field=body", "--response_template=A: ", "--add_special_tokens", "<a>", "<b \\${c}>",
    ]  # fmt: skip


def _template(data: Path) -> list[object]:
    return [
        "--training_data_path", data / "texts.jsonl", "--data_formatter_template=Say: {{body}} ${d}",
        "--response_template=A:", "--train_on=all", "--packing=wrapped", "--pack_length=32",
    ]  # fmt: skip


def _conversations(data: Path) -> list[object]:
    return [
        "--training_data_path", data / "chats.jsonl", "--dataset_conversation_field=messages",
        "--chat_template_kwargs={enable_thinking: false, depth: {limit: 3}}", "--special_tokens_in_content=escape",
    ]  # fmt: skip


RUNS = [_mixed, _packed, _simple, _template, _conversations]


@pytest.mark.sampled(2)
@pytest.mark.parametrize("write", [_as_yaml, _as_json, _as_it_is])
@pytest.mark.parametrize("arguments", RUNS)
def test_the_config_of_a_manifest_makes_the_same_shards(
    data: Path, arguments: Callable[[Path], list[object]], write: Write
) -> None:
    shards = data / "shards"
    made = preprocess(*arguments(data), "--model_name_or_path=sample:model", "--output_dir", shards)
    again = preprocess("--config", write(made, shards, data), "--output_dir", data / "again")
    assert shard_bytes(shards)
    assert shard_bytes(data / "again") == shard_bytes(shards)
    assert again.fingerprint == made.fingerprint


def test_a_reproduced_data_set_can_be_reproduced(data: Path) -> None:
    folders = [data / str(number) for number in range(3)]
    preprocess(*_mixed(data), "--model_name_or_path=sample:model", "--output_dir", folders[0])
    for before, after in pairwise(folders):
        preprocess("--config", before / "manifest.json", "--output_dir", after)
    assert shard_bytes(folders[2]) == shard_bytes(folders[0])


def test_the_config_of_text_shards_reproduces_them(data: Path) -> None:
    preprocess("--training_data_path", data / "texts.jsonl", "--dataset_text_field=body", "--output_dir", data / "text")
    preprocess(
        "--training_data_path", data / "text", "--response_template=A:", "--tokenizer_name_or_path=sample:model",
        "--output_dir", data / "shards",
    )  # fmt: skip
    preprocess("--config", data / "shards" / "manifest.json", "--output_dir", data / "again")
    assert shard_bytes(data / "again") == shard_bytes(data / "shards")


def test_the_command_line_overrides_a_manifest(data: Path) -> None:
    shards = data / "shards"
    preprocess(*_mixed(data), "--model_name_or_path=sample:model", "--output_dir", shards)
    config = load_config(
        PreprocessConfig,
        ["--config", str(shards / "manifest.json"), "--output_dir=o", "--max_seq_length=7", "datasets[0].sampling=0.1"],
    )
    assert (config.max_seq_length, config.datasets[0].sampling, config.overflow) == (7, 0.1, "drop")


def test_overwrite_is_not_repeated_from_a_manifest(data: Path) -> None:
    shards = data / "shards"
    preprocess(*_mixed(data), "--model_name_or_path=sample:model", "--output_dir", shards)
    config = load_config(PreprocessConfig, ["--config", str(shards / "manifest.json"), "--output_dir=o"])
    assert json.loads((shards / "manifest.json").read_text())["config"]["overwrite"] is True
    assert config.overwrite is False


def test_datasets_in_addition_to_those_of_a_manifest_are_refused(data: Path) -> None:
    shards = data / "shards"
    arguments = _mixed(data)
    preprocess(*arguments, "--model_name_or_path=sample:model", "--output_dir", shards)
    with pytest.raises(ConfigError, match="set it in only one of them"):
        load_config(PreprocessConfig, [*map(str, arguments[:2]), "--config", str(shards / "manifest.json")])
