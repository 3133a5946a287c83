"""`empty_reasoning`: conversations without reasoning get the prompt that skips it, or are dropped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import chat_templates as templates
from reliability.material import sftkit
from sftkit.core.row_log import RowDroppedError, RowError
from sftkit.core.rows import Row
from sftkit.tokenization.chat_tokenizer import ChatTokenizer
from sftkit.tokenization.empty_reasoning import no_thinking_switch
from sftkit.tokenization.rendering.reference_renderer import ReferenceRenderer
from support import trained_texts, write_jsonl
from template_zoo.conversations import assistant, user

MakeChatTokenizer = Callable[..., ChatTokenizer]

END = "<|im_end|>"
HEADER = "{{ '<|im_start|>' + m.role + '\n' }}"
MESSAGES = "{% for m in messages %}" + HEADER + "{{ m.content + '<|im_end|>' }}{% endfor %}"
PROMPT = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}PROMPT{% endif %}"
ASKED = "q<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"


def with_prompt(written: str) -> str:
    return MESSAGES + PROMPT.replace("PROMPT", written)


@pytest.mark.parametrize(
    ("written", "switch"),
    [
        ("{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}",
         ("enable_thinking", False)),
        ("{% if thinking %}<think>{% else %}</think>{% endif %}", ("thinking", False)),
        ("<think>\n{% if reasoning_effort == 'none' %}\n</think>\n\n{% endif %}", ("reasoning_effort", "none")),
        ("{% if thinking_budget == 0 %}<seed:think></seed:think>{% endif %}", ("thinking_budget", 0)),
        ("{% if enable_thinking %}<think>\n{% endif %}", None),
        ("{% if enable_thinking %}Think.{% else %}Answer.{% endif %}", None),
        ("<think>\n\n</think>\n\n", None),
        ("", None),
    ],
)  # fmt: skip
def test_the_switch_is_found_by_comparing_prompts(reference: Callable[[str], Any], written: str, switch: Any) -> None:
    assert no_thinking_switch(ReferenceRenderer(reference("bpe")), with_prompt(written)) == switch


def test_the_switch_of_qwen3(reference: Callable[[str], Any]) -> None:
    tokenizer = reference("qwen3")
    switch = no_thinking_switch(ReferenceRenderer(tokenizer), tokenizer.get_chat_template())
    assert switch == ("enable_thinking", False)


def prepared(tokenizer: ChatTokenizer, messages: list[Row], **row: Any) -> tuple[str, list[str]]:
    result = tokenizer.conversations.prepare({**row, "messages": messages}, "messages")
    return result.text, trained_texts(result.text, result.trained)


def qwen(chat_tokenizer: MakeChatTokenizer, policy: str, **options: Any) -> ChatTokenizer:
    return chat_tokenizer(name="qwen3", empty_reasoning=policy, **options)


def test_the_block_is_a_part_of_the_prompt(chat_tokenizer: MakeChatTokenizer) -> None:
    messages = [user("q"), assistant("yes")]
    kept, added = (prepared(qwen(chat_tokenizer, each), messages) for each in ("keep", "add"))
    assert kept[0] == added[0]
    assert kept[1] == [f"<think>\n\n</think>\n\nyes{END}"]
    assert added[1] == [f"yes{END}"]
    assert f"{ASKED}yes" in added[0]


def test_rows_with_reasoning_and_rows_that_decide_are_left(chat_tokenizer: MakeChatTokenizer) -> None:
    tokenizer = qwen(chat_tokenizer, "add")
    for message in (assistant("yes", reasoning_content="hm"), assistant("<think>\nhm\n</think>\n\nyes")):
        assert prepared(tokenizer, [user("q"), message])[1] == [f"<think>\nhm\n</think>\n\nyes{END}"]
    switched = prepared(tokenizer, [user("q"), assistant("yes")], chat_template_kwargs={"enable_thinking": True})
    assert switched[1] == [f"<think>\n\n</think>\n\nyes{END}"]


def test_turns_that_are_rewritten_need_samples_of_their_own(chat_tokenizer: MakeChatTokenizer) -> None:
    messages = [user("q"), assistant("a"), user("q"), assistant("b")]
    with pytest.raises(RowError, match="does not begin with the empty block of reasoning of its prompt"):
        prepared(qwen(chat_tokenizer, "add"), messages)
    tokenizer = qwen(chat_tokenizer, "add", render="per_turn")
    samples = tokenizer.conversations.samples({"messages": messages}, "messages", None)
    assert not samples.differs_from_prompts
    made = [prepared(tokenizer, row["messages"]) for row in samples.rows]
    assert [trained for _, trained in made] == [[f"a{END}"], [f"b{END}"]]
    assert all(ASKED in text for text, _ in made)


def test_rows_are_dropped(chat_tokenizer: MakeChatTokenizer) -> None:
    tokenizer = chat_tokenizer(templates.CHATML, empty_reasoning="drop")
    thinking = assistant("<think>hm</think>b")
    with pytest.raises(RowDroppedError, match="no reasoning"):
        prepared(tokenizer, [user("q"), assistant("a")])
    with pytest.raises(RowDroppedError, match="no reasoning"):
        prepared(tokenizer, [user("q"), assistant("a"), user("q"), {**thinking, "train": False}])
    assert len(prepared(tokenizer, [user("q"), assistant("a"), user("q"), thinking])[1]) == 2


def test_a_template_without_such_a_prompt_is_refused(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"messages": [user("q"), assistant("a")]}])
    common = ["--training_data_path", str(source), "--model_name_or_path", "sample:model"]
    done = sftkit("preprocess", *common, "--output_dir", str(tmp_path / "out"), "--empty_reasoning", "add")
    assert done.code == 1
    assert "empty_reasoning=add: the chat template has no prompt with an empty block of reasoning" in done.err
    assert not (tmp_path / "out").exists()


def test_texts_cannot_have_it(tmp_path: Path) -> None:
    common = ["--training_data_path", "x.jsonl", "--model_name_or_path", "sample:model", "--output_dir", tmp_path]
    done = sftkit("preprocess", *common, "--empty_reasoning", "drop", "--response_template", "A:")
    assert done.code == 2
    assert "empty_reasoning=drop is about conversations, and cannot be used with response_template" in done.err
