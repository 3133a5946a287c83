"""Every trained token stands as at inference, for every template of the tests, or the row is reported.

The oracle is transformers alone: `apply_chat_template` renders the prompt of each turn and the conversation up to it,
the tokenizer encodes them, and lists of ids are compared. The audit of shards must give the same answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from test_template_zoo import adapted_messages
from test_turn_samples import EVERY, MakeTokenizer, Sample, begins_with, made, make_tokenizer, samples_of, text_of

from sftkit.core.row_log import RowError
from sftkit.core.rows import Row
from sftkit.inspection.audit.inference.compare_tokens import find_difference
from sftkit.inspection.audit.inference.turn_tokens import TurnTokenizer
from sftkit.tokenization.chat_tokenizer import ChatTokenizer
from sftkit.tokenization.conversations import is_assistant
from template_zoo.conversations import Conversation, assistant, user
from template_zoo.model import Case

__all__ = ["make_tokenizer"]

SIX_TURNS = Conversation(
    [
        message
        for k in range(6)
        for message in (user(f"Question {k}?"), assistant(f"Answer {k}.", reasoning_content=f"Thought {k}."))
    ]
)
STYLES = {case.style.name: case.style for case in EVERY}
del STYLES["some-generation"]  # its marks are about the last turn only, so each turn needs a sample
EMPTY_BLOCK = re.compile(r"\s*(<(think|reasoning|thought|seed:think)>\s*</\2>|\[THINK\]\s*\[/THINK\])\s*")


def encoded(tokenizer: ChatTokenizer, text: str) -> list[int]:
    return list(tokenizer.tokenizer(text, add_special_tokens=False)["input_ids"])


def forms(tokenizer: ChatTokenizer, case: Case) -> Iterator[tuple[int, list[int]]]:
    """For each turn: how many tokens its prompt has, and the tokens of the prompt and the turn."""
    for turn in (index for index, each in enumerate(adapted_messages(case)) if is_assistant(each)):
        try:
            prompt, whole = text_of(tokenizer, case, turn, True), text_of(tokenizer, case, turn + 1, False)
        except Exception:  # the template refuses to write one of them
            continue
        answers = [whole[len(prompt) :]] if whole.startswith(prompt) else []
        answers += [answer[empty.end() :] for answer in answers if (empty := EMPTY_BLOCK.match(answer))]
        before = encoded(tokenizer, prompt)
        for answer in answers:
            together = encoded(tokenizer, prompt + answer)
            yield len(before), together if begins_with(together, before) else before + encoded(tokenizer, answer)
            if text_of(tokenizer, case, turn, False) == prompt:  # without a generation prompt, no start is known
                yield sum(1 for _ in iter_shared(before, together)), together


def iter_shared(one: Sequence[int], other: Sequence[int]) -> Iterator[int]:
    for here, there in zip(one, other, strict=False):
        if here != there:
            return
        yield here


def inexact(sample: Sample, turns: Sequence[tuple[int, list[int]]], stops: set[int]) -> list[int]:
    """The trained tokens that do not stand as at inference."""
    good: set[int] = set()
    for first, ids in turns:
        shared = sum(1 for _ in iter_shared(sample.ids, ids))
        good.update(range(first, shared))
        if shared == len(ids) and shared >= first and shared < len(sample.ids) and sample.ids[shared] in stops:
            good.add(shared)  # some templates write a stop token only if a message follows
    return [token for token in sample.trained if token not in good]


def audited(tokenizer: ChatTokenizer, row: Row, sample: Sample, stops: set[int]) -> bool:
    """Whether the audit of shards finds a difference."""
    audit = TurnTokenizer(tokenizer.tokenizer, {}, None, escapes=False, skips_reasoning=False)
    conversation = audit.read(row, "messages")
    turns = [index for index, each in enumerate(conversation.message_list) if is_assistant(each)]
    mask = np.zeros(len(sample.ids), np.bool_)
    mask[sample.trained] = True
    found = audit.encode_turns([(conversation, turns)])[0].turns
    return find_difference(np.array(sample.ids, np.int32), mask, found, list(stops), may_lack_start=False) is not None


def refused_prompts(tokenizer: ChatTokenizer, case: Case) -> bool:
    """Whether the template refuses to write the prompt of a turn."""
    for turn in (index for index, each in enumerate(case.conversation.messages) if is_assistant(each)):
        try:
            text_of(tokenizer, case, turn, True)
        except Exception:
            return True
    return False


@pytest.mark.sampled(20)
@pytest.mark.parametrize("case", EVERY, ids=str)
def test_trained_tokens_stand_as_at_inference_or_the_row_is_reported(make_tokenizer: MakeTokenizer, case: Case) -> None:
    tokenizer, row = make_tokenizer(case.style), case.conversation.row
    stops = {tokenizer.tokenizer.eos_token_id, *tokenizer.tokenizer.convert_tokens_to_ids(list(case.style.special))}
    turns = list(forms(tokenizer, case))
    made_rows: list[tuple[Any, Sample]] = []
    try:
        made_rows.append((None, made(tokenizer, row)))
        found = samples_of(tokenizer, tokenizer.conversations, row)
        made_rows += [(found, made(tokenizer, each)) for each in found.rows]
    except RowError:
        pass  # refused, which test_turn_samples.py judges
    for samples, sample in made_rows:
        wrong = inexact(sample, turns, stops)
        if samples is not None and wrong:
            assert samples.differs_from_prompts or refused_prompts(tokenizer, case), "differs and is not reported"
        if not case.style.reads_row:
            assert audited(tokenizer, row, sample, stops) is bool(wrong)


def at_inference(tokenizer: ChatTokenizer, case: Case, turn: int) -> list[int]:
    """The tokens of the prompt of a turn and of the turn; apart, if they would merge."""
    prompt, whole = text_of(tokenizer, case, turn, True), text_of(tokenizer, case, turn + 1, False)
    before, together = encoded(tokenizer, prompt), encoded(tokenizer, whole)
    is_apart = whole.startswith(prompt) and not begins_with(together, before)
    return before + encoded(tokenizer, whole[len(prompt) :]) if is_apart else together


@pytest.mark.sampled(6)
@pytest.mark.parametrize("style", STYLES.values(), ids=lambda style: style.name)
def test_six_turns_take_no_more_tokens_than_their_distinct_histories(make_tokenizer: MakeTokenizer, style: Any) -> None:
    tokenizer, case = make_tokenizer(style), Case(style, "six turns", SIX_TURNS, [])
    try:
        found = samples_of(tokenizer, tokenizer.conversations, SIX_TURNS.row)
        tokens = sum(len(made(tokenizer, each).ids) for each in found.rows)
    except RowError:
        return  # a template that refuses it, or whose mask cannot be verified
    wholes = [at_inference(tokenizer, case, turn) for turn in range(1, 12, 2)]
    needed = [len(ids) for k, ids in enumerate(wholes) if not any(begins_with(each, ids) for each in wholes[k + 1 :])]
    assert tokens <= sum(needed)
