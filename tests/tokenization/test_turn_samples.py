"""`render: per_turn` and `auto`: samples of conversations, checked against transformers for the templates of the tests.

The oracle knows nothing of how samples are found: it renders the prompt of each turn, and the conversation up to it,
with `apply_chat_template`, and compares tokens.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pytest
from test_template_zoo import FAST, adapted_messages, template_variables

from sftkit.config.schema.option_values import AUTO
from sftkit.core.row_log import RowError
from sftkit.core.rows import IGNORE_INDEX, Row
from sftkit.tokenization.chat_tokenizer import ChatTokenizer
from sftkit.tokenization.chat_tokenizer_spec import ChatTokenizerSpec
from sftkit.tokenization.conversation_preparer import ConversationPreparer
from sftkit.tokenization.conversations import is_assistant
from sftkit.tokenization.loading.tokenizer_loading import TokenizerSpec
from sftkit.tokenization.samples.row_samples import RowSamples
from template_zoo import CASES
from template_zoo.conversations import ADD, CONVERSATIONS, ONE_CALL, Conversation, assistant, result, system, user
from template_zoo.model import Case, Style

MakeTokenizer = Callable[[Style], ChatTokenizer]
Message = dict[str, Any]

MORE = {
    "three thoughts": Conversation(
        [
            system("Be kind."),
            user("What is 1+2?"),
            assistant("It is 3.", reasoning_content="They ask for a sum."),
            user("And 2+2?"),
            assistant("It is 4."),
            user("Thank you!"),
            assistant("You are welcome.", reasoning_content="They are polite."),
        ]
    ),
    "tools twice": Conversation(
        [
            user("1+2?"),
            assistant("", tool_calls=ONE_CALL, reasoning_content="I add."),
            result(1, "3"),
            assistant("It is 3.", reasoning_content="The tool says so."),
            user("1+2 again?"),
            assistant("", tool_calls=ONE_CALL, reasoning_content="I add again."),
            result(1, "3"),
            assistant("Still 3.", reasoning_content="It says so again."),
        ],
        [ADD],
    ),
    "thoughts in contents": Conversation(
        [
            user("One?"),
            assistant("<think>\nFirst thought\n</think>\n\nFirst answer"),
            user("Two?"),
            assistant("<think>\nSecond thought\n</think>\n\nSecond answer"),
            user("Three?"),
        ]
    ),
    "five questions": Conversation(
        [message for k in range(5) for message in (user(f"Question {k}?"), assistant(f"Answer {k}."))]
    ),
}
STYLES = list({case.style.name: case.style for case in CASES}.values())
NOT_RENDERED = ("parts", "tool null")
"""Conversations that Qwen3's template cannot render before sftkit adapts them."""
REAL = Style("real qwen3", None, tokenizer="qwen3")
EVERY = [
    *CASES,
    *(Case(style, name, talk, []) for style in STYLES for name, talk in MORE.items()),
    *(Case(REAL, name, talk, []) for name, talk in {**CONVERSATIONS, **MORE}.items() if name not in NOT_RENDERED),
]


class Sample(NamedTuple):
    """Tokens of a row, and those of them that carry a loss."""

    ids: list[int]
    trained: list[int]
    """Indices."""


@pytest.fixture(scope="module")
def make_tokenizer(tokenizer_path: Callable[[str], str]) -> MakeTokenizer:
    @lru_cache(maxsize=4)
    def make(style: Style) -> ChatTokenizer:
        spec = TokenizerSpec(tokenizer_path(style.tokenizer), style.source, style.special)
        return ChatTokenizer(ChatTokenizerSpec(spec, "assistant", FAST))

    return make


def replaced(tokenizer: ChatTokenizer, render: str) -> ConversationPreparer:
    """The same with another value of `render`."""
    own = tokenizer.conversations
    return ConversationPreparer(replace(own._spec, render=render), own._engines, own._reader, own._supervision)


def samples_of(tokenizer: ChatTokenizer, conversations: ConversationPreparer, row: Row) -> RowSamples:
    """The samples of a conversation as a run finds them: all tokens are compared if the first rows are not exact."""
    found = conversations.samples(row, "messages", None)
    encoded = tokenizer.encode_prepared([conversations.prepare(each, "messages") for each in found.rows])
    if encoded.inexact is None or not encoded.inexact.any():
        return found
    return conversations.samples(row, "messages", None, compares_all_tokens=True)


