from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from sftkit.config.commands import InspectConfig
from sftkit.errors import TokenizerError
from sftkit.inspection.report import Report, inspect_shards
from sftkit.inspection.view.decoding import TokenDecoder, join_bytes
from sftkit.inspection.view.shown_row import segments
from sftkit.shards.reading import ShardSet, open_shards
from sftkit.tokenization.loading.tokenizer_identity import fingerprint

from .conftest import ASK, END, Writer, byte_ids, manifest_for


def look(path: Path, tokenizer_dir: Path | None, **options: object) -> Report:
    name = None if tokenizer_dir is None else str(tokenizer_dir)
    config = InspectConfig(tokenizer_name_or_path=name, **options)
    return inspect_shards(config, open_shards(str(path)))


def test_segments_group_tokens_of_the_same_kind(shard_dir: Path, tokenizer_dir: Path) -> None:
    (row,) = look(shard_dir, tokenizer_dir).rows
    assert [(s.text, s.start, s.stop, s.trained, s.special) for s in segments(row)] == [
        ("<|ask|>", 0, 1, False, True),
        ("00?", 1, 4, False, False),
        ("yes 0", 4, 9, True, False),
        ("<|end|>", 9, 10, True, True),
    ]
    assert (row.length, row.trained_tokens, row.trained_share) == (10, 6, 0.6)


def test_characters_of_several_tokens_are_not_split(tmp_path: Path, tokenizer_dir: Path, write: Writer) -> None:
    text = "é😀你 👩‍🚀\ufffd!"
    path = write(tmp_path / "a.parquet", input_ids=[byte_ids(text)], labels=[byte_ids(text)])
    (row,) = look(path, tokenizer_dir).rows
    assert "".join(token.text or "" for token in row.tokens) == text
    assert [token.text for token in row.tokens[:6]] == ["", "é", "", "", "", "😀"]


def test_invalid_utf8_becomes_replacement_characters(tokenizer_dir: Path) -> None:
    decoder = TokenDecoder(PreTrainedTokenizerFast.from_pretrained(tokenizer_dir))
    cut = [*byte_ids("a"), *byte_ids("😀")[:2]]
    assert [piece.text for piece in decoder.token_texts(np.array(cut, np.int32))] == ["a", "", "\ufffd"]
    broken = [0xF0, ASK, 0x98, *byte_ids("b😀")]
    assert [piece.text for piece in decoder.token_texts(np.array(broken, np.int32))] == [
        "\ufffd",
        "<|ask|>",
        "\ufffd",
        "b",
        "",
        "",
        "",
        "😀",
    ]


def test_bytes_are_joined_to_characters() -> None:
    assert join_bytes([b"\x98", "a", b"\xf0\x9f", b"\x98\x80\xe4", b"\xbd\xa0", None]) == [
        "\ufffd",
        "a",
        "",
        "😀",
        "你",
        None,
    ]


def test_sentencepiece_bytes_and_spaces() -> None:
    words = ["▁hi", "▁you", "a", "▁a", *(f"<0x{byte:02X}>" for byte in "😀".encode())]
    backend = Tokenizer(models.BPE({word: number for number, word in enumerate(words)}, [], byte_fallback=True))
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    decoder = TokenDecoder(PreTrainedTokenizerFast(tokenizer_object=backend))
    ids = np.array([0, 1, 4, 5, 6, 7, 0, 4], np.int32)
    assert [piece.text for piece in decoder.token_texts(ids)] == ["hi", " you", "", "", "", "😀", " hi", "\ufffd"]


def test_ids_outside_the_vocabulary_have_no_text(tmp_path: Path, tokenizer_dir: Path, write: Writer) -> None:
    path = write(tmp_path / "a.parquet", input_ids=[[104, 99999, -5]], labels=[[104, -100, -100]])
    (row,) = look(path, tokenizer_dir).rows
    assert [token.text for token in row.tokens] == ["h", None, None]
    assert row.notes == ("2 ids are not in the tokenizer's vocabulary, the first is 99999",)


def test_label_that_differs_from_its_id_is_flagged(tmp_path: Path, tokenizer_dir: Path, write: Writer) -> None:
    path = write(tmp_path / "a.parquet", input_ids=[byte_ids("abc")], labels=[[-100, 98, 97]])
    (row,) = look(path, tokenizer_dir).rows
    assert [token.label for token in row.tokens] == [None, 98, 97]
    assert [token.is_mislabelled for token in row.tokens] == [False, False, True]
    assert [(s.text, s.wrong) for s in segments(row)] == [("a", False), ("b", False), ("c", True)]
    assert row.notes == (
        "1 trained tokens have a label that differs from their id, the first at position 2: id 99, label 97",
    )


def test_without_a_tokenizer_ids_are_shown_with_a_note(shard_dir: Path) -> None:
    report = look(shard_dir, None)
    assert report.notes == ("no manifest names the tokenizer that made these ids: set tokenizer_name_or_path",)
    assert [segment.text for segment in segments(report.rows[0])] == ["256 48 48 63", "121 101 115 32 48 257"]


def test_tokenizer_named_in_the_config_must_exist(shard_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="cannot be loaded"):
        look(shard_dir, tmp_path / "nothing")


@pytest.fixture
def first_shard(shard_dir: Path) -> ShardSet:
    found = open_shards(str(shard_dir))
    return ShardSet(found.root, {"train": found.splits["train"][:1]}, None)


def _with_manifest(shards: ShardSet, tokenizer: str, tokenizer_hash: str) -> ShardSet:
    files = {"train": [("train-00000-of-00002.parquet", 3, 30, 18)]}
    return ShardSet(shards.root, shards.splits, manifest_for(files, tokenizer, tokenizer_hash))


def test_the_tokenizer_of_the_manifest_is_used(first_shard: ShardSet, tokenizer_dir: Path) -> None:
    expected = fingerprint(PreTrainedTokenizerFast.from_pretrained(tokenizer_dir))
    report = inspect_shards(InspectConfig(), _with_manifest(first_shard, str(tokenizer_dir), expected))
    assert report.notes == ()
    assert "".join(token.text or "" for token in report.rows[0].tokens) == "<|ask|>00?yes 0<|end|>"


def test_tokenizer_other_than_the_manifests_is_noted(first_shard: ShardSet, tokenizer_dir: Path) -> None:
    report = inspect_shards(InspectConfig(), _with_manifest(first_shard, str(tokenizer_dir), "0123456789abcdef"))
    assert report.notes[0].startswith("the tokenizer differs from the one that made the shards")


def test_missing_tokenizer_of_the_manifest_is_noted(first_shard: ShardSet) -> None:
    report = inspect_shards(InspectConfig(), _with_manifest(first_shard, "/gone/tokenizer", ""))
    assert report.notes[0].startswith("tokenizer '/gone/tokenizer' cannot be loaded: ")
    assert report.rows[0].tokens[9].id == END
    assert report.rows[0].tokens[9].text is None
