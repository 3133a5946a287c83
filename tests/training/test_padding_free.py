"""Concatenated sequences give the loss and gradients of separate ones, and do not see each other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2MoeConfig,
    Qwen2MoeForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
    set_seed,
)

from sftkit.core.rows import Ragged
from sftkit.training.data.boundaries import flash_boundaries, position_boundaries, sequence_boundaries
from sftkit.training.data.collation import CollatedBatch, FlatCollator, PaddingCollator
from sftkit.training.data.rows.row_groups import TokenSequences
from sftkit.training.models.capabilities import Capabilities, capabilities_by_class, probe_capabilities
from sftkit.training.models.cross_entropy import summed_cross_entropy
from sftkit.training.models.sequence_attention import (
    passes_sliding_window,
    supports_sequence_attention,
    use_sequence_attention,
)

from .architectures.tiny_models import tiny_model

VOCABULARY = 97
LENGTHS = (11, 1, 2, 23, 7)
SHAPE = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
FAMILIES = {
    "llama": (LlamaForCausalLM, LlamaConfig, {"intermediate_size": 48, "num_key_value_heads": 2}),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config, {"intermediate_size": 48, "num_key_value_heads": 2, "head_dim": 8}),
}


SLIDING = (MistralForCausalLM, MistralConfig, {"intermediate_size": 48, "num_key_value_heads": 2, "sliding_window": 4})


def model_of(family: str, attention: str = "sdpa") -> PreTrainedModel:
    model_class, config_class, more = {**FAMILIES, "sliding": SLIDING}[family]
    set_seed(1)
    model = model_class(config_class(**SHAPE, **more, attn_implementation=attention, tie_word_embeddings=False))
    assert model.config._attn_implementation == attention
    return model.train()


def sequences(seed: int = 0, lengths: tuple[int, ...] = LENGTHS) -> list[TokenSequences]:
    generator = np.random.default_rng(seed)
    made = []
    for length in lengths:
        ids = generator.integers(0, VOCABULARY, length, np.int32)
        labels = np.where(generator.random(length) < 0.5, ids, np.int32(-100))
        labels[-1] = ids[-1]
        labels[0] = ids[0]  # carries no loss: nothing before it predicts it
        made.append(TokenSequences(Ragged.from_lists([ids]), Ragged.from_lists([labels])))
    return made


def one_by_one(model: PreTrainedModel, rows: list[TokenSequences]) -> tuple[float, dict[str, torch.Tensor]]:
    """Mean loss over the trained tokens, and its gradients, without any code of sftkit."""
    model.zero_grad()
    trained = sum(int((row.labels.values[1:] != -100).sum()) for row in rows)
    total = 0.0
    for row in rows:
        ids = torch.from_numpy(row.input_ids.values.astype(np.int64))[None]
        labels = torch.from_numpy(row.labels.values.astype(np.int64))[None]
        logits = model(input_ids=ids, use_cache=False).logits
        losses = torch.nn.functional.cross_entropy(
            logits[0, :-1].double(), labels[0, 1:], ignore_index=-100, reduction="sum"
        )
        (losses / trained).backward()
        total += float(losses.detach())
    return total / trained, {name: values.grad.clone() for name, values in model.named_parameters()}


def together(model: PreTrainedModel, batch: CollatedBatch) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad()
    loss = model(**batch, num_items_in_batch=torch.tensor(batch.counts.trained_tokens)).loss
    loss.backward()
    return float(loss), {name: values.grad.clone() for name, values in model.named_parameters()}


def assert_same_gradients(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert float((found[name] - values).norm()) <= 1e-5 * float(values.norm()), name


COLLATORS = {
    "flat": FlatCollator(trim_head=True),
    "flat, whole head": FlatCollator(trim_head=False),
    "padded": PaddingCollator(trim_head=True, pad_token_id=3),
    "padded, whole head": PaddingCollator(trim_head=False, pad_token_id=3),
}


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "gradient checkpointing"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", list(FAMILIES))
def test_batches_give_the_loss_and_gradients_of_separate_sequences(
    family: str, attention: str, checkpointing: bool
) -> None:
    model, rows = model_of(family, attention), sequences()
    loss, gradients = one_by_one(model, rows)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    for collate in COLLATORS.values():
        found, its_gradients = together(model, collate(rows))
        assert found == pytest.approx(loss, rel=1e-5)
        assert_same_gradients(its_gradients, gradients)


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "gradient checkpointing"])
@pytest.mark.parametrize("family", [*FAMILIES, "sliding"])
def test_sequence_attention_gives_the_loss_and_gradients_of_separate_sequences(
    family: str, checkpointing: bool
) -> None:
    rows = sequences()
    loss, gradients = one_by_one(model_of(family, "eager"), rows)
    model = model_of(family)
    assert supports_sequence_attention(model)
    assert not supports_sequence_attention(model_of(family, "eager"))
    use_sequence_attention(model)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    # The same model also takes batches that do not say where sequences end.
    for boundaries in (sequence_boundaries, position_boundaries):
        found, its_gradients = together(model, FlatCollator(trim_head=True, boundaries=boundaries)(rows))
        assert found == pytest.approx(loss, rel=1e-5)
        assert_same_gradients(its_gradients, gradients)
    assert probe_capabilities(model, sequence_boundaries) == Capabilities(True, True, True)
    prompt = torch.tensor([[5, 6, 7, 8, 9, 10, 11]])
    settings = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    expected = model_of(family, "eager").eval().generate(prompt, **settings)
    assert model.eval().generate(prompt, **settings).equal(expected)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", list(FAMILIES))
def test_no_sequence_sees_another(family: str, attention: str) -> None:
    model = model_of(family, attention).eval()
    collate = FlatCollator(trim_head=False)

    def logits(rows: list[TokenSequences]) -> torch.Tensor:
        batch = {name: values for name, values in collate(rows).items() if name != "labels"}
        with torch.no_grad():
            return model(**batch).logits[0]

    rows, others = sequences(), sequences(seed=10)
    ends = np.cumsum(LENGTHS)
    before = logits(rows)
    for changed in range(len(rows)):
        after = logits([others[i] if i == changed else row for i, row in enumerate(rows)])
        for number, (start, stop) in enumerate(zip(ends - LENGTHS, ends, strict=True)):
            same = torch.equal(before[start:stop], after[start:stop])
            assert same == (number != changed)


def test_the_head_runs_only_at_positions_that_predict_a_trained_token() -> None:
    model, rows = model_of("llama"), sequences()
    head_positions: list[int] = []
    model.lm_head.register_forward_hook(lambda module, inputs, output: head_positions.append(output.shape[1]))
    batch = COLLATORS["flat"](rows)
    together(model, batch)
    trained = sum(int((row.labels.values[1:] != -100).sum()) for row in rows)
    assert head_positions == [trained] == [batch.counts.trained_tokens] == [batch.counts.head_positions]
    assert trained < sum(LENGTHS)


def test_flash_attention_gets_the_boundaries_of_sequences() -> None:
    batch = FlatCollator(trim_head=True, boundaries=flash_boundaries)(sequences(lengths=(3, 1, 4)))
    assert batch["cu_seq_lens_q"].tolist() == batch["cu_seq_lens_k"].tolist() == [0, 3, 4, 8]
    assert str(batch["cu_seq_lens_q"].dtype) == "torch.int32"
    assert (batch["max_length_q"], batch["max_length_k"]) == (4, 4)
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 0, 1, 2, 3]]
    assert "attention_mask" not in batch


def item(ids: list[int], labels: list[int]) -> TokenSequences:
    return TokenSequences(Ragged.from_lists([ids]), Ragged.from_lists([labels]))


def test_flat_batch() -> None:
    rows = [item([1, 2, 3], [1, 2, 3]), item([4], [4]), item([5, 6, 7], [-100, -100, 7])]
    batch = FlatCollator(trim_head=False)(rows)
    assert batch["input_ids"].tolist() == [[1, 2, 3, 4, 5, 6, 7]]
    assert batch["labels"].tolist() == [[-100, 2, 3, -100, -100, -100, 7]]
    trimmed = FlatCollator(trim_head=True)(rows)
    assert trimmed["logits_to_keep"].tolist() == [0, 1, 5]
    assert trimmed["shift_labels"].tolist() == trimmed["labels"].tolist() == [[2, 3, 7]]
    counts = trimmed.counts
    assert (counts.tokens, counts.trained_tokens, counts.slots, counts.squared_lengths) == (7, 3, 7, 19)


def test_padded_batch() -> None:
    rows = [item([1, 2, 3], [-100, 2, 3]), item([4, 5], [4, 5])]
    batch = PaddingCollator(trim_head=False, pad_token_id=9)(rows)
    assert batch["input_ids"].tolist() == [[1, 2, 3, 9, 9, 9, 9, 9], [4, 5, 9, 9, 9, 9, 9, 9]]
    assert batch["labels"].tolist() == [[-100, 2, 3] + [-100] * 5, [-100, 5] + [-100] * 6]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0, 0, 0]]
    trimmed = PaddingCollator(trim_head=True, pad_token_id=9)(rows)
    assert trimmed["logits_to_keep"].tolist() == [0, 1]
    assert trimmed["shift_labels"].tolist() == [[2, 3], [5, -100]]
    assert (trimmed.counts.tokens, trimmed.counts.trained_tokens, trimmed.counts.slots) == (5, 3, 16)
    assert PaddingCollator(False, 9)([item(list(range(9)), list(range(9)))])["input_ids"].shape == (1, 16)


@pytest.mark.parametrize("name", list(COLLATORS))
def test_a_batch_without_rows_has_no_loss_and_zero_gradients(name: str) -> None:
    model = model_of("llama")
    batch = COLLATORS[name]([])
    loss = model(**batch, num_items_in_batch=torch.tensor(5)).loss
    loss.backward()
    assert float(loss) == 0
    assert all(values.grad is not None and not values.grad.any() for values in model.parameters())
    assert (batch.counts.tokens, batch.counts.trained_tokens) == (0, 0)


def test_capabilities_are_detected() -> None:
    all_capabilities = Capabilities(separates_sequences=True, supports_logits_to_keep=True, sums_loss=True)
    for family in FAMILIES:
        assert probe_capabilities(model_of(family)) == capabilities_by_class(model_of(family)) == all_capabilities
        assert probe_capabilities(model_of(family).to(torch.bfloat16)) == all_capabilities
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=64))
    assert probe_capabilities(gpt2).separates_sequences
    experts = Qwen3MoeForCausalLM(
        Qwen3MoeConfig(
            **SHAPE,
            moe_intermediate_size=16,
            num_experts=4,
            num_experts_per_tok=2,
            head_dim=8,
            output_router_logits=True,
        )
    )
    assert probe_capabilities(experts) == all_capabilities
    state_space = MambaForCausalLM(MambaConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2))
    assert not probe_capabilities(state_space).separates_sequences
    assert not capabilities_by_class(state_space).separates_sequences
    assert not capabilities_by_class(tiny_model("llama4_text")).separates_sequences


def test_a_sliding_window_that_is_only_in_the_mask_is_detected() -> None:
    assert passes_sliding_window(model_of("llama"))
    assert passes_sliding_window(model_of("sliding"))
    settings = {
        "moe_intermediate_size": 16,
        "shared_expert_intermediate_size": 16,
        "num_experts": 4,
        "num_key_value_heads": 2,
    }
    windowed = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 0}
    model = Qwen2MoeForCausalLM(Qwen2MoeConfig(**SHAPE, **settings, **windowed, num_experts_per_tok=2))
    assert not passes_sliding_window(model)
    assert model.config._attn_implementation == "sdpa"


def test_probing_changes_neither_the_model_nor_the_random_state() -> None:
    model = model_of("llama")
    before = {name: values.clone() for name, values in model.state_dict().items()}
    state = torch.random.get_rng_state()
    probe_capabilities(model)
    assert torch.equal(state, torch.random.get_rng_state())
    assert model.training
    assert all(torch.equal(before[name], values) for name, values in model.state_dict().items())
    assert all(values.grad is None for values in model.parameters())


class _MeanLoss(LlamaForCausalLM):
    """Its loss is the mean over the batch; it ignores `num_items_in_batch`."""

    def forward(self, *args: Any, num_items_in_batch: Any = None, labels: Any = None, **kwargs: Any) -> Any:
        return super().forward(*args, labels=labels, **kwargs)


def test_a_model_that_does_not_sum_its_loss_is_detected() -> None:
    config = LlamaConfig(**SHAPE, intermediate_size=48)
    found = probe_capabilities(_MeanLoss(config))
    assert (found.separates_sequences, found.sums_loss) == (True, False)


def test_summed_cross_entropy_is_divided_by_the_number_of_items() -> None:
    logits = torch.randn(2, 3, VOCABULARY)
    labels = torch.tensor([[1, -100, 2], [-100, -100, 5]])
    chosen = labels != -100
    expected = -logits[chosen].log_softmax(-1)[torch.arange(3), labels[chosen]].sum() / 7
    torch.testing.assert_close(summed_cross_entropy(logits, labels, torch.tensor(7), 0.0), expected)