def made(tokenizer: ChatTokenizer, row: Row) -> Sample:
    prepared = tokenizer.conversations.prepare(row, "messages")
    encoded = tokenizer.encode_prepared([prepared])
    return Sample(encoded.input_ids.values.tolist(), np.flatnonzero(encoded.labels.values != IGNORE_INDEX).tolist())


def sample_of(tokenizer: ChatTokenizer, row: Row, turn: int, last: int) -> Sample:
    """The conversation up to the turn `last`, of which only one turn is trained, as `render: once` makes it."""
    return made(tokenizer, {**row, "messages": with_flags(row["messages"][: last + 1], turn)})


def with_flags(messages: Sequence[Message], turn: int) -> list[Message]:
    """Messages of which only one turn is trained."""
    return [
        {**message, "train": index == turn} if is_assistant(message) else message
        for index, message in enumerate(messages)
    ]


def text_of(tokenizer: ChatTokenizer, case: Case, count: int, prompt: bool) -> str:
    """What transformers writes for the first messages of a case."""
    source = case.style.source
    if case.style.reads_row and source is not None:
        source = source.replace("messages['messages']", "messages")
    text = tokenizer.tokenizer.apply_chat_template(
        adapted_messages(case)[:count],
        chat_template=source,
        tokenize=False,
        add_generation_prompt=prompt,
        **template_variables(case),
    )
    return str(text)


def rendered(tokenizer: ChatTokenizer, case: Case, count: int, *, prompt: bool) -> list[int]:
    """The tokens of what transformers writes for the first messages of a case."""
    text = text_of(tokenizer, case, count, prompt)
    return list(tokenizer.tokenizer(text, add_special_tokens=False)["input_ids"])


def apart(tokenizer: ChatTokenizer, case: Case, turn: int) -> list[int]:
    """The tokens of the prompt of a turn, and those of the turn encoded by itself.

    If the turn does not begin with its prompt, it begins where its mask does.
    """
    whole = text_of(tokenizer, case, turn + 1, prompt=False)
    try:
        prompt = text_of(tokenizer, case, turn, prompt=True)
    except Exception:  # the template refuses to write a prompt there
        prompt = "?"
    start = len(prompt)
    if not whole.startswith(prompt):
        messages = with_flags(case.conversation.row["messages"][: turn + 1], turn)
        row = {**case.conversation.row, "messages": messages}
        start = tokenizer.conversations.find_trained_spans(row, "messages")[1][0][0]
    pieces = tokenizer.tokenizer([whole[:start], whole[start:]], add_special_tokens=False)["input_ids"]
    return [*pieces[0], *pieces[1]]


EMPTY_REASONING = re.compile(r"\s*(<(think|reasoning|thought)>\s*</\2>|\[THINK\]\s*\[/THINK\])")


def forms_of_turns(tokenizer: ChatTokenizer, case: Case) -> Iterator[tuple[int, list[int]]]:
    """For each turn, the number of tokens of its prompt, and the tokens of the prompt and the turn at inference.

    A turn without reasoning may also lack the empty block of reasoning that some templates write at the end.
    """

    def ids(text: str) -> list[int]:
        return list(tokenizer.tokenizer(text, add_special_tokens=False)["input_ids"])

    for turn in (index for index, each in enumerate(case.conversation.row["messages"]) if is_assistant(each)):
        try:
            prompt, bare, whole = (
                text_of(tokenizer, case, *each) for each in ((turn, True), (turn, False), (turn + 1, False))
            )
        except Exception:  # the template refuses to write one of them
            continue
        if not whole.startswith(prompt):
            continue
        answer, start = whole[len(prompt) :], 0 if prompt == bare else len(ids(prompt))
        yield start, ids(whole)
        yield start, ids(prompt) + ids(answer)
        if empty := EMPTY_REASONING.match(answer):
            rest = answer[empty.end() :]
            for space in range(len(rest) - len(rest.lstrip()) + 1):
                yield start, ids(prompt) + ids(rest[space:])
                yield start, ids(prompt + rest[space:])


def check_as_inference(forms: Sequence[tuple[int, list[int]]], stops: set[int], sample: Sample) -> None:
    """Check that each trained token follows the tokens of a prompt and of its own turn."""
    good: set[int] = set()
    for start, form in forms:
        shared = next(
            (k for k, pair in enumerate(zip(sample.ids, form, strict=False)) if pair[0] != pair[1]), len(form)
        )
        shared = min(shared, len(sample.ids))
        good.update(range(start, shared))
        # Some templates write the stop token of a turn only if a message follows.
        if shared == len(form) and shared < len(sample.ids) and sample.ids[shared] in stops:
            good.add(shared)
    assert {*sample.trained} <= good


