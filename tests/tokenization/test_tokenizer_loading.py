"""Tokenizers that encode by chance have that switched off; directories without a tokenizer say so."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models

from sftkit.errors import TokenizerError
from sftkit.sample import sample_path
from sftkit.tokenization.loading.tokenizer_identity import fingerprint
from sftkit.tokenization.loading.tokenizer_loading import TokenizerSpec, load_tokenizer

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


def refusal(folder: Path) -> str:
    with pytest.raises(TokenizerError) as raised:
        load_tokenizer(TokenizerSpec(str(folder)))
    return str(raised.value).removeprefix(f"tokenizer {str(folder)!r} cannot be loaded: ")


NO_TOKENIZER = (
    "the directory has no tokenizer: it has none of tokenizer.json, tokenizer.model, vocab.json, vocab.txt, "
    "spiece.model, sentencepiece.bpe.model, tekken.json, tiktoken.model, tokenizer.model.v3; add these files, or set "
    "tokenizer_name_or_path to a directory that has them"
)


# For the first of these models transformers fails, for the others it makes a tokenizer without a vocabulary.
@pytest.mark.parametrize("model_type", ["llama", "qwen2", "gemma", "t5", "gpt2"])
def test_a_directory_without_a_tokenizer_names_the_files_looked_for(tmp_path: Path, model_type: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    assert refusal(tmp_path) == NO_TOKENIZER


def test_an_empty_directory_has_no_tokenizer(tmp_path: Path) -> None:
    assert refusal(tmp_path) == NO_TOKENIZER


def test_a_tokenizer_of_characters_needs_no_files(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "canine"}')
    assert load_tokenizer(TokenizerSpec(str(tmp_path))).decode([104, 105]) == "hi"


def test_an_adapter_without_a_tokenizer_names_its_base_model(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')
    assert refusal(tmp_path) == (
        "it is a LoRA adapter of the model 'org/base' without a tokenizer; set tokenizer_name_or_path to this model"
    )


def test_an_adapter_with_a_tokenizer_can_be_used(tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    shutil.copytree(str(sample_path("sample:model")), folder)
    (folder / "config.json").unlink()
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')
    expected = load_tokenizer(TokenizerSpec("sample:model"))(TEXT)["input_ids"]
    assert load_tokenizer(TokenizerSpec(str(folder)))(TEXT)["input_ids"] == expected
