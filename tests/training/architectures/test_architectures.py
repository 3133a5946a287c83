"""A step over packs has the loss and gradient of their sequences, each computed alone by transformers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from training.material import Launch, run_launches
from training.test_run import run

from .layouts import layouts_of_page
from .sweep import ONE_BY_ONE, STEP, Computed, alone, layout_of, trained, write_rows_of_packs
from .tiny_models import NOT_TRAINED, architectures, tiny_model

SAMPLE = ("llama", "gemma3_text", "gpt_neo", "llama4_text", "deepseek_v4", "mixtral", "mamba2", "roberta", "cpmant")
LAYOUTS = layouts_of_page()
LONG_ROPE = {
    "rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0] * 4, "long_factor": [4.0] * 4,
    "original_max_position_embeddings": 32,
}  # fmt: skip
FAMILIES = {
    "dense": ("llama", {}),
    "window": ("gemma3_text", {}),
    "experts": ("mixtral", {}),
    "padded": ("gpt_oss", {}),
    "chunks": ("llama4_text", {}),
    "recurrent": ("mamba2", {}),
    "hybrid": ("qwen3_next", {}),
    "positions": ("gpt2", {}),
    "longrope": ("phi3", {"rope_parameters": LONG_ROPE, "original_max_position_embeddings": 32}),
}


@pytest.fixture(scope="session")
def packs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows_of_packs(tmp_path_factory.mktemp("packs"))


@pytest.fixture(scope="session")
def sequences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows_of_packs(tmp_path_factory.mktemp("sequences"), packed=False)


@pytest.fixture
def save(tmp_path: Path, model_dir: Path) -> Callable[..., Path]:
    """Saves a tiny model with a tokenizer."""

    def make(name: str, folder: str = "model", **overrides: object) -> Path:
        model = tmp_path / folder
        tiny_model(name, **overrides).save_pretrained(model)
        for file in ("tokenizer.json", "tokenizer_config.json"):
            (model / file).write_bytes((model_dir / file).read_bytes())
        return model

    return make


def expected(model: Path, packs: Path) -> Computed:
    return alone(AutoModelForCausalLM.from_pretrained(model, dtype="float32"), packs)


def assert_same(found: Computed, right: Computed) -> None:
    assert found.loss == pytest.approx(right.loss, rel=1e-5)
    assert found.norm == pytest.approx(right.norm, rel=1e-5)


@pytest.mark.architectures
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] if name in SAMPLE else []) for name in architectures()],
)
def test_a_step_has_the_loss_and_gradient_of_separate_sequences(
    name: str,
    tmp_path: Path,
    packs: Path,
    sequences: Path,
    save: Callable[..., Path],
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = save(name)
    one_by_one = LAYOUTS.get(name) == "one sequence"
    run(model, sequences if one_by_one else packs, tmp_path / "out", *(ONE_BY_ONE if one_by_one else STEP))
    assert layout_of(caplog.records) == LAYOUTS.get(name), "run python scripts/make_architectures.py"
    assert_same(trained(tmp_path / "out"), expected(model, packs))


@pytest.mark.slow
def test_two_processes_have_the_loss_and_gradient_of_separate_sequences(
    tmp_path: Path, packs: Path, save: Callable[..., Path]
) -> None:
    models = {family: save(name, family, **overrides) for family, (name, overrides) in FAMILIES.items()}
    launches = []
    for family, model in models.items():
        paths = f"--model_name_or_path={model} --training_data_path={packs} --output_dir={tmp_path / family}-out"
        launches.append(Launch((*paths.split(), *STEP), processes=2))
    run_launches(launches)
    for family, model in models.items():
        assert_same(trained(tmp_path / f"{family}-out"), expected(model, packs))


def test_the_page_has_every_architecture() -> None:
    assert LAYOUTS.keys() == {*architectures(), *NOT_TRAINED}
    assert {name for name, layout in LAYOUTS.items() if layout == "not tried"} == NOT_TRAINED.keys()
