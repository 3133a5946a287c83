"""Shards of a few conversations, with the columns of each trainer, and a tiny model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

import sftkit.sample
from support import dataset, handler, preprocess

MODEL = Path(sftkit.sample.__file__).parent / "model"
PACK_LENGTH = 300
CHAT = replace(
    handler("tokenize_and_apply_chat_template_with_masking", conversation_column="messages"),
    arguments={"remove_columns": "all", "fn_kwargs": {"conversation_column": "messages"}},
)


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Make shards of 16 conversations, or find those made before. Do not change them."""
    folder = tmp_path_factory.mktemp("interop")

    @cache
    def make(columns: str, *, packed: bool, **options: Any) -> Path:
        options |= {"packing": "bfd", "pack_length": PACK_LENGTH} if packed else {}
        path = folder / "-".join([columns, str(packed), *map(str, options.values())])
        preprocess(
            path, dataset("sample:conversations.jsonl", max_samples=16, data_handlers=[CHAT]),
            model_name_or_path="sample:model", parquet_columns=columns, staging_dir=str(folder / "staging"), **options,
        )  # fmt: skip
        return path

    return make


@pytest.fixture(scope="module")
def model() -> Any:
    """Without a cache, as every trainer sets it: with one, transformers reads no packs from positions."""
    torch.manual_seed(3)
    return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(MODEL, use_cache=False)).eval()


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(MODEL)


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
