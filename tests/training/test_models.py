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
def test_embeddings_of_new_tokens_start_as_the_mean_of_the_known_ones(
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


def test_new_tokens_use_spare_rows_first(tmp_path: Path, make_model: Callable[..., None]) -> None:
    make_model(tmp_path, 20)
    model = load_model(config(tmp_path), arguments())
    before = model.get_input_embeddings().weight.detach().clone()
    fit_embeddings(model, tokens=18, known_tokens=16)
    after = model.get_input_embeddings().weight
    assert embedding_rows(model) == 20
    torch.testing.assert_close(after[16:18], before[:16].mean(0).expand(2, -1))
    torch.testing.assert_close(after[18:], before[18:])


def test_embeddings_do_not_change_if_every_token_is_known(tmp_path: Path, make_model: Callable[..., None]) -> None:
    make_model(tmp_path, 20)
    model = load_model(config(tmp_path), arguments())
    before = model.get_input_embeddings().weight.detach().clone()
    fit_embeddings(model, tokens=17, known_tokens=17)
    assert torch.equal(model.get_input_embeddings().weight, before)


def test_rows_can_be_added_to_a_meta_tensor(tmp_path: Path, make_model: Callable[..., None]) -> None:
    # With FSDP and cpu_ram_efficient_loading, all processes except the first have meta tensors.
    make_model(tmp_path, 20)
    settings = load_model(config(tmp_path), arguments()).config
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(settings)
    fit_embeddings(model, tokens=23, known_tokens=20)
    assert embedding_rows(model) == 23
    assert model.get_input_embeddings().weight.is_meta


def test_a_model_without_weights_is_initialized_only_on_request(
    tmp_path: Path, model_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copy(model_dir / "config.json", tmp_path)
    with pytest.raises(TrainingError, match=r"has a config\.json but no weights; set init_from_config=true"):
        load_model(config(tmp_path), arguments())
    model = load_model(config(tmp_path, init_from_config=True), arguments())
    assert embedding_rows(model) == json.loads((tmp_path / "config.json").read_text())["vocab_size"]
    assert [record.message for record in caplog.records] == [
        f"{tmp_path} has no weights: the model starts from random ones (seed 42)"
    ]


def test_the_data_type_is_float32_by_default(model_dir: Path) -> None:
    assert load_model(config(model_dir), arguments()).dtype == torch.float32
    assert load_model(config(model_dir, torch_dtype="bfloat16"), arguments()).dtype == torch.bfloat16


def test_flash_attention_without_a_gpu_falls_back_to_sdpa_with_a_warning(
    model_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = load_model(config(model_dir, use_flash_attn=True), arguments())
    assert model.config._attn_implementation == "sdpa"
    assert [record.message for record in caplog.records] == [
        "use_flash_attn: there is no GPU; SDPA attention is used instead"
    ]


def test_attn_implementation_decides_the_attention(model_dir: Path) -> None:
    model = load_model(config(model_dir, attn_implementation="eager", use_flash_attn=True), arguments())
    assert model.config._attn_implementation == "eager"


HOPPER, AMPERE, TURING, BLACKWELL = (9, 0), (8, 6), (7, 5), (10, 0)


@pytest.mark.parametrize(
    ("context", "expected"),
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
            "it only computes in 16 bits",
        ),
    ],
)
def test_flash_attention_needs_a_recent_gpu_a_package_and_16_bits(
    context: AttentionContext, expected: str | None
) -> None:
    found = flash_obstacle(context)
    assert found is None if expected is None else found is not None and found.startswith(expected)


@pytest.mark.parametrize(
    ("context", "requested", "supported", "expected"),
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
def test_attention_depends_on_the_machine_the_model_and_the_request(
    context: AttentionContext, requested: bool, supported: bool | None, expected: str | None
) -> None:
    model_class = None if supported is None else type("Model", (), {"_supports_flash_attn": supported})
    assert attention_for(context, model_class, requested=requested) == expected


def test_there_is_no_warning_about_attention_without_a_request(
    model_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert load_model(config(model_dir), arguments()).config._attn_implementation == "sdpa"
    assert caplog.messages == []


@pytest.mark.parametrize("name", ["/no/such/model", "no-such/model-anywhere"])
def test_a_missing_model_is_one_sentence(name: str) -> None:
    with pytest.raises(TrainingError, match=f"model '{name}' cannot be loaded: ") as raised:
        load_model(config(name), arguments())
    assert "\n" not in str(raised.value)


def test_incomplete_weights_are_refused(tmp_path: Path, make_model: Callable[..., None]) -> None:
    make_model(tmp_path, 20)
    settings = json.loads((tmp_path / "config.json").read_text()) | {"num_hidden_layers": 3}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(TrainingError, match="not a complete LlamaForCausalLM: 9 tensors are missing"):
        load_model(config(tmp_path), arguments())


def test_the_tokenizer_fixture_matches_the_model_fixture(model_dir: Path) -> None:
    assert len(PreTrainedTokenizerFast.from_pretrained(model_dir)) == embedding_rows(
        load_model(config(model_dir), arguments())
    )
