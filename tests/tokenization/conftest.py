"""Tokenizers for tests of encoding."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from hard_texts import tokenizer_of
from sftkit.sample import sample_path
from sftkit.tokenization.encoding.fast.byte_level import BYTE_CHARACTERS
from sftkit.tokenization.loading.tokenizer_loading import TokenizerSpec, load_tokenizer


@pytest.fixture(scope="module")
def loaded(tokenizer_path: Callable[[str], str]) -> Callable[[str], Any]:
    return cache(lambda name: load_tokenizer(TokenizerSpec(tokenizer_path(name))))


@pytest.fixture(scope="module")
def state_of(tokenizer_path: Callable[[str], str]) -> Callable[[str], dict[str, Any]]:
    """Return a new copy of the content of tokenizer.json."""
    return lambda name: json.loads(Path(sample_path(tokenizer_path(name)), "tokenizer.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def all_pairs(state_of: Any) -> Any:
    """A tokenizer that merges any two bytes, so that nearly every wrong split gives other ids."""
    letters = BYTE_CHARACTERS
    pairs = [(first, second) for first in letters for second in letters]
    random.Random(4).shuffle(pairs)
    state = state_of("bpe")
    tokens = [*letters, *(first + second for first, second in pairs)]
    state["model"].update(vocab={token: i for i, token in enumerate(tokens)}, merges=pairs)
    return tokenizer_of(state, ("added_tokens", []))
