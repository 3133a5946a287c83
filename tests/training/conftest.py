"""Fixtures: a tokenizer, a model and shards of a few rows, made locally."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, set_seed

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # tests must not use the network

TEMPLATE = "{% for m in messages %}<s>{{ m.role }}\n{{ m.content }}</s>{% endfor %}"
TEXTS = ["the cat sat on the mat", "a dog ran in the park", "the sun is up and the cat is out"]


def _make_tokenizer(folder: Path, texts: Sequence[str] = TEXTS) -> Path:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    return folder


def _make_model(folder: Path, rows: int, *, tied: bool = False) -> None:
    set_seed(7)
    settings = LlamaConfig(
        vocab_size=rows,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=tied,
        bos_token_id=None,
        eos_token_id=1,
    )
    LlamaForCausalLM(settings).save_pretrained(folder)


def _write_rows(path: Path, input_ids: Sequence[Sequence[int]], labels: Sequence[Sequence[int]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = pa.list_(pa.int32())
    pq.write_table(pa.table({"input_ids": pa.array(input_ids, kind), "labels": pa.array(labels, kind)}), path)


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama with weights, and its tokenizer of at most 300 tokens."""
    folder = tmp_path_factory.mktemp("model")
    _make_tokenizer(folder)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    _make_model(folder, len(tokenizer))
    return folder


@pytest.fixture(scope="session")
def shard_dir(tmp_path_factory: pytest.TempPathFactory, model_dir: Path) -> Path:
    """24 training rows and 3 validation rows; the first third of each row is not trained."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(model_dir)
    ids = [tokenizer(text + "</s>")["input_ids"] for text in TEXTS]
    labels = [[-100] * (len(row) // 3) + row[len(row) // 3 :] for row in ids]
    folder = tmp_path_factory.mktemp("shards")
    _write_rows(folder / "train-00000-of-00001.parquet", ids * 8, labels * 8)
    _write_rows(folder / "validation-00000-of-00001.parquet", ids, labels)
    return folder


@pytest.fixture(scope="session")
def write_rows() -> Callable[[Path, Sequence[Sequence[int]], Sequence[Sequence[int]]], None]:
    """Writes one Parquet file of `input_ids` and `labels`."""
    return _write_rows


@pytest.fixture(scope="session")
def make_model() -> Callable[..., None]:
    """Saves a tiny Llama with a given number of embedding rows."""
    return _make_model


@pytest.fixture(scope="session")
def make_tokenizer() -> Callable[..., Path]:
    """Trains and saves a byte-level BPE tokenizer on some texts."""
    return _make_tokenizer
