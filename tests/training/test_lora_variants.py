"""LoRA variants: what is trained is what the saved adapter, and the merged model, give with the original base."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen3MoeConfig, Qwen3MoeForCausalLM, set_seed

from sftkit.errors import TrainingError
from sftkit.storage.adapter_files import SETTINGS_NAME, open_adapter

from .material import events, logged
from .test_trained_adapters import adapted, logits, refusal, run

pytestmark = pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="peft is not installed")

SHORT = ("--use_peft=true", "--max_steps=3", "--lora_r=4")


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory, model_dir: Path) -> Path:
    """A mixture of experts whose weights are one tensor for all experts."""
    folder = tmp_path_factory.mktemp("experts")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(model_dir)
    set_seed(5)
    settings = Qwen3MoeConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, moe_intermediate_size=16, num_experts=4,
        num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2, head_dim=16, num_experts_per_tok=2,
        max_position_embeddings=128, bos_token_id=None, eos_token_id=1, pad_token_id=None,
    )  # fmt: skip
    Qwen3MoeForCausalLM(settings).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        (("--use_rslora=true",), {"use_rslora": True, "r": 4}),
        (("--use_dora=true",), {"use_dora": True}),
        (("--init_lora_weights=gaussian",), {"init_lora_weights": "gaussian"}),
        (("--init_lora_weights=orthogonal",), {"init_lora_weights": "orthogonal"}),
        (("--init_lora_weights=pissa",), {"init_lora_weights": True, "r": 8, "lora_alpha": 64}),
        (("--init_lora_weights=pissa_niter_4", "--use_rslora=true"), {"r": 8, "lora_alpha": 32 * 2**0.5}),
        (("--init_lora_weights=olora", "--use_dora=true"), {"r": 8, "lora_alpha": 64}),
        (
            ("--init_lora_weights=pissa", "--lora_rank_pattern={q_proj: 2}", "--lora_alpha_pattern={q_proj: 3}"),
            {"r": 8, "rank_pattern": {"q_proj": 4}, "alpha_pattern": {"q_proj": 6}},
        ),
        (("--init_lora_weights=pissa", "--lora_modules_to_save", "lm_head"), {"modules_to_save": ["lm_head"]}),
    ],
)
def test_saved_adapter_and_merged_model_are_the_trained_model(
    tmp_path: Path, model_dir: Path, shard_dir: Path, variant: tuple[str, ...], expected: dict[str, Any]
) -> None:
    report = run(
        model_dir, shard_dir, tmp_path, *SHORT, *variant, "--merge_lora=true", "--do_eval=true", "--eval_strategy=no"
    )
    settings = json.loads((tmp_path / SETTINGS_NAME).read_text())
    for key, value in expected.items():
        assert settings[key] == (pytest.approx(value) if isinstance(value, float) else value), key
    whole = adapted(model_dir, tmp_path)
    torch.testing.assert_close(
        logits(AutoModelForCausalLM.from_pretrained(tmp_path / "merged")), logits(whole), rtol=1e-3, atol=1e-4
    )
    evaluated = run(tmp_path, shard_dir, tmp_path / "evaluated", "--do_train=false", "--do_eval=true")
    assert evaluated.eval_loss == pytest.approx(report.eval_loss, rel=1e-4)
    assert logged(tmp_path, "loss")[-1] < logged(tmp_path, "loss")[0]


def test_a_run_with_pissa_resumes_bit_equal_and_its_checkpoint_is_no_adapter(
    tmp_path: Path, model_dir: Path, shard_dir: Path
) -> None:
    line = (*SHORT, "--init_lora_weights=pissa_niter_2", "--save_strategy=steps", "--save_steps=1")
    run(model_dir, shard_dir, tmp_path / "whole", *line)
    shutil.copytree(tmp_path / "whole" / "checkpoint-1", tmp_path / "half" / "checkpoint-1")
    run(model_dir, shard_dir, tmp_path / "half", *line)
    assert logged(tmp_path / "half", "loss") == logged(tmp_path / "whole", "loss")[1:]
    weights = [open_adapter(str(tmp_path / name)).weights.read_bytes() for name in ("whole", "half")]
    assert weights[0] == weights[1]
    with pytest.raises(TrainingError, match="is a checkpoint of a run with init_lora_weights=pissa_niter_2"):
        run(tmp_path / "whole" / "checkpoint-1", shard_dir, tmp_path / "out", "--use_peft=true", "--max_steps=1")


def test_experts_whose_weights_are_one_tensor_get_adapters(tmp_path: Path, experts: Path, shard_dir: Path) -> None:
    named = ("--lora_target_parameters", "mlp.experts.down_proj", "--lora_target_modules", "q_proj")
    report = run(
        experts, shard_dir, tmp_path, *SHORT, *named, "--merge_lora=true", "--do_eval=true", "--eval_strategy=no"
    )
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    assert sum("experts" in name for name in tensors) == 4  # A and B in two layers
    assert sum("q_proj" in name for name in tensors) == 4
    evaluated = run(tmp_path / "merged", shard_dir, tmp_path / "evaluated", "--do_train=false", "--do_eval=true")
    assert evaluated.eval_loss == pytest.approx(report.eval_loss, rel=1e-4)
    again = run(tmp_path, shard_dir, tmp_path / "again", "--do_train=false", "--do_eval=true")
    assert again.eval_loss == pytest.approx(report.eval_loss, rel=1e-5)
    run(tmp_path, shard_dir, tmp_path / "further", "--use_peft=true", "--max_steps=1", "--learning_rate=0")
    assert (
        open_adapter(str(tmp_path / "further")).weights.read_bytes() == open_adapter(str(tmp_path)).weights.read_bytes()
    )


def test_matrices_b_have_the_learning_rate_of_lora_plus(tmp_path: Path, model_dir: Path, shard_dir: Path) -> None:
    plus = "--loraplus_lr_ratio=16"
    line = (*SHORT, "--max_steps=1", "--lr_scheduler_type=constant", "--learning_rate=1e-4")
    run(model_dir, shard_dir, tmp_path / "plain", *line)
    run(model_dir, shard_dir, tmp_path / "plus", *line, plus)
    plain, faster = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("plain", "plus"))
    for name, values in plain.items():  # B begins at zero, and Adam moves each number by the learning rate
        if "lora_B" in name:
            torch.testing.assert_close(faster[name], values * 16, rtol=1e-3, atol=1e-6)
    assert events(tmp_path / "plus")[0]["learning_rate/lora_B"] == pytest.approx(16e-4)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"use_peft": False, "use_dora": True}, "use_dora: only adapters have this; set use_peft=true"),
        ({"init_lora_weights": "eva"}, "init_lora_weights=eva looks at data before the run, which is not supported;"),
        ({"init_lora_weights": "loftq"}, "init_lora_weights=loftq is not supported"),
        (
            {"init_lora_weights": "piza"},
            "init_lora_weights must be one of gaussian, orthogonal, pissa, pissa_niter_16",
        ),
        ({"init_lora_weights": "orthogonal", "lora_r": 3}, "init_lora_weights=orthogonal needs an even lora_r, not 3"),
        (
            {"init_lora_weights": "pissa", "load_in_4bit": True},
            "init_lora_weights=pissa takes the first values of adapters out of the weights, which load_in_4bit",
        ),
        ({"lora_target_parameters": ("a",), "use_dora": True}, "use_dora=True does not work with lora_target_param"),
        ({"lora_target_parameters": ("a",), "lora_dropout": 0.1}, "lora_dropout=0.1 does not work with lora_target_p"),
        ({"lora_rank_pattern": {"q_proj": 0}}, "lora_rank_pattern.q_proj must be at least 1, not 0"),
        ({"lora_alpha_pattern": {"(": 2}}, "lora_alpha_pattern: '(' is not a regular expression"),
    ],
)
def test_settings_that_cannot_be_combined_are_refused(keys: dict[str, Any], message: str) -> None:
    assert refusal(**{"model_name_or_path": "sample:model", "use_peft": True, **keys}).startswith(message)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--lora_rank_pattern={q_prj: 2}",), "lora_rank_pattern: no module with an adapter matches 'q_prj'; .*q_proj"),
        (
            ("--lora_target_parameters", "experts.down"),
            "lora_target_parameters: the model has no parameter",
        ),
        (
            ("--init_lora_weights=pissa", "--lora_r=40"),
            "has no more than 32 parts to begin with; set lora_r to at",
        ),
    ],
)
def test_names_that_the_model_does_not_have_are_refused(
    tmp_path: Path, model_dir: Path, shard_dir: Path, argv: tuple[str, ...], message: str
) -> None:
    with pytest.raises(TrainingError, match=message):
        run(model_dir, shard_dir, tmp_path, *SHORT, *argv)


@pytest.mark.parametrize("setting", ["init_lora_weights=pissa", "lora_dropout=0.1", "use_dora=True"])
def test_what_adapters_of_experts_do_not_have_is_refused(
    tmp_path: Path, experts: Path, shard_dir: Path, setting: str
) -> None:
    said = f"{setting} does not work for experts whose weights are one tensor; remove it, or set lora_exclude_modules"
    with pytest.raises(TrainingError, match=said):
        run(experts, shard_dir, tmp_path, *SHORT, f"--{setting}")
