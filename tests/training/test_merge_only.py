"""Merging adapters without training, and the data type in which a model is saved."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Trainer

import sftkit
from sftkit.errors import ConfigError, OutputError, TrainingError
from sftkit.training.saving.saved_dtype import save_as

from .test_trained_adapters import adapted, logits, run

needs_peft = pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="peft is not installed")


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory, model_dir: Path, shard_dir: Path) -> Path:
    folder = tmp_path_factory.mktemp("adapter")
    run(model_dir, shard_dir, folder, "--use_peft=true", "--max_steps=3")
    return folder


@needs_peft
def test_adapters_are_merged_without_data(tmp_path: Path, adapter: Path, model_dir: Path) -> None:
    out = sftkit.merge_adapters(
        adapter_name_or_path=str(adapter), model_name_or_path=str(model_dir), output_dir=tmp_path
    )
    assert out == tmp_path
    torch.testing.assert_close(logits(AutoModelForCausalLM.from_pretrained(out)), logits(adapted(model_dir, adapter)))
    tokenizer = PreTrainedTokenizerFast.from_pretrained(out)
    assert tokenizer.chat_template == PreTrainedTokenizerFast.from_pretrained(model_dir).chat_template
    assert json.loads((out / "generation_config.json").read_text())["eos_token_id"] == tokenizer.eos_token_id
    twice = sftkit.merge_adapters(
        adapter_name_or_path=[str(adapter), str(adapter)], model_name_or_path=str(model_dir),
        output_dir=tmp_path / "twice",
    )  # fmt: skip
    expected = logits(adapted(model_dir, adapter, adapter))
    torch.testing.assert_close(logits(AutoModelForCausalLM.from_pretrained(twice)), expected)


@needs_peft
def test_the_data_type_is_that_of_the_base_or_as_given(tmp_path: Path, adapter: Path, model_dir: Path) -> None:
    base = Path(shutil.copytree(model_dir, tmp_path / "base"))
    save_as(base, torch.bfloat16)
    given = {"adapter_name_or_path": str(adapter), "model_name_or_path": str(base)}
    for dtype, expected in ((None, "bfloat16"), ("float16", "float16"), ("float32", "float32")):
        out = sftkit.merge_adapters(**given, output_dir=tmp_path / str(dtype), save_dtype=dtype)
        assert json.loads((out / "config.json").read_text())["dtype"] == expected
        assert {str(each.dtype) for each in load_file(out / "model.safetensors").values()} == {f"torch.{expected}"}
        assert AutoModelForCausalLM.from_pretrained(out, dtype="auto").dtype == getattr(torch, expected)


@needs_peft
@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"learning_rate": 1e-4, "training_data_path": "x"}, "merge_only trains nothing and reads no data: remove tra"),
        ({"lora_r": 8}, "merge_only trains nothing and reads no data: remove lora_r"),
        ({"load_in_4bit": True}, "remove load_in_4bit"),
        ({"do_eval": True}, "remove do_eval"),
        ({"adapter_name_or_path": ()}, "merge_only needs an adapter: set adapter_name_or_path, or an adapter as model"),
    ],
)
def test_keys_about_training_are_refused(adapter: Path, model_dir: Path, keys: dict[str, Any], message: str) -> None:
    given = {"adapter_name_or_path": str(adapter), "model_name_or_path": str(model_dir), "output_dir": "out"}
    with pytest.raises(ConfigError, match=message):
        sftkit.merge_adapters(**{**given, **keys})


@needs_peft
def test_nothing_is_merged_into_the_directory_of_an_adapter(adapter: Path) -> None:
    with pytest.raises(OutputError, match="is the directory of the adapter"):
        sftkit.merge_adapters(model_name_or_path=str(adapter), output_dir=str(adapter))


@needs_peft
def test_nothing_is_merged_into_the_directory_of_the_model(tmp_path: Path, adapter: Path, model_dir: Path) -> None:
    model = Path(shutil.copytree(model_dir, tmp_path / "model"))
    (model / "training_logs.jsonl").touch()  # as a run leaves it
    with pytest.raises(OutputError, match="is the directory of the model"):
        sftkit.merge_adapters(model_name_or_path=str(model), adapter_name_or_path=str(adapter), output_dir=str(model))


@needs_peft
def test_damaged_weights_of_an_adapter_are_named(tmp_path: Path, adapter: Path, model_dir: Path) -> None:
    damaged = Path(shutil.copytree(adapter, tmp_path / "damaged"))
    os.truncate(damaged / "adapter_model.safetensors", 5000)
    with pytest.raises(TrainingError, match=r"adapter_model\.safetensors: cannot be read: .*; copy the file again"):
        sftkit.merge_adapters(
            model_name_or_path=str(model_dir), adapter_name_or_path=str(damaged), output_dir=tmp_path / "out"
        )


@needs_peft
def test_a_tokenizer_that_is_too_large_is_refused(tmp_path: Path, adapter: Path, model_dir: Path) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(model_dir)
    tokenizer.add_tokens(["<a>"])
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    with pytest.raises(TrainingError, match=r"has .* tokens, and the merged model has an embedding of"):
        sftkit.merge_adapters(
            model_name_or_path=str(adapter), tokenizer_name_or_path=str(tmp_path / "tokenizer"),
            output_dir=tmp_path / "out",
        )  # fmt: skip


@needs_peft
def test_adapters_and_the_merged_model_are_saved_in_the_given_type(
    tmp_path: Path, model_dir: Path, shard_dir: Path
) -> None:
    run(model_dir, shard_dir, tmp_path, "--use_peft=true", "--max_steps=1", "--save_dtype=float16", "--merge_lora=true")
    for path in ("adapter_model.safetensors", "merged/model.safetensors"):
        assert {each.dtype for each in load_file(tmp_path / path).values()} == {torch.float16}
    assert json.loads((tmp_path / "merged" / "config.json").read_text())["dtype"] == "float16"


def test_the_final_model_alone_has_the_given_type(tmp_path: Path, model_dir: Path, shard_dir: Path) -> None:
    steps = ("--max_steps=2", "--save_strategy=steps", "--save_steps=1")
    run(model_dir, shard_dir, tmp_path, *steps, "--save_dtype=bfloat16", f"--save_model_dir={tmp_path / 'other'}")
    whole = load_file(tmp_path / "checkpoint-2" / "model.safetensors")
    assert {each.dtype for each in whole.values()} == {torch.float32}
    for folder in (tmp_path, tmp_path / "other"):
        found = load_file(folder / "model.safetensors")
        assert all(torch.equal(found[name], values.bfloat16()) for name, values in whole.items())
        assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"
    assert json.loads((tmp_path / "checkpoint-2" / "config.json").read_text())["dtype"] == "float32"


def test_what_is_uploaded_has_the_given_type(
    tmp_path: Path, model_dir: Path, shard_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploaded = []

    def push(trainer: Trainer, **settings: Any) -> None:
        trainer.save_model(_internal_call=True)  # as that of transformers does first
        uploaded.append(load_file(tmp_path / "model.safetensors"))

    monkeypatch.setattr(Trainer, "init_hf_repo", lambda trainer, **settings: None)
    monkeypatch.setattr(Trainer, "push_to_hub", push)
    run(model_dir, shard_dir, tmp_path, "--max_steps=1", "--save_dtype=bfloat16", "--push_to_hub=true")
    [weights] = uploaded
    assert {values.dtype for values in weights.values()} == {torch.bfloat16}


def test_a_tensor_that_the_type_cannot_hold_keeps_its_own(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tensors = {"large": torch.tensor([1e30]), "small": torch.tensor([1.0]), "counts": torch.tensor([3])}
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text('{"dtype": "float32", "text_config": {"dtype": "float32"}, "vision": null}')
    with caplog.at_level(logging.WARNING):
        save_as(tmp_path, torch.float16)
    found = load_file(tmp_path / "model.safetensors")
    assert [found[name].dtype for name in tensors] == [torch.float32, torch.float16, torch.int64]
    assert "large has values beyond those of float16" in caplog.text
    config = json.loads((tmp_path / "config.json").read_text())
    assert config == {"dtype": "float16", "text_config": {"dtype": "float16"}, "vision": None}