def turns_of(messages: Sequence[Message]) -> list[int]:
    return [index for index, each in enumerate(messages) if is_assistant(each) and each.get("train", True)]


def begins_with(longer: Sequence[int], shorter: Sequence[int]) -> bool:
    return list(longer[: len(shorter)]) == list(shorter)


def maximal(tokenizer: ChatTokenizer, row: Row, samples: dict[int, Sample]) -> int:
    """How many samples no later one begins with, by brute force. A later one must show the turn as one of its own."""

    def holds(other: int, turn: int) -> bool:
        mine = samples[turn]
        return begins_with(samples[other].ids, mine.ids[: mine.trained[-1] + 1]) and begins_with(
            sample_of(tokenizer, row, turn, other).trained, mine.trained
        )

    return sum(not any(other > turn and holds(other, turn) for other in samples) for turn in samples)


def differing(tokenizer: ChatTokenizer, case: Case, samples: dict[int, Sample]) -> Iterator[int]:
    """The turns whose trained tokens do not follow the tokens of their prompt."""
    for turn, sample in samples.items():
        if not turn:
            continue
        try:
            prompt = rendered(tokenizer, case, turn, prompt=True)
        except Exception:  # the template refuses to write a prompt there
            continue
        texts = [text_of(tokenizer, case, *each) for each in ((turn + 1, False), (turn, True), (turn, False))]
        has_prompt = texts[1] != texts[2] or not texts[0].startswith(texts[1])
        if has_prompt and not (begins_with(sample.ids, prompt) and sample.trained[0] >= len(prompt)):
            yield turn


@pytest.mark.sampled(4)
@pytest.mark.parametrize("case", EVERY, ids=str)
def test_every_trained_token_follows_what_inference_sees(make_tokenizer: MakeTokenizer, case: Case) -> None:
    tokenizer, row = make_tokenizer(case.style), case.conversation.row
    try:
        once: Sample | None = made(tokenizer, row)
    except RowError:
        once = None
    try:
        found = samples_of(tokenizer, tokenizer.conversations, row)
        rows = [made(tokenizer, each) for each in found.rows]
        own = {turn: sample_of(tokenizer, row, turn, turn) for turn in turns_of(row["messages"])}
    except RowError:
        assert once is None or len(turns_of(row["messages"])) > 1, "refused, although it is rendered once"
        return
    ends = {turn: sample.trained[-1] + 1 if sample.trained else len(sample.ids) for turn, sample in own.items()}
    own = {turn: sample for turn, sample in own.items() if sample.trained}
    where = {turn: number for number, each in enumerate(found.rows) for turn in turns_of(each["messages"])}
    for turn, sample in own.items():
        mine = sample.ids[: ends[turn]]
        assert begins_with(rows[where[turn]].ids, mine), "another history or form than at inference"
        whole = rendered(tokenizer, case, turn + 1, prompt=False)
        assert begins_with(whole, mine) or begins_with(apart(tokenizer, case, turn), mine)
    for number, each in enumerate(rows):
        expected = {k for turn, sample in own.items() if where[turn] == number for k in sample.trained}
        assert expected <= {*each.trained}
        # Some templates write the stop token of a turn only if a message follows.
        starts = {ends[turn] for turn in ends if where.get(turn) == number}
        for k in each.trained:
            if k not in expected:
                assert k in starts, "trains other tokens than those of its turns"
                starts.add(k + 1)
    if own:
        assert len(rows) == maximal(tokenizer, row, own)
        assert found.differs_from_prompts is any(True for _ in differing(tokenizer, case, own))
    if once is None:
        return
    automatic = samples_of(tokenizer, replaced(tokenizer, AUTO), row)
    assert automatic.rows in ([row], found.rows)
    if automatic.differing or automatic.unknown:
        assert found.differing or found.unknown
    else:
        forms = list(forms_of_turns(tokenizer, case))
        stops = {*tokenizer.tokenizer.convert_tokens_to_ids([*tokenizer.stop_tokens, *case.style.special])}
        for each in automatic.rows:
            check_as_inference(forms, stops, made(tokenizer, each))
    if all(
        begins_with(once.ids, sample.ids[: ends[turn]]) and {*sample.trained} <= {*once.trained}
        for turn, sample in own.items()
    ):
        assert found.rows == automatic.rows == [row], "an ordinary conversation became something else"
