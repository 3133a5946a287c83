"""What a run changes about a model when it is loaded: quantization, values of its config, scaling of its positions."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GptOssConfig, GptOssForCausalLM, TrainingArguments, set_seed

from sftkit.config.commands import TrainConfig
from sftkit.errors import ConfigError, SftkitError, TrainingError
from sftkit.training.loading.model_settings import check_stored_quantization, quantization_arguments
from sftkit.training.models.model_loading import load_model

from .test_run import prepared, run

MXFP4 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
"""Magnitudes of 4-bit numbers, OCP Microscaling Formats 1.0; the fourth bit is the sign."""


def arguments(**given: Any) -> TrainingArguments:
    return TrainingArguments(output_dir="out", use_cpu=True, **given)


def config(model: Path, **given: Any) -> TrainConfig:
    return TrainConfig(output_dir="out", model_name_or_path=str(model), **given)


def change_config(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_weights_in_8_bit_floats_are_converted_back(
    tmp_path: Path, make_model: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    make_model(tmp_path, 20)
    stored, expected = {}, {}
    for name, values in load_file(tmp_path / "model.safetensors").items():
        stored[name] = expected[name] = values
        if "proj" in name:
            stored[name] = (values * 4).to(torch.float8_e4m3fn)
            scale = torch.rand(values.shape[0] // 16, values.shape[1] // 16) + 0.5
            stored[f"{name}_scale_inv"] = scale
            expected[name] = stored[name].float() * scale.repeat_interleave(16, 0).repeat_interleave(16, 1)
    save_file(stored, tmp_path / "model.safetensors", {"format": "pt"})
    change_config(tmp_path, quantization_config={"quant_method": "fp8", "weight_block_size": [16, 16]})
    check_stored_quantization(config(tmp_path))
    found = load_model(config(tmp_path), arguments())
    for name, values in expected.items():
        assert torch.equal(found.state_dict()[name], values), name
    assert "are quantized (fp8): they are converted back to be trained" in caplog.text
    assert getattr(found.config, "quantization_config", None) is None


def test_experts_in_4_bit_floats_are_converted_back(tmp_path: Path) -> None:
    set_seed(5)
    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "head_dim": 16}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "num_local_experts": 4, "num_experts_per_tok": 2}
    GptOssForCausalLM(GptOssConfig(**sizes, **heads, eos_token_id=1, pad_token_id=0)).save_pretrained(tmp_path)
    stored, expected = load_file(tmp_path / "model.safetensors"), {}
    for name in [name for name in stored if name.endswith(("gate_up_proj", "down_proj"))]:
        experts, inputs, outputs = stored.pop(name).shape
        blocks = torch.randint(0, 256, (experts, outputs, inputs // 32, 16), dtype=torch.uint8)
        scales = torch.randint(120, 128, (experts, outputs, inputs // 32), dtype=torch.uint8)
        stored |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
        numbers = torch.tensor([*MXFP4, *(-number for number in MXFP4)])
        pairs = torch.stack([numbers[blocks.long() & 15], numbers[blocks.long() >> 4]], -1).flatten(-2)
        scaled = pairs * torch.exp2(scales.float() - 127)[..., None]
        expected[name] = scaled.flatten(-2).transpose(1, 2)
    save_file(stored, tmp_path / "model.safetensors", {"format": "pt"})
    change_config(tmp_path, quantization_config={"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]})
    found = load_model(config(tmp_path), arguments()).state_dict()
    assert len(expected) == 2
    for name, values in expected.items():
        assert torch.equal(found[name], values), name


@pytest.mark.parametrize(
    ("stored", "given", "message"),
    [
        ({"quant_method": "gptq", "bits": 4}, {}, r"\(gptq\) and cannot be trained in full; set use_peft=true"),
        ({"load_in_4bit": True}, {}, r"\(bitsandbytes\) and cannot be trained in full; set use_peft=true"),
        ({"quant_method": "nvfp4"}, {"use_peft": True}, r"\(nvfp4\), which transformers can neither train nor undo"),
        ({"quant_method": "awq"}, {"load_in_4bit": True}, r"load_in_4bit: the weights of .* are quantized already"),
        ({"quant_method": "mxfp4"}, {"load_in_4bit": True}, r"load_in_4bit: the weights of .* are quantized already"),
    ],
)
def test_a_quantized_model_that_cannot_be_trained_is_refused_before_it_is_loaded(
    tmp_path: Path, stored: dict[str, Any], given: dict[str, Any], message: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "quantization_config": stored}))
    with pytest.raises(TrainingError, match=message):
        check_stored_quantization(config(tmp_path, **given))


@pytest.mark.parametrize("stored", [None, {"quant_method": "mxfp4"}, {"quant_method": "gptq"}])
def test_adapters_to_a_quantized_model_are_not_refused(tmp_path: Path, stored: Any) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "quantization_config": stored}))
    check_stored_quantization(config(tmp_path, use_peft=True))


def test_8_bits_are_passed_to_transformers(tmp_path: Path, make_model: Callable[..., None]) -> None:
    make_model(tmp_path, 20)
    settings = config(tmp_path, use_peft=True, quantization_config={"load_in_8bit": True, "llm_int8_threshold": 5.0})
    found = quantization_arguments(settings, arguments(), AutoModelForCausalLM.from_pretrained(tmp_path).config)
    assert (found["quantization_config"].load_in_8bit, found["quantization_config"].llm_int8_threshold) == (True, 5.0)
    assert found["device_map"] == {"": torch.device("cpu")}


def test_arguments_that_a_quantization_lacks_are_an_error_of_the_config(
    tmp_path: Path, make_model: Callable[..., None]
) -> None:
    make_model(tmp_path, 20)
    settings = config(tmp_path, use_peft=True, quantization_config={"quant_method": "gptq"})
    with pytest.raises(ConfigError, match=r"quantization_config: .*bits"):
        load_model(settings, arguments())


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--quantization_config={load_in_8bit: true}", "only adapters to it can be trained; set use_peft=true"),
        ("--quantization_config={bits: 8}", "quantization_config says neither load_in_8bit nor quant_method"),
        ("--model_kwargs={dtype: bfloat16}", "model_kwargs: dtype has a key of its own; set torch_dtype instead"),
        ("--model_kwargs={device_map: auto}", "model_kwargs: device_map is decided by the run; remove it"),
        (
            "--rope_scaling={rope_type: yarn}",
            "rope_scaling: yarn needs a factor; write rope_scaling={rope_type: yarn, factor: 4.0}",
        ),
        (
            "--rope_scaling={factor: 2}",
            "rope_scaling needs rope_type; write rope_scaling={rope_type: yarn, factor: 4.0}",
        ),
        ("--rope_scaling={rope_type: yarn, factor: x}", "rope_scaling: factor must be a number, not 'x'"),
        ("--rope_scaling={rope_type: linear, factor: 0.5}", "rope_scaling: factor must be 1 or more, not 0.5"),
        ("--rope_scaling={rope_type: linear, factor: true}", "rope_scaling: factor must be a number, not True"),
        ("--rope_scaling={rope_type: yarn, factor: 2, foo: 3}", "rope_scaling: yarn has no foo; remove it"),
        (
            "--rope_scaling={rope_type: yarn, factor: 2, beta_fats: 3}",
            "rope_scaling: yarn has no beta_fats (did you mean 'beta_fast'?); remove it",
        ),
        (
            "--rope_scaling={rope_type: yarn, factor: 2, original_max_position_embeddings: 0.5}",
            "rope_scaling: original_max_position_embeddings must be a whole number above 0, not 0.5",
        ),
        ("--rope_scaling={rope_type: [yarn]}", "rope_scaling: rope_type must be a name such as yarn, not ['yarn']"),
        (
            "--rope_scaling={rope_type: llama3, factor: 2, low_freq_factor: 4, high_freq_factor: 1}",
            "rope_scaling: high_freq_factor must be more than low_freq_factor (4), not 1",
        ),
        (
            "--rope_scaling={rope_type: longrope, short_factor: 1}",
            "rope_scaling: short_factor must be a list of numbers, not 1",
        ),
        (
            "--quantization_config={quant_method: foo}",
            "quantization_config: quant_method 'foo' is unknown; use one of ",
        ),
        (
            "--quantization_config={quant_method: bitsandbytes}",
            "quant_method=bitsandbytes needs a number of bits; add load_in_8bit: true, or load_in_4bit: true",
        ),
    ],
)
def test_contradictions_are_refused_before_anything_is_loaded(
    tmp_path: Path, model_dir: Path, line: str, message: str
) -> None:
    with pytest.raises(SftkitError, match=re.escape(message)):
        prepared(model_dir, tmp_path / "out", line)


def test_values_of_the_config_can_be_changed(tmp_path: Path, make_model: Callable[..., None]) -> None:
    make_model(tmp_path, 20)
    model: Any = load_model(config(tmp_path, model_kwargs={"rms_norm_eps": 0.5, "use_safetensors": True}), arguments())
    assert model.model.norm.variance_epsilon == 0.5
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match="model_kwargs: the config of this model has no use_safetensors; remove it"):
        load_model(config(tmp_path, init_from_config=True, model_kwargs={"use_safetensors": True}), arguments())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"no_such_value": 1}, "the config of MODEL has no no_such_value; remove it"),
        ({"rms_norm_epz": 1}, "the config of MODEL has no rms_norm_epz (did you mean 'rms_norm_eps'?); remove it"),
        ({"save_pretrained": 1}, "the config of MODEL has no save_pretrained"),
        ({"variant": "fp16"}, "the model cannot be loaded with variant='fp16': "),
        ({"vocab_size": "x"}, "vocab_size cannot be 'x': Field 'vocab_size' expected int, got str (value: 'x')"),
        (
            {"rms_norm_eps": 0.5, "hidden_act": "foo"},
            "the model cannot be made with hidden_act='foo': 'foo' is unknown",
        ),
        (
            {"rms_norm_eps": 0.5, "intermediate_size": 12},
            "the weights in MODEL do not fit with intermediate_size=12 (they have intermediate_size=",
        ),
        ({"num_hidden_layers": 5}, "the weights in MODEL do not fit with num_hidden_layers=5 (they have num_hidden_"),
    ],
)
def test_entries_of_model_kwargs_that_cannot_be_used_are_named(
    model_dir: Path, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        load_model(config(model_dir, model_kwargs=given), arguments())
    assert str(raised.value).startswith(f"model_kwargs: {message.replace('MODEL', str(model_dir))}")


def test_weights_that_are_damaged_are_not_blamed_on_model_kwargs(
    tmp_path: Path, make_model: Callable[..., None]
) -> None:
    make_model(tmp_path, 20)
    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(TrainingError, match="cannot be loaded"):
        load_model(config(tmp_path, model_kwargs={"rms_norm_eps": 0.5}), arguments())


@pytest.mark.parametrize("kind", ["yarn", "linear", "llama3"])
def test_positions_are_scaled(tmp_path: Path, make_model: Callable[..., None], kind: str) -> None:
    make_model(tmp_path, 20)
    scaling = {"rope_type": kind, "factor": 4.0}
    if kind == "llama3":
        scaling |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    found: Any = load_model(config(tmp_path, rope_scaling=scaling), arguments())
    assert found.config.max_position_embeddings == 512  # 4 times 128
    assert found.config.rope_parameters["rope_theta"] == 10000.0
    change_config(
        tmp_path,
        rope_parameters=scaling | {"rope_theta": 10000.0, "original_max_position_embeddings": 128},
        max_position_embeddings=512,
    )
    expected: Any = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(found.model.rotary_emb.inv_freq, expected.model.rotary_emb.inv_freq)
    assert found.model.rotary_emb.attention_scaling == expected.model.rotary_emb.attention_scaling


def test_a_scaling_that_transformers_does_not_take_is_an_error(tmp_path: Path, make_model: Callable[..., None]) -> None:
    make_model(tmp_path, 20)
    with pytest.raises(ConfigError, match=r"rope_scaling: .*low_freq_factor"):
        load_model(config(tmp_path, rope_scaling={"rope_type": "llama3", "factor": 2.0}), arguments())
    with pytest.raises(ConfigError, match=r"rope_scaling: rope_type must be one of default, linear, .*, not 'longer'"):
        load_model(config(tmp_path, rope_scaling={"rope_type": "longer", "factor": 2.0}), arguments())


def test_the_trained_model_keeps_its_scaling(tmp_path: Path, model_dir: Path, shard_dir: Path) -> None:
    given = ("--max_steps=1", "--embedding_size_multiple_of=64")
    run(model_dir, shard_dir, tmp_path / "out", *given, "--rope_scaling={rope_type: yarn, factor: 2.0}")
    saved = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (saved["rope_parameters"]["rope_type"], saved["max_position_embeddings"]) == ("yarn", 256)
    assert saved["vocab_size"] % 64 == 0


@pytest.mark.parametrize("tied", [False, True])
def test_the_embedding_of_merged_adapters_is_a_multiple(
    tmp_path: Path, model_dir: Path, shard_dir: Path, tied: bool
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model_dir, folder)
    if tied:
        weights = load_file(folder / "model.safetensors")
        del weights["lm_head.weight"]
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
        change_config(folder, tie_word_embeddings=True)
    adapters = ("--use_peft=true", "--merge_lora=true", "--embedding_size_multiple_of=64")
    run(folder, shard_dir, tmp_path / "out", "--max_steps=1", *adapters)
    merged: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "merged")
    rows = merged.get_input_embeddings().weight.shape[0]
    assert rows % 64 == 0
    assert rows == merged.lm_head.weight.shape[0] == merged.config.vocab_size
    assert (merged.lm_head.weight is merged.get_input_embeddings().weight) == tied
