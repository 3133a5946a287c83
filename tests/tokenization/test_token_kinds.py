"""The kinds of trained tokens: parts of turns, their tokens, and what ids alone say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pytest

import chat_templates as templates
from sftkit.core.row_log import RowError
from sftkit.core.rows import Mask, Ragged, Row
from sftkit.core.token_kinds import TokenKind, kinds_by_stop_ids, kinds_for_labels
from sftkit.tokenization.chat_tokenizer import ChatTokenizer
from sftkit.tokenization.chat_tokenizer_spec import ChatTokenizerSpec
from sftkit.tokenization.encoding.spans import Span, TokensWithOffsets, tokens_in_spans
from sftkit.tokenization.engines import EnginePolicy
from sftkit.tokenization.loading.tokenizer_loading import TokenizerSpec
from sftkit.tokenization.masking.parts.part_tokens import encode_parts
from sftkit.tokenization.masking.turn_parts import Part, fill_spans, turn_parts
from template_zoo import CASES
from template_zoo.conversations import assistant, user
from template_zoo.model import Case, Style

CONTENT, REASONING, TOOL_CALL, STOP = TokenKind.CONTENT, TokenKind.REASONING, TokenKind.TOOL_CALL, TokenKind.STOP

END = "<|im_end|>"
CALL: Row = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
WRITTEN = '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>'

Found = list[tuple[str, str]]


def divided(turn: str, message: Row) -> Found:
    """The parts of a turn that ends with a stop token, with their kinds."""
    text = f"before {turn} after"
    span = (7, 7 + len(turn))
    stop = text.rindex(END) if END in turn else span[1]
    parts = fill_spans([span], list(turn_parts(text, span, stop, message)))
    assert "".join(text[start:end] for start, end, *_ in parts) == turn
    return [(text[start:end], kind.label) for start, end, kind, _ in parts]


@pytest.mark.parametrize(
    ("turn", "message", "expected"),
    [
        (f"yes{END}", {"content": "yes"}, [("yes", "content"), (END, "stop")]),
        ("yes", {"content": "yes"}, [("yes", "content")]),
        (END, {"content": ""}, [(END, "stop")]),
        (f"yes{END}\n", {"content": "yes"}, [("yes", "content"), (f"{END}\n", "stop")]),
        (
            f"<think>\nhm\n</think>\n\nyes{END}",
            {"content": "yes", "reasoning_content": "hm"},
            [("<think>\nhm\n</think>\n\n", "reasoning"), ("yes", "content"), (END, "stop")],
        ),
        (f"<think>hm{END}", {"content": "<think>hm"}, [("<think>hm", "content"), (END, "stop")]),
        (
            f"yes\n{WRITTEN}{END}",
            {"content": "yes", "tool_calls": [CALL]},
            [("yes", "content"), (f"\n{WRITTEN}", "tool_call"), (END, "stop")],
        ),
        (f"{WRITTEN}{END}", {"content": None, "tool_calls": [CALL]}, [(WRITTEN, "tool_call"), (END, "stop")]),
        (f"{WRITTEN}{END}", {"content": "dropped", "tool_calls": [CALL]}, [(WRITTEN, "tool_call"), (END, "stop")]),
        (
            f"<think>hm</think>{WRITTEN}{END}",
            {"content": "<think>hm</think>", "tool_calls": [CALL]},
            [("<think>hm</think>", "reasoning"), (WRITTEN, "tool_call"), (END, "stop")],
        ),
        (
            f"<|say|>yes<|act|>{WRITTEN}{END}",
            {"content": "yes", "tool_calls": [CALL]},
            [("<|say|>yes", "content"), (f"<|act|>{WRITTEN}", "tool_call"), (END, "stop")],
        ),
        (
            f"{WRITTEN}\nso be it{END}",
            {"content": "so be it", "tool_calls": [CALL]},
            [(f"{WRITTEN}\n", "tool_call"), ("so be it", "content"), (END, "stop")],
        ),
        (f"call c1{END}", {"content": "", "tool_calls": [CALL]}, [("call c1", "tool_call"), (END, "stop")]),
        (
            f"add(1){END}",
            {"content": "", "function_call": {"name": "add", "arguments": "1"}},
            [("add(1)", "tool_call"), (END, "stop")],
        ),
        (
            f"add(1){END}",
            {"content": "", "tool_calls": '[{"name": "add"}]'},
            [("add(1)", "tool_call"), (END, "stop")],
        ),
        (
            f'{{"name": "add"}}{END}',
            {"role": "function_call", "content": '{"name": "add"}'},
            [('{"name": "add"}', "tool_call"), (END, "stop")],
        ),
    ],
)
def test_a_turn_is_divided(turn: str, message: Row, expected: Found) -> None:
    assert divided(turn, {"role": "assistant", **message}) == expected


@pytest.mark.parametrize(
    "message",
    [
        {"content": "other words, yes", "tool_calls": [CALL]},  # the template wrote only a part of the content
        {"content": "", "tool_calls": [{"function": {"name": "subtract"}}]},  # another call than was written
        {"content": "", "tool_calls": [CALL, {"function": {"name": "subtract"}}]},
        {"content": "", "tool_calls": [{"function": {}}]},
        {"content": "", "tool_calls": "no JSON"},
        {"content": "", "tool_calls": []},
        {},
    ],
)
def test_what_is_not_certain_is_content(message: Row) -> None:
    written = f"other {WRITTEN} words, yes"
    if message.get("content"):
        message = {**message, "content": "other\nwords"}
    assert divided(f"{written}{END}", {"role": "assistant", **message}) == [(written, "content"), (END, "stop")]


@pytest.mark.parametrize(
    ("spans", "parts", "expected"),
    [
        ([], [Part(0, 5, STOP)], []),
        ([(0, 5)], [], [(0, 5, CONTENT)]),
        ([(0, 2), (2, 5)], [], [(0, 5, CONTENT)]),
        ([(3, 6)], [Part(0, 4, REASONING), Part(5, 9, STOP)], [(3, 4, REASONING), (4, 5, CONTENT), (5, 6, STOP)]),
        (
            [(0, 4), (6, 9)],
            [Part(3, 7, TOOL_CALL)],
            [(0, 3, CONTENT), (3, 4, TOOL_CALL), (6, 7, TOOL_CALL), (7, 9, CONTENT)],
        ),
        ([(4, 9)], [Part(0, 4, REASONING), Part(4, 4, TOOL_CALL), Part(9, 9, STOP)], [(4, 9, CONTENT)]),
    ],
)  # fmt: skip
def test_parts_fill_the_trained_spans(spans: list[Span], parts: list[Part], expected: list[Part]) -> None:
    assert fill_spans(spans, parts) == [Part(*part) for part in expected]


# --- Tokens -------------------------------------------------------------------------------------------


class Fixed:
    """An encoder that cuts every text at the same positions."""

    name = "fixed"

    def __init__(self, *cuts: int) -> None:
        self.starts, self.ends = [0, *cuts[:-1]], list(cuts)
        self.calls = 0

    def encode(self, texts: Sequence[str], *, add_special_tokens: bool = True, limit: int | None = None) -> Ragged:
        return Ragged.from_lists([self.starts for _ in texts])

    def encode_spans(
        self, texts: Sequence[str], spans: Sequence[Sequence[Span]], *, add_special_tokens: bool
    ) -> tuple[Ragged, Mask]:
        self.calls += 1
        ids = self.encode(texts)
        edges = [np.array(edge * len(texts), np.int64) for edge in (self.starts, self.ends)]
        return ids, tokens_in_spans(TokensWithOffsets(ids, *edges), [len(text) for text in texts], spans)


@pytest.mark.parametrize(
    ("cuts", "parts", "kinds"),
    [
        ((2, 4, 6), [(2, 4, CONTENT), (4, 6, STOP)], [0, 1, 4]),
        ((3, 6), [(2, 4, CONTENT), (4, 6, STOP)], [1, 1]),  # the token over the boundary begins with content
        ((3, 6), [(0, 3, REASONING), (4, 6, STOP)], [2, 4]),  # its first trained character counts
        ((1, 2, 3, 4, 5, 6), [(0, 2, REASONING), (2, 3, CONTENT), (3, 5, TOOL_CALL), (5, 6, STOP)], [2, 2, 1, 3, 3, 4]),
        ((1, 4, 6), [(0, 2, REASONING), (2, 3, CONTENT), (3, 6, STOP)], [2, 2, 4]),  # a part without a token of its own
        ((2, 4, 6), [(0, 1, REASONING), (1, 3, CONTENT), (3, 6, STOP)], [2, 1, 4]),
        ((6,), [(0, 1, REASONING), (1, 2, CONTENT), (2, 3, STOP), (3, 4, REASONING), (4, 6, STOP)], [2]),
        ((3, 6), [], [0, 0]),
    ],
)  # fmt: skip
def test_a_token_has_the_kind_of_its_first_character(
    cuts: tuple[int, ...], parts: list[tuple[int, int, TokenKind]], kinds: list[int]
) -> None:
    row = [Part(*part) for part in parts]
    others = [Part(0, 6, CONTENT)]
    texts = ["abcdef"] * 3
    made = encode_parts(Fixed(*cuts), texts, [others, row, others])
    assert made.kinds is not None
    assert [made.kinds[number].tolist() for number in range(3)] == [[1] * len(cuts), kinds, [1] * len(cuts)]
    assert ((made.labels.values == -100) == (made.kinds.values == 0)).all()


def test_two_encodings_are_enough_in_the_common_case() -> None:
    encoder = Fixed(2, 4, 6)
    encode_parts(encoder, ["abcdef"] * 2, [[Part(0, 4, CONTENT), Part(4, 6, STOP)], [Part(2, 6, CONTENT)]])
    assert encoder.calls == 2


def test_a_text_with_many_short_parts_is_content() -> None:
    parts = [Part(place, place + 1, REASONING if place % 2 else STOP) for place in range(100)]
    made = encode_parts(Fixed(100), ["a" * 100], [parts])
    assert made.kinds is not None
    assert made.kinds.values.tolist() == [CONTENT]


@pytest.mark.parametrize(
    ("ids", "labels", "kinds"),
    [
        ([[5, 6, 2]], [[-100, 6, 2]], [0, 1, 4]),
        ([[2, 6, 2, 2]], [[2, 6, 2, 2]], [1, 1, 4, 4]),
        ([[5, 2, 6, 2]], [[5, 2, -100, 2]], [1, 4, 0, 4]),
        ([[5, 2], [6, 7]], [[5, 2], [6, 7]], [1, 4, 1, 1]),  # the next row does not matter
        ([[2], [], [6]], [[2], [], [-100]], [4, 0]),
        ([[2, 3]], [[2, 3]], [4, 4]),
    ],
)
def test_ids_say_which_tokens_are_stop_tokens(ids: list[list[int]], labels: list[list[int]], kinds: list[int]) -> None:
    assert kinds_by_stop_ids(Ragged.from_lists(ids), Ragged.from_lists(labels), [2, 3]).values.tolist() == kinds


def test_without_stop_tokens_everything_trained_is_content() -> None:
    ids = Ragged.from_lists([[1, 2], []])
    assert kinds_by_stop_ids(ids, Ragged.from_lists([[-100, 2], []]), []).values.tolist() == [0, 1]


def test_kinds_agree_with_labels() -> None:
    kinds, labels = Ragged.from_lists([[2, 0, 3, 4]]), Ragged.from_lists([[-100, 6, 7, 8]])
    assert kinds_for_labels(kinds, labels).values.tolist() == [0, 1, 3, 4]


# --- Conversations ------------------------------------------------------------------------------------

THOUGHT = [user("a"), assistant("<think>hm</think>\nb"), user("c"), assistant("d", tool_calls=[CALL])]
REASONED: Found = [("<think>hm</think>\n", "reasoning"), ("b", "content"), (END, "stop")]
CALLED: Found = [("d", "content"), ('<tool_call>{"id": "c1"', "tool_call"), (END, "stop")]


def parts_of(tokenizer: ChatTokenizer, messages: list[Row]) -> Found:
    prepared = tokenizer.conversations.prepare({"messages": messages}, "messages")
    parts = [(prepared.text[start:end], kind) for start, end, kind, _ in prepared.trained]
    return [(text[:22] if kind == TOOL_CALL else text, kind.label) for text, kind in parts]


@pytest.mark.parametrize(
    ("template", "options", "expected"),
    [
        (templates.TOOLS, {}, REASONED + CALLED),
        (templates.TOOLS, {"train_on": "last_assistant"}, CALLED),
        (templates.TOOLS, {"reasoning": "mask"}, REASONED[1:] + CALLED),
        (templates.CHATML, {}, [*REASONED, ("d", "content"), (END, "stop")]),
        (templates.GENERATION, {}, [*REASONED, ("d", "content"), (END, "stop")]),
        (templates.GENERATION, {"train_on": "last_assistant"}, [("d", "content"), (END, "stop")]),
        (
            templates.CHATML,
            {"train_on": "all", "reasoning": "mask"},
            [
                ("<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n", "content"),
                *REASONED[1:],
                ("\n<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\nd", "content"),
                (END, "stop"),
                ("\n", "content"),
            ],
        ),
    ],
)
def test_conversations_are_divided(
    chat_tokenizer: Callable[..., Any], template: str, options: dict[str, str], expected: Found
) -> None:
    assert parts_of(chat_tokenizer(template, token_kinds=True, **options), THOUGHT) == expected


def test_everything_is_trained_with_kinds_in_turns(chat_tokenizer: Callable[..., Any]) -> None:
    tokenizer = chat_tokenizer(templates.CHATML, token_kinds=True, train_on="all")
    parts = parts_of(tokenizer, THOUGHT)
    assert parts[1:4] == REASONED
    assert [kind for _, kind in parts] == ["content", "reasoning", "content", "stop", "content", "stop", "content"]
    assert parts_of(tokenizer, [user("a")]) == [("<|im_start|>user\na<|im_end|>\n", "content")]


def test_without_the_option_there_are_no_kinds(chat_tokenizer: Callable[..., Any]) -> None:
    tokenizer = chat_tokenizer(templates.CHATML)
    assert tokenizer.kind_marker is None
    assert tokenizer.encode_conversations(["a"], [[(0, 1)]]).kinds is None


def refusal(find: Callable[[Row, str], object], case: Case) -> str | None:
    """Why a row is refused; None if it is not."""
    try:
        find(case.conversation.row, "messages")
    except RowError as error:
        return str(error)
    return None


@pytest.mark.sampled(10)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_kinds_change_no_mask(make_tokenizers: Callable[[Style], Sequence[ChatTokenizer]], case: Case) -> None:
    plain, with_kinds = make_tokenizers(case.style)
    refused = refusal(plain.conversations.prepare, case)
    assert refusal(with_kinds.conversations.prepare, case) == refused
    if refused is not None:
        return
    row = case.conversation.row
    expected, made = (
        each.encode_prepared([each.conversations.prepare(row, "messages")]) for each in (plain, with_kinds)
    )
    assert made.input_ids.values.tolist() == expected.input_ids.values.tolist()
    assert made.labels.values.tolist() == expected.labels.values.tolist()
    assert made.kinds is not None
    assert ((made.kinds.values == 0) == (made.labels.values == -100)).all()


@pytest.fixture(scope="module")
def make_tokenizers(tokenizer_path: Callable[[str], str]) -> Callable[[Style], Sequence[ChatTokenizer]]:
    """Make the `ChatTokenizer`s of a style, without and with kinds."""
    engines = EnginePolicy(frozenset(), verify_fraction=0.0)

    @lru_cache(maxsize=4)  # tokenizers are big, and cases in order of style
    def make(style: Style) -> Sequence[ChatTokenizer]:
        spec = TokenizerSpec(tokenizer_path(style.tokenizer), style.source, style.special)
        return [ChatTokenizer(ChatTokenizerSpec(spec, "assistant", engines, token_kinds=on)) for on in (False, True)]

    return make
