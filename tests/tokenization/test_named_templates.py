"""Templates chosen by name (`--chat_template chatml`): their texts, and the errors for other names.

Their masks are tested with those of all other templates, in `test_template_zoo.py`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sftkit.config.schema.data_config import ProcessorConfig
from sftkit.errors import ConfigError
from sftkit.shards.manifest import Manifest
from sftkit.tokenization.loading.tokenizer_loading import read_chat_template
from sftkit.tokenization.templates.named_templates import NAMES, named_or_given
from support import dataset, handler, preprocess, write_jsonl, written

TALK = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
    {"role": "user", "content": "Bye"},
]
TEXTS = {
    "chatml": (
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\nHello<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n"
    ),
    "llama3": (
        "<s><|start_header_id|>system<|end_header_id|>\n\nBe kind.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nHello<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    ),
    "mistral": "<s>[INST] Be kind.\n\nHi[/INST] Hello</s>[INST] Bye[/INST]",
    "gemma": (
        "<s><start_of_turn>user\nBe kind.\n\nHi<end_of_turn>\n<start_of_turn>model\nHello<end_of_turn>\n"
        "<start_of_turn>user\nBye<end_of_turn>\n<start_of_turn>model\n"
    ),
    "granite": (
        "<|start_of_role|>system<|end_of_role|>Be kind.<|end_of_text|>\n"
        "<|start_of_role|>user<|end_of_role|>Hi<|end_of_text|>\n"
        "<|start_of_role|>assistant<|end_of_role|>Hello<|end_of_text|>\n"
        "<|start_of_role|>user<|end_of_role|>Bye<|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>"
    ),
}
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}
CALL = {"id": "call00001", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
WITH_TOOLS = [
    {"role": "user", "content": "1?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call00001", "content": "2"},
    {"role": "tool", "tool_call_id": "call00001", "content": "3"},
]
CALLS_AND_RESULTS = {
    "chatml": (
        '<|im_start|>assistant\n<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call><|im_end|>\n'
        "<|im_start|>tool\n<tool_response>\n2\n</tool_response><|im_end|>\n"
        "<|im_start|>tool\n<tool_response>\n3\n</tool_response><|im_end|>\n"
    ),
    "llama3": (
        '<|start_header_id|>assistant<|end_header_id|>\n\n{"name": "add", "parameters": {"a": 1}}<|eot_id|>'
        "<|start_header_id|>ipython<|end_header_id|>\n\n2<|eot_id|>"
        "<|start_header_id|>ipython<|end_header_id|>\n\n3<|eot_id|>"
    ),
    "mistral": (
        '1?[/INST][TOOL_CALLS] [{"name": "add", "arguments": {"a": 1}, "id": "call00001"}]</s>'
        '[TOOL_RESULTS] {"content": "2", "call_id": "call00001"}[/TOOL_RESULTS]'
        '[TOOL_RESULTS] {"content": "3", "call_id": "call00001"}[/TOOL_RESULTS]'
    ),
    "granite": (
        '<|start_of_role|>assistant<|end_of_role|><tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
        "<|end_of_text|>\n<|start_of_role|>user<|end_of_role|><tool_response>\n2\n</tool_response>\n"
        "<tool_response>\n3\n</tool_response><|end_of_text|>\n"
    ),
}


def render(tokenizer: Any, name: str, messages: list[dict[str, Any]], **options: Any) -> str:
    template = named_or_given(name)
    return str(tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False, **options))


@pytest.mark.parametrize("name", NAMES)
def test_the_text_of_a_conversation(loaded: Callable[[str], Any], name: str) -> None:
    assert render(loaded("bos"), name, TALK, add_generation_prompt=True) == TEXTS[name]


@pytest.mark.parametrize("name", CALLS_AND_RESULTS)
@pytest.mark.parametrize("system", [[], TALK[:1]], ids=["", "system"])
def test_the_text_of_tool_calls(loaded: Callable[[str], Any], name: str, system: list[dict[str, str]]) -> None:
    text = render(loaded("bos"), name, [*system, *WITH_TOOLS], tools=[TOOL])
    assert text.endswith(CALLS_AND_RESULTS[name])
    assert text.count('"properties": {}') == 1
    assert text.count("Be kind.") == len(system)


@pytest.mark.parametrize("name", ["mistral", "gemma"])
@pytest.mark.parametrize(
    "messages",
    [TALK[:1], [TALK[0], TALK[2]], [*TALK[1:3], TALK[0], TALK[3]], [{"role": "narrator", "content": "x"}]],
    ids=["system alone", "system before an answer", "system in the middle", "unknown role"],
)
def test_what_a_format_cannot_express_is_refused(
    loaded: Callable[[str], Any], name: str, messages: list[dict[str, str]]
) -> None:
    with pytest.raises(Exception, match=rf"(in )?the {name} format"):
        render(loaded("bos"), name, messages)


def shards_of(folder: Path, template: str) -> Manifest:
    data = write_jsonl(folder / "rows.jsonl", [{"messages": TALK[:3]}])
    return preprocess(
        folder / "out",
        dataset(data, data_handlers=[handler("tokenize_and_apply_chat_template_with_masking")]),
        tokenizer_name_or_path="sample:model",
        processor={"chat_template": template},
    )


def test_a_name_gives_the_shards_of_its_text(tmp_path: Path) -> None:
    by_name, by_text = shards_of(tmp_path / "name", "chatml"), shards_of(tmp_path / "text", named_or_given("chatml"))
    assert by_name.fingerprint == by_text.fingerprint
    assert by_name.tokenizer is not None
    expected = hashlib.sha256(json.dumps(named_or_given("chatml")).encode()).hexdigest()
    assert by_name.tokenizer.chat_template_sha256 == expected
    [row] = written(tmp_path / "name" / "out")
    assert [token for token in row["labels"] if token != -100] == row["input_ids"][-3:-1]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("vicuna", "no template is called 'vicuna'; the names are chatml, llama3, mistral, gemma, granite, and a"),
        ("llama-3", "no template is called 'llama-3' (did you mean 'llama3'?)"),
        ("ChatML", "no template is called 'ChatML' (did you mean 'chatml'?)"),
        ("tokenizer_default", "leave it out to use the tokenizer's own template"),
        ("jinja", "set chat_template_path to the file of a template"),
        ("my/template.jinja", "for a file, set chat_template_path"),
        (" ", "it is empty; leave it out"),
    ],
)
def test_another_word_is_refused(text: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_chat_template(ProcessorConfig(chat_template=text))
    assert str(caught.value).startswith("dataprocessor.chat_template: ")
    assert says in str(caught.value)


def test_a_template_in_a_file_is_no_name(tmp_path: Path) -> None:
    (tmp_path / "constant.jinja").write_text("chatml")
    assert read_chat_template(ProcessorConfig(chat_template_path=str(tmp_path / "constant.jinja"))) == "chatml"
