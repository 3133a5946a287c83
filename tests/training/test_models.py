from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, TrainingArguments

from sftkit.config.commands import TrainConfig
from sftkit.errors import TrainingError
from sftkit.training.models.attention import AttentionContext, attention_for, flash_obstacle
from sftkit.training.models.model_loading import embedding_rows, fit_embeddings, load_model


def arguments(**given: Any) -> TrainingArguments:
    return TrainingArguments(output_dir="out", use_cpu=True, **given)


def config(model: Path | str, **given: Any) -> TrainConfig:
    return TrainConfig(output_dir="out", model_name_or_path=str(model), **given)


@pytest.mark.parametrize("tied", [False, True])
def test_new_rows_start_as_the_mean_of_the_old_ones(
    tmp_path: Path, make_model: Callable[..., None], tied: bool
) -> None:
    make_model(tmp_path, 20, tied=tied)
    model = load_model(config(tmp_path), arguments())
    before = model.get_input_embeddings().weight.detach().clone()
    head = model.get_output_embeddings().weight.detach().clone()
    fit_embeddings(model, tokens=23, known_tokens=20)
    after, new_head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    assert embedding_rows(model) == model.config.vocab_size == 23
    torch.testing.assert_close(after[:20], before)
    torch.testing.assert_close(after[20:], before.mean(0).expand(3, -1))
    torch.testing.assert_close(new_head[20:], head.mean(0).expand(3, -1))
    assert (after is new_head) == tied


def test_new_tokens_take_spare_rows_first(tmp_path: Path, make_model: Callable[..., None]) -> None:
    make_model(tmp_path, 20)
    model = load_model(config(tmp_path), arguments())
    before = model.get_input_embeddings().weight.detach().clone()
    fit_embeddings(model, tokens=18, known_tokens=16)
    after = model.get_input_embeddings().weight
    assert embedding_rows(model) == 20
    torch.testing.assert_close(after[16:18], before[:16].mean(0).expand(2, -1))
    torch.testing.assert_close(after[18:], before[18:])


def test_nothing_changes_when_every_token_is_known(tmp_path: Path, make_model: Callable[..., None]) -> None:
    make_model(tmp_path, 20)
    model = load_model(config(tmp_path), arguments())
    before = model.get_input_embeddings().weight.detach().clone()
    fit_embeddings(model, tokens=17, known_tokens=17)
    assert torch.equal(model.get_input_embeddings().weight, before)


def test_an_embedding_without_values_can_be_fitted(tmp_path: Path, make_model: Callable[..., None]) -> None:
    # Under FSDP with cpu_ram_efficient_loading all processes but the first hold meta tensors.
    make_model(tmp_path, 20)
    settings = load_model(config(tmp_path), arguments()).config
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(settings)
    fit_embeddings(model, tokens=23, known_tokens=20)
    assert embedding_rows(model) == 23
    assert model.get_input_embeddings().weight.is_meta


