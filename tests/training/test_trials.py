"""What a model does with several sequences is tried beyond its windows, chunks and positions, whatever these are."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Phi3Config, Phi3ForCausalLM, PreTrainedModel, set_seed

from sftkit.errors import TrainingError
from sftkit.training.data.collation import FlatCollator, PaddingCollator
from sftkit.training.models.capabilities import Capabilities, probe_capabilities
from sftkit.training.setup.position_check import check_positions
from sftkit.training.trials.positions import most_positions
from sftkit.training.trials.sequence_rope import depends_on_length, use_sequence_rope
from sftkit.training.trials.short_spans import short_spans

from .architectures.tiny_models import POSITIONS, tiny_model
from .material import open_rows
from .test_padding_free import SHAPE, assert_same_gradients, one_by_one, sequences, together

LONG = {"attention_chunk_size": 8192, "floor_scale": 8192}


def tried(name: str, **overrides: Any) -> Capabilities:
    return probe_capabilities(tiny_model(name, **overrides))


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("llama4_text", LONG),
        ("deepseek_v4", {"sliding_window": 128, "index_topk": 512}),
        ("deepseek_v4", {"compress_rates": {"compressed_sparse_attention": 4, "heavily_compressed_attention": 128}}),
        ("gpt_neo", {"max_position_embeddings": 2048, "window_size": 256}),
        ("roberta", {}),
    ],
    ids=["chunks of 8,192", "compression by 4", "compression by 128", "2,048 positions", "positions that begin at 2"],
)
def test_a_model_that_mixes_sequences_far_into_a_row_is_padded(name: str, overrides: dict[str, Any]) -> None:
    capabilities = tried(name, **overrides)
    assert not capabilities.separates_sequences
    assert capabilities.ignores_padding


@pytest.mark.parametrize("name", ["mistral", "gemma3_text", "modernbert-decoder"])
def test_a_model_with_a_sliding_window_stays_flat(name: str) -> None:
    assert tried(name, sliding_window=4096).separates_sequences


def test_a_model_that_padding_disturbs_is_noticed() -> None:
    capabilities = tried("cpmant")
    assert not capabilities.separates_sequences
    assert not capabilities.ignores_padding


def test_spans_are_what_they_were_after_a_trial() -> None:
    model = tiny_model("llama4_text", **LONG)
    before = copy.deepcopy(model.config.to_dict())
    buffer = tiny_model("gpt_neo").transformer.h[0].attn.attention
    with short_spans(model) as span:
        assert model.config.attention_chunk_size < span
        assert model.model.layers[1].self_attn.floor_scale < span
    assert model.config.to_dict() == before
    assert model.model.layers[1].self_attn.floor_scale == 8192
    assert buffer.bias.shape[-1] == POSITIONS


def with_rope(kind: str) -> PreTrainedModel:
    """A model with 16 positions, and more by longrope or dynamic scaling."""
    set_seed(1)
    more = {"intermediate_size": 48, "num_key_value_heads": 2}
    if kind == "longrope":
        rope = {"rope_type": kind, "short_factor": [1.0] * 4, "long_factor": [4.0] * 4, "rope_theta": 10000.0}
        rope["original_max_position_embeddings"] = 12
        settings = Phi3Config(**SHAPE, **more, rope_parameters=rope, max_position_embeddings=48,
                              original_max_position_embeddings=12, pad_token_id=0, eos_token_id=1)  # fmt: skip
        return Phi3ForCausalLM(settings).train()
    rope = {"rope_type": kind, "factor": 4.0, "rope_theta": 10000.0}
    return LlamaForCausalLM(LlamaConfig(**SHAPE, **more, rope_parameters=rope, max_position_embeddings=12)).train()


@pytest.mark.parametrize("kind", ["longrope", "dynamic"])
def test_rotary_embeddings_are_those_of_each_sequence_by_itself(kind: str) -> None:
    rows = sequences(lengths=(5, 23, 12, 3, 13))
    expected = [one_by_one(with_rope(kind), [row]) for row in rows]
    model = with_rope(kind)
    assert depends_on_length(model)
    use_sequence_rope(model)
    trained = [int((row.labels.values[1:] != -100).sum()) for row in rows]
    loss = sum(loss * count for (loss, _), count in zip(expected, trained, strict=True)) / sum(trained)
    gradients = {
        name: sum(made[name] * count for (_, made), count in zip(expected, trained, strict=True)) / sum(trained)
        for name in expected[0][1]
    }
    for collate in (FlatCollator(True), PaddingCollator(True, 3, positions=True)):
        found, its_gradients = together(model, collate(rows))
        assert found == pytest.approx(loss, rel=1e-5)
        assert_same_gradients(its_gradients, gradients)


@pytest.mark.parametrize("kind", ["longrope", "dynamic"])
def test_a_long_sequence_changes_nothing_afterwards(kind: str) -> None:
    model = with_rope(kind)
    use_sequence_rope(model)
    short, long = sequences(lengths=(16, 40))
    with torch.no_grad():
        before = model(**FlatCollator()([short])).logits
        model(**FlatCollator()([long]))
        assert torch.equal(model(**FlatCollator()([short])).logits, before)


@pytest.mark.parametrize(
    ("name", "most"),
    [("gpt2", 128), ("gptj", 128), ("opt", 128), ("roberta", 127), ("mpt", 128), ("llama", None), ("bloom", None)],
)
def test_the_last_position_of_a_model_is_found(name: str, most: int | None) -> None:
    model = tiny_model(name)
    assert most_positions(model) == most
    with torch.no_grad():
        model(input_ids=torch.full((1, most or POSITIONS + 1), 5), use_cache=False)


def test_rows_beyond_the_positions_of_a_model_are_one_sentence_before_the_first_step(tmp_path: Path) -> None:
    rows = open_rows(tmp_path, [5, 20, 9, 17])
    model = tiny_model("gpt2", n_positions=16)
    with pytest.raises(
        TrainingError,
        match=r"train-00000.parquet:2: 20 tokens, but the model has 16 positions \(longer rows: 2\); "
        r"set max_seq_length=16 to cut them, and also overflow=drop to leave them out instead",
    ):
        check_positions(model, rows, None, None)
    with pytest.raises(TrainingError, match=r"17 tokens, but the model has 16 positions \(longer rows: 1\)"):
        check_positions(model, open_rows(tmp_path / "known", [5, 17]), 17, None)
    check_positions(model, rows, 20, 16)  # which are cut
    check_positions(tiny_model("gpt2"), rows, 20, None)
    check_positions(tiny_model("llama"), rows, None, None)
