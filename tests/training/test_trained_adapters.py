"""Going on from adapters of earlier runs: training them further, evaluating them, merging them into the model."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from sftkit.config.commands import TrainConfig
from sftkit.errors import OutputError, SftkitError, TrainingError
from sftkit.shards.reading import open_shards
from sftkit.storage.adapter_files import BASE_NAME, SETTINGS_NAME, open_adapter
from sftkit.training.adapters.adapter_choice import with_adapters
from sftkit.training.run import train
from sftkit.training.setup.output_check import check_training_output
from sftkit.training.training_report import TrainingReport

from .material import logged
from .test_run import manifest_of, prepared

pytestmark = pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="peft is not installed")

FAST = ("--learning_rate=1e-2", "--per_device_train_batch_size=8", "--save_strategy=no")
TOKEN = "<lantern>"


def run(model: Path, shards: Path, output: Path, *argv: str, manifest: Any = None) -> TrainingReport:
    config, arguments = prepared(model, output, *FAST, *argv)
    return train(with_adapters(config), arguments, replace(open_shards(str(shards)), manifest=manifest))


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(input_ids=torch.arange(2, 40)[None]).logits
    return found


def adapted(model: Path, *adapters: Path) -> Any:
    """The model with adapters merged into it by peft alone."""
    from peft import PeftModel

    found: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    for adapter in adapters:
        found = PeftModel.from_pretrained(found, adapter).merge_and_unload()
    return found


def resolved(**keys: Any) -> TrainConfig:
    return with_adapters(replace(TrainConfig(output_dir="out"), **keys))


def refusal(**keys: Any) -> str:
    with pytest.raises(SftkitError) as raised:
        resolved(**keys)
    return str(raised.value)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, model_dir: Path, shard_dir: Path) -> Path:
    """An adapter after four steps."""
    folder = tmp_path_factory.mktemp("first")
    run(model_dir, shard_dir, folder, "--use_peft=true", "--lora_r=4", "--lora_alpha=6", "--max_steps=4")
    return folder


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory, first: Path, model_dir: Path, shard_dir: Path) -> Path:
    """A new adapter on the model with the first one merged into it."""
    folder = tmp_path_factory.mktemp("second")
    new = ("--use_peft=true", "--create_new_adapter=true", "--max_steps=4", f"--adapter_name_or_path={first}")
    run(model_dir, shard_dir, folder, *new, "--merge_lora=true")
    return folder


@pytest.mark.parametrize("as_model", [False, True])
def test_an_adapter_is_trained_further(
    tmp_path: Path, first: Path, model_dir: Path, shard_dir: Path, as_model: bool
) -> None:
    named = first if as_model else model_dir
    more = () if as_model else (f"--adapter_name_or_path={first}",)
    report = run(named, shard_dir, tmp_path, "--use_peft=true", "--max_steps=2", "--merge_lora=true", *more)
    curve = logged(first, "loss")
    assert report.first_loss < curve[-1] < curve[0] - 0.1  # type: ignore[operator]  # losses were logged
    settings = json.loads((tmp_path / SETTINGS_NAME).read_text())
    assert (settings["r"], settings["lora_alpha"], settings["base_model_name_or_path"]) == (4, 6, str(model_dir))
    trained = logits(adapted(model_dir, tmp_path))
    assert (trained - logits(adapted(model_dir, first))).abs().max() > 1e-3
    torch.testing.assert_close(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "merged")), trained)


def test_learning_rate_0_leaves_the_adapter_as_it_is(
    tmp_path: Path, first: Path, model_dir: Path, shard_dir: Path
) -> None:
    run(first, shard_dir, tmp_path, "--use_peft=true", "--max_steps=1", "--learning_rate=0")
    assert open_adapter(str(tmp_path)).weights.read_bytes() == open_adapter(str(first)).weights.read_bytes()


def test_without_peft_the_adapter_is_merged_and_the_whole_model_is_trained(
    tmp_path: Path, first: Path, model_dir: Path, shard_dir: Path
) -> None:
    run(first, shard_dir, tmp_path, "--max_steps=1", "--learning_rate=0")
    assert not (tmp_path / SETTINGS_NAME).exists()
    torch.testing.assert_close(
        logits(AutoModelForCausalLM.from_pretrained(tmp_path)), logits(adapted(model_dir, first))
    )
    run(first, shard_dir, tmp_path / "trained", "--max_steps=1", "--weight_decay=0")
    before, after = (AutoModelForCausalLM.from_pretrained(path) for path in (tmp_path, tmp_path / "trained"))
    changed = [name for name, values in after.named_parameters() if not torch.equal(values, before.get_parameter(name))]
    assert len(changed) == len(list(before.parameters()))


def test_an_adapter_is_evaluated(tmp_path: Path, first: Path, shard_dir: Path, model_dir: Path) -> None:
    alone = ("--do_train=false", "--do_eval=true")
    report = run(first, shard_dir, tmp_path / "adapter", *alone)
    adapted(model_dir, first).save_pretrained(tmp_path / "whole")
    PreTrainedTokenizerFast.from_pretrained(model_dir).save_pretrained(tmp_path / "whole")
    expected = run(tmp_path / "whole", shard_dir, tmp_path / "expected", *alone)
    assert report.eval_loss == pytest.approx(expected.eval_loss, rel=1e-5)
    assert [path.name for path in (tmp_path / "adapter").iterdir()] == ["eval_results.json"]


def test_a_new_adapter_knows_the_one_that_was_merged_before_it(
    tmp_path: Path, first: Path, second: Path, model_dir: Path, shard_dir: Path
) -> None:
    expected = logits(adapted(model_dir, first, second))
    torch.testing.assert_close(logits(AutoModelForCausalLM.from_pretrained(second / "merged")), expected)
    config = resolved(model_name_or_path=str(second), use_peft=True)
    assert config.adapter_name_or_path == (str(first.resolve()), str(second))
    assert (config.model_name_or_path, config.lora_r, config.lora_dropout) == (str(model_dir), 16, 0.0)
    assert with_adapters(config) == config
    run(second, shard_dir, tmp_path, "--max_steps=1", "--learning_rate=0")
    torch.testing.assert_close(logits(AutoModelForCausalLM.from_pretrained(tmp_path)), expected)
    run(
        second,
        shard_dir,
        tmp_path / "third",
        "--use_peft=true",
        "--max_steps=2",
        "--save_strategy=steps",
        "--save_steps=1",
    )
    for folder in (tmp_path / "third", tmp_path / "third" / "checkpoint-1"):
        assert [name for name, _ in open_adapter(str(folder)).merged_first()] == [str(first.resolve())]


def test_adapters_that_belong_to_the_base_must_be_there_unchanged(tmp_path: Path, first: Path, second: Path) -> None:
    copies = [Path(shutil.copytree(each, tmp_path / each.name)) for each in (first, second)]
    base = json.loads((second / BASE_NAME).read_text())
    base["merged_first"][0]["adapter"] = str(copies[0])
    (copies[1] / BASE_NAME).write_text(json.dumps(base))
    assert resolved(model_name_or_path=str(copies[1]), use_peft=True).adapter_name_or_path[0] == str(copies[0])
    (copies[0] / SETTINGS_NAME).write_text((copies[0] / SETTINGS_NAME).read_text() + " ")
    assert "has changed since" in refusal(model_name_or_path=str(copies[1]), use_peft=True)
    shutil.rmtree(copies[0])
    assert "which is not there" in refusal(model_name_or_path=str(copies[1]), use_peft=True)
    named = (str(second), str(copies[1]))
    assert "name exactly these before it" in refusal(adapter_name_or_path=named, use_peft=True)


def test_a_run_from_an_adapter_resumes_bit_equal(tmp_path: Path, first: Path, shard_dir: Path) -> None:
    line = ("--use_peft=true", "--max_steps=4", "--save_strategy=steps", "--save_steps=2", "--lora_dropout=0.1")
    run(first, shard_dir, tmp_path / "whole", *line)
    shutil.copytree(tmp_path / "whole" / "checkpoint-2", tmp_path / "half" / "checkpoint-2")
    run(first, shard_dir, tmp_path / "half", *line)
    assert logged(tmp_path / "half", "loss") == logged(tmp_path / "whole", "loss")[2:]
    weights = [open_adapter(str(tmp_path / name)).weights.read_bytes() for name in ("whole", "half")]
    assert weights[0] == weights[1]


def test_a_checkpoint_belongs_to_the_content_of_the_adapter(tmp_path: Path, first: Path, shard_dir: Path) -> None:
    adapter = Path(shutil.copytree(first, tmp_path / "adapter"))
    line = ("--use_peft=true", "--max_steps=2", "--save_strategy=steps", "--save_steps=1")
    run(adapter, shard_dir, tmp_path / "out", *line)
    losses = logged(tmp_path / "out", "loss")
    run(adapter, shard_dir, adapter, "--use_peft=true", "--max_steps=1")  # which changes the adapter
    run(adapter, shard_dir, tmp_path / "out", *line)
    assert logged(tmp_path / "out", "loss")[:2] != losses


@pytest.mark.parametrize("tied", [False, True])
def test_adapters_with_new_tokens_are_trained_further(
    tmp_path: Path, make_model: Callable[..., None], model_dir: Path, shard_dir: Path, tied: bool
) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(model_dir)
    model = tmp_path / "model"
    make_model(model, len(tokenizer), tied=tied)
    tokenizer.save_pretrained(model)
    with_token = ("--add_special_tokens", TOKEN)
    tokenizer.add_special_tokens({"extra_special_tokens": [TOKEN]}, replace_extra_special_tokens=False)
    manifest = manifest_of(tokenizer, added=(TOKEN,))
    run(model, shard_dir, tmp_path / "a", "--use_peft=true", "--max_steps=2", *with_token, manifest=manifest)
    adapter = open_adapter(str(tmp_path / "a"))
    assert (adapter.embedding_rows(), adapter.trained_tokens()) == (len(tokenizer), len(tokenizer))
    run(
        tmp_path / "a", shard_dir, tmp_path / "b", "--use_peft=true", "--max_steps=1", "--learning_rate=0",
        "--merge_lora=true", manifest=manifest,
    )  # fmt: skip
    assert open_adapter(str(tmp_path / "b")).weights.read_bytes() == adapter.weights.read_bytes()
    run(tmp_path / "a", shard_dir, tmp_path / "c", "--max_steps=1", "--learning_rate=0", manifest=manifest)
    merged, whole = (AutoModelForCausalLM.from_pretrained(tmp_path / path) for path in ("b/merged", "c"))
    torch.testing.assert_close(logits(whole), logits(merged))
    assert whole.config.vocab_size == len(PreTrainedTokenizerFast.from_pretrained(tmp_path / "c")) == len(tokenizer)
    with pytest.raises(TrainingError, match=r"was trained without the token '<other>', .*create_new_adapter=true"):
        run(tmp_path / "a", shard_dir, tmp_path / "d", "--use_peft=true", "--add_special_tokens", TOKEN, "<other>")


def test_modules_that_were_trained_completely_are_trained_further(
    tmp_path: Path, model_dir: Path, shard_dir: Path
) -> None:
    whole = ("--lora_modules_to_save", "lm_head", "embed_tokens")
    run(model_dir, shard_dir, tmp_path / "a", "--use_peft=true", "--max_steps=2", *whole)
    run(tmp_path / "a", shard_dir, tmp_path / "b", "--use_peft=true", "--max_steps=1", "--learning_rate=0")
    weights = [open_adapter(str(tmp_path / name)).weights.read_bytes() for name in ("a", "b")]
    assert weights[0] == weights[1]


@pytest.mark.parametrize("module", ["lm_head", "embed_tokens"])
@pytest.mark.parametrize("tied", [False, True])
def test_modules_that_were_trained_completely_may_have_new_tokens(
    tmp_path: Path, make_model: Callable[..., None], model_dir: Path, shard_dir: Path, tied: bool, module: str
) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(model_dir)
    model = tmp_path / "model"
    make_model(model, len(tokenizer), tied=tied)
    tokenizer.save_pretrained(model)
    tokenizer.add_special_tokens({"extra_special_tokens": [TOKEN]}, replace_extra_special_tokens=False)
    run(
        model, shard_dir, tmp_path / "a", "--use_peft=true", "--max_steps=2", "--merge_lora=true",
        "--add_special_tokens", TOKEN, "--lora_modules_to_save", module,
        manifest=manifest_of(tokenizer, added=(TOKEN,)),
    )  # fmt: skip
    base: Any = AutoModelForCausalLM.from_pretrained(model)
    base.resize_token_embeddings(len(tokenizer))
    base.save_pretrained(tmp_path / "resized")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "a" / "merged")
    torch.testing.assert_close(logits(merged), logits(adapted(tmp_path / "resized", tmp_path / "a")))
    new = merged.get_output_embeddings().weight[-1] if module == "lm_head" else merged.get_input_embeddings().weight[-1]
    assert not torch.equal(new, base.get_input_embeddings().weight[-1])


def test_settings_must_be_those_of_the_adapter(first: Path, model_dir: Path) -> None:
    peft = {"model_name_or_path": str(first), "use_peft": True}
    assert refusal(**peft, lora_r=8).startswith(f"lora_r: the adapter {first} was trained with 4, not 8; remove the")
    assert "lora_target_modules: the adapter" in refusal(**peft, lora_target_modules=("q_proj",))
    assert "lora_modules_to_save: the adapter" in refusal(**peft, lora_modules_to_save=("lm_head",))
    assert "use_dora: the adapter" in refusal(**peft, use_dora=True)
    assert "init_lora_weights is for new adapters" in refusal(**peft, init_lora_weights="pissa")
    same = resolved(**peft, lora_r=4, lora_alpha=6, lora_dropout=0.2, lora_target_modules=("all-linear",))
    assert (same.lora_r, same.lora_alpha, same.lora_dropout) == (4, 6, 0.2)
    assert resolved(**peft, create_new_adapter=True, lora_r=8).lora_r == 8
    assert resolved(**peft, compat="fms", lora_r=8).lora_r == 4  # the default of fms-hf-tuning


def test_contradictions_are_refused(first: Path, model_dir: Path) -> None:
    named = {"model_name_or_path": str(model_dir), "adapter_name_or_path": (str(first),)}
    assert refusal(**named).startswith("adapter_name_or_path: set use_peft=true to go on training the adapter; to")
    assert refusal(create_new_adapter=True).startswith("create_new_adapter needs an adapter to merge first")
    assert refusal(**named, use_peft=True, init_from_config=True).startswith("init_from_config starts from random")
    several = {"adapter_name_or_path": (str(first), str(first)), "load_in_4bit": True}
    assert "cannot be merged into a quantized model" in refusal(**several)


def test_what_is_no_adapter_is_refused(tmp_path: Path, first: Path, model_dir: Path) -> None:
    def given(name: Path | str) -> str:
        return refusal(model_name_or_path=str(model_dir), adapter_name_or_path=(str(name),), use_peft=True)

    assert "no such directory" in given("./nowhere")
    assert "a whole model is named by model_name_or_path" in given(model_dir)
    adapter = Path(shutil.copytree(first, tmp_path / "adapter"))
    assert given(tmp_path).endswith(f"correct the path, such as to {adapter}")
    settings = json.loads((adapter / SETTINGS_NAME).read_text())
    (adapter / SETTINGS_NAME).write_text(json.dumps(settings | {"base_model_name_or_path": "./gone"}))
    message = refusal(model_name_or_path=str(adapter), use_peft=True)
    assert (
        "is an adapter of './gone', which cannot be loaded from here (no such directory; correct the path)" in message
    )
    assert message.endswith(f"set model_name_or_path to its base model, and adapter_name_or_path={adapter}")
    (adapter / SETTINGS_NAME).write_text(json.dumps(settings | {"peft_type": "PREFIX_TUNING"}))
    assert "only LoRA adapters can be used" in given(adapter)
    (adapter / SETTINGS_NAME).write_text("{")
    assert "cannot be read" in given(adapter)
    shutil.copy(first / SETTINGS_NAME, adapter)
    (adapter / "adapter_model.safetensors").unlink()
    assert "it has no weights" in given(adapter)


@pytest.mark.parametrize("rows", [20, 400])
def test_an_adapter_of_another_model_is_refused(
    tmp_path: Path, make_model: Callable[..., None], model_dir: Path, shard_dir: Path, rows: int
) -> None:
    """Embeddings of another size, and layers that the model does not have."""
    make_model(tmp_path / "model", rows)
    line = ("--use_peft=true", "--max_steps=1")
    run(model_dir, shard_dir, tmp_path / "a", *line, "--lora_modules_to_save", "embed_tokens", "lm_head")
    PreTrainedTokenizerFast.from_pretrained(model_dir).save_pretrained(tmp_path / "model")
    settings = json.loads((tmp_path / "model" / "config.json").read_text())
    if rows == 20:  # its embedding grows to that of the adapter
        small = AutoModelForCausalLM.from_pretrained(tmp_path / "model", num_hidden_layers=1)
        small.save_pretrained(tmp_path / "model")
        assert settings["num_hidden_layers"] == 2
    named = f"--adapter_name_or_path={tmp_path / 'a'}"
    reason = "the model has no module for" if rows == 20 else "copying a param with shape"
    with pytest.raises(
        TrainingError, match=f"does not fit the model .*{reason}.*; set model_name_or_path to the model"
    ):
        run(tmp_path / "model", shard_dir, tmp_path / "b", *line, named)


def test_no_model_is_saved_beside_an_adapter(first: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="holds a LoRA adapter"):
        check_training_output(TrainConfig(output_dir=str(first)))
    copy = Path(shutil.copytree(first, tmp_path / "copy"))
    (copy / "training_logs.jsonl").unlink()
    with pytest.raises(OutputError, match=r"is the directory of the adapter \(adapter_name_or_path\)"):
        check_training_output(TrainConfig(output_dir=str(copy), adapter_name_or_path=(str(copy),), use_peft=True))