def test_a_config_without_weights_is_initialised_only_when_asked(
    tmp_path: Path, model_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copy(model_dir / "config.json", tmp_path)
    with pytest.raises(TrainingError, match=r"holds a config\.json and no weights; init_from_config=true"):
        load_model(config(tmp_path), arguments())
    model = load_model(config(tmp_path, init_from_config=True), arguments())
    assert embedding_rows(model) == json.loads((tmp_path / "config.json").read_text())["vocab_size"]
    assert [record.message for record in caplog.records] == [
        f"{tmp_path} holds no weights: the model starts from random ones (seed 42)"
    ]


def test_the_data_type_is_float32_unless_given(model_dir: Path) -> None:
    assert load_model(config(model_dir), arguments()).dtype == torch.float32
    assert load_model(config(model_dir, torch_dtype="bfloat16"), arguments()).dtype == torch.bfloat16


def test_flash_attention_without_a_gpu_is_sdpa_and_said_once(model_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = load_model(config(model_dir, use_flash_attn=True), arguments())
    assert model.config._attn_implementation == "sdpa"
    assert [record.message for record in caplog.records] == [
        "use_flash_attn: there is no GPU; SDPA attention is used instead"
    ]


def test_the_attention_that_is_named_is_used(model_dir: Path) -> None:
    model = load_model(config(model_dir, attn_implementation="eager", use_flash_attn=True), arguments())
    assert model.config._attn_implementation == "eager"


HOPPER, AMPERE, TURING, BLACKWELL = (9, 0), (8, 6), (7, 5), (10, 0)


@pytest.mark.parametrize(
    ("around", "expected"),
    [
        (AttentionContext(HOPPER, half_precision=True, has_flash_2=True, has_flash_3=True), None),
        (AttentionContext(HOPPER, half_precision=True, has_flash_2=False, has_flash_3=True), None),
        (AttentionContext(AMPERE, half_precision=True, has_flash_2=True, has_flash_3=False), None),
        (
            AttentionContext(None, half_precision=True, has_flash_2=True, has_flash_3=True),
            "there is no GPU",
        ),
        (
            AttentionContext(TURING, half_precision=True, has_flash_2=True, has_flash_3=True),
            "the GPU is older than Ampere",
        ),
        (
            AttentionContext(AMPERE, half_precision=True, has_flash_2=False, has_flash_3=True),
            "flash-attn is not installed",
        ),
        (
            AttentionContext(BLACKWELL, half_precision=True, has_flash_2=False, has_flash_3=True),
            "flash-attn is not installed",
        ),
        (
            AttentionContext(HOPPER, half_precision=True, has_flash_2=False, has_flash_3=False),
            "flash-attn is not installed",
        ),
        (
            AttentionContext(AMPERE, half_precision=False, has_flash_2=True, has_flash_3=True),
            "it computes in 16 bits only",
        ),
    ],
)
def test_flash_attention_needs_a_gpu_that_can_a_package_and_16_bits(
    around: AttentionContext, expected: str | None
) -> None:
    found = flash_obstacle(around)
    assert found is None if expected is None else found is not None and found.startswith(expected)


@pytest.mark.parametrize(
    ("around", "asked", "supported", "expected"),
    [
        (
            AttentionContext(HOPPER, half_precision=True, has_flash_2=True, has_flash_3=True),
            False,
            True,
            "flash_attention_3",
        ),
        (
            AttentionContext(AMPERE, half_precision=True, has_flash_2=True, has_flash_3=True),
            False,
            True,
            "flash_attention_2",
        ),
        (
            AttentionContext(AMPERE, half_precision=True, has_flash_2=True, has_flash_3=False),
            False,
            False,
            None,
        ),
        (
            AttentionContext(AMPERE, half_precision=True, has_flash_2=True, has_flash_3=False),
            True,
            False,
            "sdpa",
        ),
        (
            AttentionContext(AMPERE, half_precision=False, has_flash_2=True, has_flash_3=False),
            False,
            True,
            None,
        ),
        (
            AttentionContext(AMPERE, half_precision=True, has_flash_2=True, has_flash_3=False),
            False,
            None,
            None,
        ),
        (
            AttentionContext(AMPERE, half_precision=True, has_flash_2=True, has_flash_3=False),
            True,
            None,
            "flash_attention_2",
        ),
    ],
)
def test_attention_is_chosen_by_what_is_there_and_what_the_model_can(
    around: AttentionContext, asked: bool, supported: bool | None, expected: str | None
) -> None:
    known = None if supported is None else type("Model", (), {"_supports_flash_attn": supported})
    assert attention_for(around, known, asked=asked) == expected


def test_nothing_is_said_about_attention_that_nobody_asked_for(
    model_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert load_model(config(model_dir), arguments()).config._attn_implementation == "sdpa"
    assert caplog.messages == []


@pytest.mark.parametrize("name", ["/no/such/model", "no-such/model-anywhere"])
def test_a_model_that_is_not_there_is_one_sentence(name: str) -> None:
    with pytest.raises(TrainingError, match=f"model '{name}' cannot be loaded: ") as raised:
        load_model(config(name), arguments())
    assert "\n" not in str(raised.value)


def test_weights_that_are_not_whole_are_refused(tmp_path: Path, make_model: Callable[..., None]) -> None:
    make_model(tmp_path, 20)
    settings = json.loads((tmp_path / "config.json").read_text()) | {"num_hidden_layers": 3}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(TrainingError, match="not a whole LlamaForCausalLM: 9 tensors are missing"):
        load_model(config(tmp_path), arguments())


def test_the_tokenizer_fixture_fits_the_model_fixture(model_dir: Path) -> None:
    assert len(PreTrainedTokenizerFast.from_pretrained(model_dir)) == embedding_rows(
        load_model(config(model_dir), arguments())
    )
