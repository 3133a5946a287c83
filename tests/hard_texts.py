"""Texts that are difficult to tokenize, tokenizers with changed settings, and comparisons of two encoders."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from sftkit.core.rows import Ragged
from sftkit.tokenization.encoding.fast.fast_encoder import FastEncoder
from sftkit.tokenization.encoding.fast.id_engines import GigatokenEngine, IdEngine, TokenizersEngine
from sftkit.tokenization.encoding.reference_encoder import ReferenceEncoder
from sftkit.tokenization.encoding.spans import Span
from sftkit.tokenization.engines import UnsupportedByEngineError
from sftkit.tokenization.loading.tokenizer_identity import backend_json

# fmt: off
LINE_ENDS = ["\n", "\r", "\r\n", "\n\r", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029"]
SPACES = [" ", "  ", "\t", "\u00a0", "\u2003", "\u3000", "\u200b", "\u2060", "\ufeff", "\u2581", " \u2581 "]
MARKS = list("\u0301\u0300\u0323\u0308\u0345\u05b4\u064b\u0e31\u0f71\u0f72\u1dce\u20e3\u302a\u3099\ufe0f\U0001d165")
SPECIALS = ["<s>", "</s>", "<unk>", "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<think>", "<|end_of_role|>"]
CONTRACTIONS = ["'s", "'S", "'re", "'Ve", "'LL", "'d", "\u2019s", "'\u017f", "''s", "'", "'x", "'l", "'1", "' s"]
PIECES = [
    "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f44d\U0001f3fd", "\U0001f1e9\U0001f1ea\U0001f1fa",
    "1\ufe0f\u20e3", "中文字符測試", "日本語のカタ\u3099", "한국어", "\u1112\u1161\u11ab\u1100\u116e", "가\u11a8",
    "\u05e9\u05c1\u05b8\u05dc\u05d5\u05b9\u05dd", "\u0627\u064e\u0644\u0633\u0651\u064e", "हिन्दी", "ภาษาไทย",
    "\u202eabc\u202c", "o\u0323\u0308", "o\u0308\u0323", "ö\u0323", "\u0344", "\u0958", "\u2126", "\ufb1d",
    "\U0002f800", "\u0f73", "\u2adc", "\U0001d15e", "ﬁ", "ǅ", "İ", "½", "Ⅷ", "\u0663\u0664", "𝟘𝟙", "\ue000", "\ufdd0",
    "\uffff", "\U0010ffff", "\U000f0000", "\u0378", "\ufffd", "\u00ad", "\u200e", "\x00", "\x01", "\x7f", "\x9f",
    "HTTPServer", "naïve", "Ġthe", "1234567", "$1,234.50", "\t\tint x;\r\n", "a/b//c/\n/\r\n", "..!!--", "the cat",
]
# fmt: on


@cache
def corpus() -> list[str]:
    chance = random.Random(1)
    texts = ["", " ", "\n", "\x00", "'", "\u0301", "\u2581", "x" + " " * 100_000 + "y", "\n" * 2000, "ab" * 999]
    for token in SPECIALS:
        texts += [token, token * 2, f" {token} ", f"a{token}b", token[:-1], token[:-1] + token, f"\n{token}\n"]
        texts += [token + token[1:], token[:3] + token + token[3:], f"e{token}\u0301", f"\u3000{token}'s"]
    for piece in (*LINE_ENDS, *SPACES, *MARKS, *CONTRACTIONS, *PIECES):
        texts += [piece, f"a{piece}b", f"A {piece} 1{piece}2.{piece}.", f"é{piece * 3}\u0301"]
    for count in (2, 3, 4, 8, 15, 17, 64):
        texts += [f"x{unit * count}y{unit * count}" for unit in (*" \n\t1-aA\u0301é中'", "\r\n", " \n", "\U0001f600")]
    firsts = (*range(0, 0xD800, 128), *range(0xE000, 0x30000, 128))
    blocks = [chr(chance.randrange(first, first + 128)) for first in firsts]
    for start in range(0, len(blocks), 3):
        texts.append(" ".join(f"x{c}x {c} 1{c}1.{c}." for c in blocks[start : start + 3]))
    for _ in range(120):  # marks in unusual orders
        marks = "".join(chance.choices(MARKS, k=chance.randint(1, 6)))
        texts.append(chance.choice("aeo가א中1 .") + marks + chance.choice("b 1."))
    pools = [LINE_ENDS, SPACES, MARKS, SPECIALS, CONTRACTIONS, PIECES, PIECES, [chr(point) for point in range(32, 127)]]
    for _ in range(250):
        texts.append("".join(chance.choice(chance.choice(pools)) for _ in range(chance.randint(1, 30))))
    return texts


@cache
def some_spans() -> list[list[Span]]:
    """Return ordered and disjoint spans for each text of the corpus; some touch, some are empty."""
    chance, rows = random.Random(2), []
    for text in corpus():
        edges = sorted(chance.choices(range(len(text) + 1), k=chance.choice((0, 2, 2, 4, 8))))
        rows.append(list(zip(edges[::2], edges[1::2], strict=True)))
    return rows


def engines_of(tokenizer: Any) -> tuple[FastEncoder, ReferenceEncoder]:
    """Return the fast encoder that a chat tokenizer would use, and the reference."""
    reference = ReferenceEncoder(tokenizer)
    engine: IdEngine
    try:
        engine = GigatokenEngine(tokenizer, backend_json(tokenizer))
    except UnsupportedByEngineError:
        engine = TokenizersEngine(tokenizer, reference)
    return FastEncoder(tokenizer, engine, reference), reference


def tokenizer_of(state: dict[str, Any], *changes: tuple[str, Any]) -> Any:
    """Make the tokenizer of the content of a tokenizer.json, with the values at some paths (`a.0.b`) changed."""
    from transformers import PreTrainedTokenizerFast

    for place, value in changes:
        *path, last = place.split(".")
        at: Any = state
        for step in path:
            at = at[int(step) if step.isdigit() else step]
        at[last] = value
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(state)))


def assert_same_ids(fast: Any, reference: Any, texts: Sequence[str], **how: Any) -> None:
    made, expected = fast.encode(texts, **how), reference.encode(texts, **how)
    assert [ascii(text) for i, text in enumerate(texts) if not np.array_equal(made[i], expected[i])][:3] == []
    assert (len(made), made.values.dtype) == (len(texts), np.int32)


def assert_same_masks(fast: Any, reference: Any, texts: Sequence[str], spans: Any, special: bool = True) -> None:
    ids, inside = fast.encode_spans(texts, spans, add_special_tokens=special)
    true_ids, true_inside = reference.encode_spans(texts, spans, add_special_tokens=special)
    made, true = Ragged(inside, ids.offsets), Ragged(true_inside, true_ids.offsets)
    same = [np.array_equal(ids[i], true_ids[i]) and np.array_equal(made[i], true[i]) for i in range(len(texts))]
    assert [(ascii(texts[i]), spans[i]) for i, equal in enumerate(same) if not equal][:3] == []


BYTES: dict[str, Any] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
WORDS = {**BYTES, "use_regex": True}
DIGITS = {"type": "Digits", "individual_digits": True}


def steps(*several: dict[str, Any]) -> tuple[str, Any]:
    return "pre_tokenizer", {"type": "Sequence", "pretokenizers": [*several]}


def split(pattern: str, behavior: str = "Isolated", invert: bool = False) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": invert}
