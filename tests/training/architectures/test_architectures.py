"""Every architecture with which transformers makes a causal language model is trained on as it computes alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from training.test_run import run

from .sweep import RUN, alone, save_tiny_model, trained, write_packs
from .tiny_models import VOCABULARY, architectures

SAMPLE = (
    "llama",
    "phi3",
    "gemma3_text",
    "gpt_neo",
    "llama4_text",
    "deepseek_v4",
    "mixtral",
    "mamba2",
    "qwen3_next",
    "roberta",
)


@pytest.fixture(scope="session")
def packs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_packs(tmp_path_factory.mktemp("packs"), VOCABULARY)


@pytest.mark.architectures
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SAMPLE else []) for name in architectures()]
)
def test_a_run_gives_the_loss_and_gradient_of_separate_sequences(
    name: str, tmp_path: Path, packs: Path, model_dir: Path
) -> None:
    model = tmp_path / "model"
    save_tiny_model(name, model)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (model / file).write_bytes((model_dir / file).read_bytes())
    expected = alone(AutoModelForCausalLM.from_pretrained(model, dtype="float32"), packs)
    run(model, packs, tmp_path / "out", *RUN)
    found = trained(tmp_path / "out")
    assert found.loss == pytest.approx(expected.loss, rel=1e-5)
    assert found.norm == pytest.approx(expected.norm, rel=1e-5)
