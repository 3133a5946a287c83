"""LLaMA-Factory on our shards: its loader reads them from `tokenized_path`, and its collator makes the batches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import load_dataset

from interop.material import empty_modules, loss_of, sequences, trainer_module

trainer_module("llamafactory")

with empty_modules("torchaudio"):  # for sounds
    from llamafactory.data.collator import SFTDataCollatorWith4DAttentionMask
    from llamafactory.data.loader import get_dataset


def first_batch(path: Path, tokenizer: Any, rows: int, **options: Any) -> dict[str, Any]:
    """The first batch as `llamafactory.train.sft.workflow` makes it."""
    data_args = SimpleNamespace(tokenized_path=str(path), streaming=False)
    data = get_dataset(None, None, data_args, None, "sft", tokenizer=tokenizer)["train_dataset"]
    plugin = SimpleNamespace(image_token=None, audio_token=None, get_mm_inputs=lambda *_: {})
    collator = SFTDataCollatorWith4DAttentionMask(
        tokenizer=tokenizer, template=SimpleNamespace(mm_plugin=plugin), pad_to_multiple_of=8,
        label_pad_token_id=-100, **options,
    )  # fmt: skip
    return dict(collator([data[number] for number in range(rows)]))


@pytest.mark.parametrize(
    ("packed", "rows", "options"),
    [
        (False, 4, {"attn_implementation": "sdpa"}),
        (True, 4, {"block_diag_attn": True, "neat_packing": True, "attn_implementation": "sdpa"}),
        (True, 1, {"block_diag_attn": True, "neat_packing": True, "attn_implementation": "flash_attention_2"}),
    ],
)
def test_loss_is_that_of_each_sequence(
    shards: Callable[..., Path], model: Any, tokenizer: Any, tmp_path: Path, packed: bool, rows: int,
    options: dict[str, Any],
) -> None:  # fmt: skip
    load_dataset(str(shards("llamafactory", packed=packed))).save_to_disk(tmp_path / "tokenized")
    batch = first_batch(tmp_path / "tokenized", tokenizer, rows, **options)
    with torch.no_grad():
        found = model(**batch).loss.item()
    assert found == pytest.approx(loss_of(model, sequences(shards("sftkit", packed=packed), range(rows))), abs=1e-5)
