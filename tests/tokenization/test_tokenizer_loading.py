"""Tokenizers that encode by chance have that switched off."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models

from sftkit.sample import sample_path
from sftkit.tokenization.tokenizer_loading import TokenizerSpec, fingerprint, load_tokenizer

TEXT = "alders and larches and elms and birches"


def test_dropout_is_switched_off_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "drops"
    shutil.copytree(str(sample_path("sample:model")), folder)
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["dropout"] = 0.9
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with caplog.at_level(logging.WARNING):
        tokenizer = load_tokenizer(TokenizerSpec(str(folder)))
    assert "encodes a text differently each time (dropout); this is switched off" in caplog.text
    plain = load_tokenizer(TokenizerSpec("sample:model"))
    assert [tokenizer(TEXT)["input_ids"] for _ in range(9)] == [plain(TEXT)["input_ids"]] * 9
    assert fingerprint(tokenizer) == fingerprint(plain)


def test_sampling_of_unigrams_is_switched_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    model = models.Unigram([("<unk>", 0.0), ("a", -1.0), ("b", -1.0), ("ab", -2.0), ("aba", -2.5)], 0)
    model.alpha, model.nbest_size = 0.1, 8
    sampling = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(model), unk_token="<unk>")
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda *_, **__: sampling)
    (tmp_path / "tokenizer.json").write_text("{}")
    tokenizer = load_tokenizer(TokenizerSpec(str(tmp_path)))
    assert len({tuple(tokenizer("abababab" * 3)["input_ids"]) for _ in range(9)}) == 1


def test_sampling_of_sentencepiece_is_switched_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoTokenizer

    class Pieces:
        _enable_sampling = True

    tokenizer = AutoTokenizer.from_pretrained(str(sample_path("sample:model")))
    tokenizer.sp_model = Pieces()
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda *_, **__: tokenizer)
    load_tokenizer(TokenizerSpec(str(tmp_path)))
    assert not tokenizer.sp_model._enable_sampling
