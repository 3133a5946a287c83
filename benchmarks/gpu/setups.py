"""Models with random weights and shards of generated conversations, for the benchmark on a GPU."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks import corpora

_TURNS = (1, 12)
"""Exchanges of a conversation, fewest and most: rows of about 30 to 1,000 tokens."""


@dataclass(frozen=True)
class Setup:
    """One model and how it is trained."""

    name: str
    sizes: Mapping[str, Any]
    """Values of its config."""
    settings: tuple[str, ...] = ()
    """Keys of `sftkit train`, `key=value`."""
    family: str = "qwen3"
    lora: bool = False
    checkpointing: bool = False
    packs: tuple[int, ...] = (4096, 8192)
    """Tokens of a pack."""
    limit: float = 60
    """Seconds of a contestant."""


@dataclass(frozen=True)
class Data:
    """Where shards are, and how many packs they have, by the length of a pack."""

    folder: Path
    packs: Mapping[int, int] = field(default_factory=dict)


_SMALL = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 2048}
TINY = (
    Setup("tiny", {**_SMALL, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}, packs=(256, 512)),
    Setup(
        "tiny LoRA",
        {**_SMALL, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2},
        settings=("use_peft=true",),
        lora=True,
        checkpointing=True,
        packs=(256,),
    ),
)

_QWEN3 = {"head_dim": 128, "num_attention_heads": 16, "num_key_value_heads": 8, "vocab_size": 151_936}
LARGE = (
    Setup(
        "Qwen3 0.6B, full",
        {
            **_QWEN3,
            "hidden_size": 1024,
            "intermediate_size": 3072,
            "num_hidden_layers": 28,
            "tie_word_embeddings": True,
        },
    ),
    Setup(
        "Qwen3 1.7B, full",
        {
            **_QWEN3,
            "hidden_size": 2048,
            "intermediate_size": 6144,
            "num_hidden_layers": 28,
            "tie_word_embeddings": True,
        },
    ),
    Setup(
        "Llama 3 8B, LoRA",
        {
            "vocab_size": 128_256,
            "hidden_size": 4096,
            "intermediate_size": 14_336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
        },
        settings=("use_peft=true", "torch_dtype=bfloat16"),
        family="llama",
        lora=True,
        checkpointing=True,
        limit=80,
    ),
)
"""Models that others publish figures of, by their sizes."""


def write_model(folder: Path, setup: Setup) -> Path:
    """Write the config of a model, without weights, and the bundled tokenizer."""
    from transformers import AutoConfig, AutoTokenizer

    from sftkit.sample import sample_path

    make: Any = AutoConfig.for_model
    make(setup.family, **setup.sizes, max_position_embeddings=16_384, eos_token_id=1).save_pretrained(folder)
    AutoTokenizer.from_pretrained(sample_path("sample:model")).save_pretrained(folder)
    return folder


def write_shards(folder: Path, conversations: int, pack: int | None) -> int:
    """Preprocess generated conversations, packed or not; returns the number of rows."""
    from sftkit.config.commands import PreprocessConfig
    from sftkit.core.progress import SilentProgress
    from sftkit.preprocessing.build import run
    from sftkit.preprocessing.planning import plan
    from sftkit.shards.reading import open_shards

    folder.mkdir(parents=True)
    source = folder / "conversations.jsonl"
    rows = corpora.conversations_of(conversations, _TURNS)
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    output = folder / "shards"
    config = PreprocessConfig(
        output_dir=str(output),
        training_data_path=(str(source),),
        model_name_or_path="sample:model",
        packing="none" if pack is None else "bfd",
        pack_length=pack,
    )
    run(plan(config), SilentProgress())
    manifest = open_shards(str(output)).manifest
    assert manifest is not None
    return manifest.splits["train"].rows


@contextmanager
def random_weights(dtype: str, device: str, *, saved: bool) -> Iterator[None]:
    """Let `sftkit train` make a model from its config on the device, and save nothing unless `saved`.

    Weights of 8 billion parameters would take a minute to write and to read, and are random either way.
    """
    import torch

    from sftkit.training.trainer import SftTrainer

    def make(config: Any, *_arguments: Any) -> Any:
        return random_model(Path(config.model_name_or_path), dtype, device)

    with mock.patch("sftkit.training.setup.model_setup.load_model", make), torch.random.fork_rng(devices=[]):
        if saved:
            yield
        else:
            with mock.patch.object(SftTrainer, "save_model", return_value=None):
                yield


def random_model(folder: Path, dtype: str, device: str, **given: Any) -> Any:
    """A model with random weights, made on the device."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, set_seed

    set_seed(0)
    make: Any = AutoModelForCausalLM.from_config
    with torch.device(device):
        return make(AutoConfig.from_pretrained(folder), dtype=getattr(torch, dtype), **given)
