"""Masks with tokenizers written in Python: as with the fast tokenizer, or refused."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizer

from hard_texts import corpus
from sftkit.core.row_log import RowError
from sftkit.errors import TokenizerError
from sftkit.tokenization.encoding.reference_encoder import ReferenceEncoder
from sftkit.tokenization.encoding.slow_encoder import SlowEncoder
from sftkit.tokenization.loading.tokenizer_loading import TokenizerSpec, load_tokenizer
from support import preprocess, written

SPECIALS = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]


class PythonTokenizer(PreTrainedTokenizer):
    """A tokenizer in Python that cuts text as a fast one does, special tokens apart."""

    vocab_files_names: ClassVar[dict[str, str]] = {}
    model_input_names: ClassVar[list[str]] = ["input_ids", "attention_mask"]

    def __init__(self, fast: Any, **keys: Any) -> None:
        self.fast = fast.backend_tokenizer
        super().__init__(bos_token="<s>", eos_token="</s>", additional_special_tokens=SPECIALS[2:], **keys)

    @property
    def vocab_size(self) -> int:
        return int(self.fast.get_vocab_size())

    def get_vocab(self) -> dict[str, int]:
        return dict(self.fast.get_vocab())

    def _tokenize(self, text: str, **_: Any) -> list[str]:
        return list(self.fast.encode(text, add_special_tokens=False).tokens)

    def _convert_token_to_id(self, token: str) -> int:
        return int(self.fast.token_to_id(token))

    def _convert_id_to_token(self, index: int) -> str:
        return str(self.fast.id_to_token(index))


class Reversed(PythonTokenizer):
    """Its tokens are in the opposite order of the text."""

    def _tokenize(self, text: str, **keys: Any) -> list[str]:
        return super()._tokenize(text, **keys)[::-1]


class CountsWords(PythonTokenizer):
    """Its tokens depend on all of the text where there is a question mark."""

    def _tokenize(self, text: str, **keys: Any) -> list[str]:
        tokens = super()._tokenize(text, **keys)
        return tokens if "?" not in text else [*tokens[:-1][::-1], tokens[-1]]


def slow(make: type[PythonTokenizer], fast: Any) -> SlowEncoder:
    tokenizer = make(fast)
    return SlowEncoder(tokenizer, ReferenceEncoder(tokenizer))


@st.composite
def texts_with_spans(draw: st.DrawFn) -> tuple[str, list[tuple[int, int]]]:
    pieces = [*SPECIALS, " ", "\n", "the cat", " sat", "😀", "你好", "e\u0301"]
    parts = st.sampled_from([*pieces, *(text[:80] for text in corpus())])
    text = "".join(draw(st.lists(parts, min_size=1, max_size=8)))
    edges = sorted(draw(st.lists(st.integers(0, len(text)), max_size=4, unique=True)))
    return text, list(zip(edges[::2], edges[1::2], strict=False))


@settings(max_examples=100)
@given(row=texts_with_spans())
@pytest.mark.parametrize("special", [False, True])
def test_spans_are_found_as_by_offsets(
    reference: Callable[[str], Any], row: tuple[str, list[tuple[int, int]]], special: bool
) -> None:
    text, spans = row
    fast = reference("bpe")
    encoder, expected = slow(PythonTokenizer, fast), ReferenceEncoder(fast)
    try:
        ids, inside = encoder.encode_spans([text], [spans], add_special_tokens=special)
    except RowError:  # several tokens share the bytes of two characters
        reject()
    expected_ids, expected_inside = expected.encode_spans([text], [spans], add_special_tokens=special)
    assert ids.values.tolist() == expected_ids.values.tolist()
    assert inside.tolist() == expected_inside.tolist()


def test_a_token_over_an_edge_is_in_the_span(reference: Callable[[str], Any]) -> None:
    encoder, expected = slow(PythonTokenizer, reference("bpe")), ReferenceEncoder(reference("bpe"))
    for text, start in (("Label: positive", 7), ("the cat", 1), ("<s>the  dog</s>", 7)):
        spans = [(start, len(text))]
        _, inside = encoder.encode_spans([text], [spans], add_special_tokens=False)
        assert inside.tolist() == expected.encode_spans([text], [spans], add_special_tokens=False)[1].tolist()


def test_a_text_whose_tokens_cannot_be_matched_is_refused(reference: Callable[[str], Any]) -> None:
    encoder = slow(CountsWords, reference("bpe"))
    encoder.check("<s>the cat sat</s>", [(4, 10)])
    with pytest.raises(RowError, match="the tokens of this text cannot be matched with its characters"):
        encoder.check("the cat sat on the mat? the dog", [(9, 12)])


def test_a_tokenizer_whose_tokens_can_never_be_matched_is_refused(reference: Callable[[str], Any]) -> None:
    encoder = slow(Reversed, reference("bpe"))
    assert len(encoder.encode_spans(["the cat"], [[]], add_special_tokens=False)[0].values)
    with pytest.raises(TokenizerError, match=r"Reversed is a tokenizer without .* use a fast tokenizer"):
        encoder.check("the cat", [(3, 7)])


TOY = """
from transformers import PreTrainedTokenizer
class Toy(PreTrainedTokenizer):
    vocab_files_names = {}
    def __init__(self, **keys):
        self.words = [chr(i) for i in range(1, 256)] + ["hello", " hello"]
        super().__init__(**keys)
    @property
    def vocab_size(self): return len(self.words)
    def get_vocab(self): return {**{w: i for i, w in enumerate(self.words)}, **self.added_tokens_encoder}
    def _tokenize(self, text, **_):
        import re
        return re.findall(" ?hello|.", text, re.S)
    def _convert_token_to_id(self, token): return self.words.index(token) if token in self.words else 0
    def _convert_id_to_token(self, index): return self.words[index]
    def convert_tokens_to_string(self, tokens): return "".join(tokens)
    def save_vocabulary(self, folder, filename_prefix=None): return ()
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["chats", "pairs", "responses"])
def test_a_tokenizer_with_code_of_its_own_masks_all_kinds_of_rows(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "toy"
    folder.mkdir()
    (folder / "tokenization_toy.py").write_text(TOY)
    template = "{% for m in messages %}<s>{{ m['role'] }}\n{{ m['content'] }}</s>{% endfor %}"
    template += "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
    config = {"tokenizer_class": "Toy", "auto_map": {"AutoTokenizer": ["tokenization_toy.Toy", None]}}
    config |= {"bos_token": "<s>", "eos_token": "</s>", "chat_template": template}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    turns = [{"role": "user", "content": "say"}, {"role": "assistant", "content": "oh hello"}]
    row = {
        "chats": {"messages": turns},
        "pairs": {"input": "say: ", "output": "hello"},
        "responses": {"text": "A: hello"},
    }
    (tmp_path / "in.jsonl").write_text(json.dumps(row[kind]) + "\n")
    options = {"response_template": "A:"} if kind == "responses" else {}
    preprocess(
        tmp_path / "out",
        training_data_path=(str(tmp_path / "in.jsonl"),),
        model_name_or_path=str(folder),
        trust_remote_code=True,
        **options,
    )
    [made] = written(tmp_path / "out")
    tokenizer = load_tokenizer(TokenizerSpec(str(folder), trust_remote_code=True))
    trained = tokenizer.decode([label for label in made["labels"] if label != -100])
    assert (
        re.sub(" +", " ", trained) == {"chats": "oh hello</s>", "pairs": " hello</s>", "responses": " hello</s>"}[kind]
    )


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\n\x0e\n\x05<unk>\x15\0\0\0\0\x18\x02", re.escape("install it with: pip install 'sftkit[sentencepiece]'")),
        (b"IQ== 0\nIg== 1\n", "tiktoken"),
    ],
)
def test_a_model_file_whose_package_is_missing_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, says: str
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *rest: None if name == "sentencepiece" else find_spec(name, *rest)
    )
    (tmp_path / "tokenizer.model").write_bytes(content)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer"}))
    with pytest.raises(TokenizerError, match=says):
        load_tokenizer(TokenizerSpec(str(tmp_path)))
