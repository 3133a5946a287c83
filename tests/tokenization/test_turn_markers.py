"""Turn markers of chat templates that the tokenizer splits are found; headers in words are not taken for markers."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

import chat_templates
from sftkit.config.commands import PreprocessConfig
from sftkit.config.loading import load_config
from sftkit.preprocessing.planning import plan
from sftkit.tokenization.loading.tokenizer_loading import TokenizerSpec, load_tokenizer
from sftkit.tokenization.probing.turn_markers import SplitMarkers, find_split_markers
from sftkit.tokenization.templates.named_templates import named_or_given
from support import SHARED_TOKENIZERS, write_jsonl
from template_zoo import CASES
from template_zoo.model import Style

STYLES = list({case.style.name: case.style for case in CASES if case.style.source is not None}.values())
ZEPHYR = "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + eos_token + '\n' }}{% endfor %}"


@pytest.fixture(scope="module")
def markers(tokenizer_path: Callable[[str], str]) -> Callable[..., SplitMarkers | None]:
    """Find the markers that a tokenizer with a template splits."""

    @lru_cache(maxsize=4)  # tokenizers are big, and cases in order of style
    def find(name: str, template: str | None, *added: str, is_own: bool = False) -> SplitMarkers | None:
        tokenizer = load_tokenizer(TokenizerSpec(tokenizer_path(name), template, added))
        return find_split_markers(tokenizer, is_own_template=is_own)

    return find


@pytest.mark.parametrize(
    ("template", "split", "stop"),
    [
        ("chatml", ("<|im_start|>", "<|im_end|>"), "<|im_end|>"),
        ("llama3", ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"), "<|eot_id|>"),
        ("gemma", ("<start_of_turn>", "<end_of_turn>"), "<end_of_turn>"),
        ("granite", ("<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>"), "<|end_of_text|>"),
    ],
)
@pytest.mark.parametrize("is_own", [False, True])
def test_markers_that_are_no_tokens_are_found(
    plain: Any, template: str, split: tuple[str, ...], stop: str, is_own: bool
) -> None:
    plain.chat_template = named_or_given(template)
    assert find_split_markers(plain, is_own_template=is_own) == SplitMarkers(split, stop)
    plain.add_special_tokens({"extra_special_tokens": list(split)})
    assert find_split_markers(plain, is_own_template=is_own) is None


@pytest.fixture
def plain() -> Any:
    """A byte-level tokenizer of a base model: it has no tokens for turns."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({letter: number for number, letter in enumerate(letters)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", bos_token="<s>")


@pytest.mark.parametrize(
    "template",
    [
        named_or_given("mistral"),
        chat_templates.LLAMA2,
        chat_templates.RESPONSE,
        "{% for m in messages %}{{ m.role.upper() + ': ' + m.content + eos_token }}{% endfor %}",
        "{% for m in messages %}{{ '<' + m.role + '>' + m.content + '</' + m.role + '>' }}{% endfor %}",
        "{{ bos_token }}{% for m in messages %}{{ m.content + '\n' }}{% endfor %}",
    ],
    ids=["mistral", "llama2", "alpaca", "vicuna", "xml", "content"],
)
def test_headers_in_words_are_no_markers(plain: Any, template: str) -> None:
    plain.chat_template = template
    assert find_split_markers(plain, is_own_template=False) is None


def test_headers_count_only_with_a_template_that_did_not_come_with_the_tokenizer(plain: Any) -> None:
    plain.chat_template = ZEPHYR
    assert find_split_markers(plain, is_own_template=True) is None
    assert find_split_markers(plain, is_own_template=False) == SplitMarkers(("<|user|>", "<|assistant|>"), None)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("style", STYLES, ids=lambda style: style.name)
def test_no_tokenizer_with_its_tokens_is_reported(markers: Callable[..., SplitMarkers | None], style: Style) -> None:
    assert markers(style.tokenizer, style.source, *style.special, is_own=True) is None


@pytest.mark.parametrize("name", SHARED_TOKENIZERS)
def test_no_tokenizer_with_its_own_template_is_reported(markers: Callable[..., SplitMarkers | None], name: str) -> None:
    assert markers(name, None, is_own=True) is None


def test_the_warning_has_the_option_that_adds_the_tokens(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, plain: Any
) -> None:
    plain.save_pretrained(tmp_path / "base")
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    data = write_jsonl(tmp_path / "rows.jsonl", [{"messages": talk}])
    line = f"--training_data_path {data} --model_name_or_path {tmp_path / 'base'} --output_dir {tmp_path / 'out'}"
    line += " --chat_template chatml"
    with caplog.at_level(logging.WARNING):
        plan(load_config(PreprocessConfig, shlex.split(line)))
    [warning] = [record.getMessage() for record in caplog.records if "markers" in record.getMessage()]
    option = "--add_special_tokens '<|im_start|>' '<|im_end|>'"
    assert warning == (
        "turn markers of the chat template are no tokens of the tokenizer, which splits them into several: "
        "<|im_start|>, <|im_end|> (<|im_end|> ends an answer, so the model would have to write all of them to stop); "
        f"to make tokens of them, set {option}"
    )
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        plan(load_config(PreprocessConfig, shlex.split(f"{line} {option}")))
    assert not [record for record in caplog.records if "markers" in record.getMessage()]


def test_data_that_is_not_rendered_is_not_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, plain: Any
) -> None:
    plain.save_pretrained(tmp_path / "base")
    data = write_jsonl(tmp_path / "rows.jsonl", [{"input": "a", "output": "b"}])
    line = f"--training_data_path {data} --model_name_or_path {tmp_path / 'base'} --output_dir {tmp_path / 'out'}"
    plan(load_config(PreprocessConfig, shlex.split(f"{line} --chat_template chatml")))
    assert not [record for record in caplog.records if "markers" in record.getMessage()]
