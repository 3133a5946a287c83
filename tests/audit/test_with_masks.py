"""What the audit learns of a template agrees with the masks of all rows that sftkit makes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sftkit.audit.checks.row_checks import check_row
from sftkit.audit.expectations.expected import Expectations, RowOrigin
from sftkit.audit.expectations.learn import learn_expectations
from sftkit.config.schema.option_values import JOINT
from sftkit.core.accounting.row_notes import PROMPT_MISMATCH
from sftkit.core.row_kinds import RowKind
from sftkit.core.row_log import RowError
from sftkit.tokenization.chat_tokenizer import ChatTokenizer
from sftkit.tokenization.chat_tokenizer_spec import ChatTokenizerSpec
from sftkit.tokenization.engines import ENCODER, RENDERER, EnginePolicy
from sftkit.tokenization.loading.tokenizer_loading import TokenizerSpec
from template_zoo import CASES
from template_zoo.model import Case, Style

CHECK_EVERY_PROMPT = EnginePolicy(frozenset({ENCODER, RENDERER}), verify_fraction=1.0)
STYLES = {
    case.style.name: case.style
    for case in CASES
    if case.style.name
    in {
        *("command-r", "command-r7b", "jamba", "gpt-oss", "glm4.5", "kimi-k2", "granite4", "gemma3", "llama3", "qwq"),
        *("deepseek-v3", "deepseek-r1", "deepseek-v3.1", "deepseek-v3.2"),
        *("mistral-v3", "mistral-v13", "nemotron-nano", "smollm3-unmarked", "qwen-thinking", "zephyr"),
    }
}
CONTENTS_LIKE_TURNS = {"lookalike", "mimic", "trailing stop", "thought and stop", "stop in reasoning"}


def tokenizer_of(path: str, style: Style) -> ChatTokenizer:
    return ChatTokenizer(
        ChatTokenizerSpec(
            TokenizerSpec(path, style.source, style.special), "assistant", CHECK_EVERY_PROMPT, boundary=JOINT
        )
    )


def expectations_of(tokenizer: ChatTokenizer, variables: dict[str, Any]) -> Expectations:
    return learn_expectations(
        tokenizer.tokenizer,
        RowOrigin(RowKind.CONVERSATIONS, trains_all=False, variables=variables),
        list(tokenizer.stop_tokens),
    )


def rules_of(tokenizer: ChatTokenizer, case: Case, expectations: Expectations) -> set[str] | None:
    """The rules that a masked row breaks; None if it is refused."""
    try:
        text, spans = tokenizer.conversations.find_trained_spans(case.conversation.row, "messages")
    except RowError:
        return None
    made = tokenizer.encode_conversations([text], [spans])
    labels = made.labels.values
    return {rule for rule, _, _ in check_row(made.input_ids.values, labels, labels != -100, expectations)}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", sorted(STYLES))
def test_rows_made_by_sftkit_have_no_trained_header_and_only_prompts_of_inference(
    tokenizer_path: Callable[[str], str], name: str
) -> None:
    style = STYLES[name]
    tokenizer = tokenizer_of(tokenizer_path("bpe"), style)
    expectations = expectations_of(tokenizer, {})
    assert expectations.prompts
    checked = 0
    for case in CASES:
        begun = case.conversation.messages[0].get("role") != "assistant"  # nothing is asked for the first of them
        if case.style != style or case.name in CONTENTS_LIKE_TURNS or case.conversation.variables or not begun:
            continue
        rules = rules_of(tokenizer, case, expectations)
        if rules is None:
            continue
        checked += 1
        assert "header_trained" not in rules, case.name
        if "prompt_mismatch" in rules:
            assert PROMPT_MISMATCH in tokenizer.conversations.prepare(case.conversation.row, "messages").notes.rules, (
                case.name
            )
    assert checked > 3


@pytest.mark.parametrize(
    ("name", "prompts"),
    [
        # Written at the end, asked for or not.
        ("command-r7b", {"<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>"}),
        # In the user's turn; the last answer goes on with </think>, or with what it thinks.
        ("deepseek-v3.2", {"<think>"}),
        ("deepseek-r1", {"<｜Assistant｜><think>\n", "<｜tool▁outputs▁end｜>"}),
        # Calls have ids, which are no part of what follows a result.
        ("mistral-v3", {"[/INST]", '"}[/TOOL_RESULTS]'}),
        # A word in the first message switches to the other one.
        ("nemotron-nano", {"<SPECIAL_11>Assistant\n<think>\n\n", "<SPECIAL_11>Assistant\n<think></think>"}),
    ],
)
def test_prompts_of_unusual_templates_are_learned(
    tokenizer_path: Callable[[str], str], name: str, prompts: set[str]
) -> None:
    tokenizer = tokenizer_of(tokenizer_path("bpe"), STYLES[name])
    assert {tokenizer.tokenizer.decode(list(prompt)) for prompt in expectations_of(tokenizer, {}).prompts} == prompts


def test_a_trained_prompt_is_found_if_the_template_always_writes_it(tokenizer_path: Callable[[str], str]) -> None:
    tokenizer = tokenizer_of(tokenizer_path("bpe"), STYLES["command-r7b"])
    expectations = expectations_of(tokenizer, {})
    case = next(case for case in CASES if case.style.name == "command-r7b" and case.name == "multi")
    text, spans = tokenizer.conversations.find_trained_spans(case.conversation.row, "messages")
    header = "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>"
    wider = [(start - len(header), end) for start, end in spans]
    made = tokenizer.encode_conversations([text], [wider])
    labels = made.labels.values
    found = check_row(made.input_ids.values, labels, labels != -100, expectations)
    assert {rule for rule, _, _ in found} == {"header_trained"}
