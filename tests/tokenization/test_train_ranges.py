"""`train_ranges`, axolotl's `train_detail`, and content parts with `train: false`: which characters carry a loss.

The reference verifies the fast engines on each row. Expectations are written by hand; random rows are compared with an
oracle that knows where the content of a ChatML turn is, and asks the tokenizer for the characters of each token.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chat_templates as templates
from sftkit.core.accounting.row_notes import LOSS_FLAG_UNUSED
from sftkit.core.row_log import RowError
from sftkit.core.rows import IGNORE_INDEX, Row
from sftkit.tokenization.chat_tokenizer import ChatTokenizer
from sftkit.tokenization.templates.named_templates import named_or_given
from support import EFFORT, dataset, handler, preprocess, trained_texts, write_jsonl, written
from template_zoo.conversations import assistant, system, user

MakeChatTokenizer = Callable[..., ChatTokenizer]

END = "<|im_end|>"


def only(begin: int, end: int) -> Row:
    return {"begin": begin, "end": end, "train": True}


def without(begin: int, end: int) -> Row:
    return {"begin": begin, "end": end, "train": False}


def trained(tokenizer: ChatTokenizer, messages: list[Row], **row: Any) -> list[str]:
    text, spans = tokenizer.conversations.find_trained_spans({**row, "messages": messages}, "messages")
    return [piece for piece in trained_texts(text, spans) if piece]


def of_answer(tokenizer: ChatTokenizer, content: Any, ranges: Any, **keys: Any) -> list[str]:
    return trained(tokenizer, [user("q"), assistant(content, train_ranges=ranges, **keys)])


def trained_tokens(tokenizer: ChatTokenizer, row: Row) -> list[str]:
    """The trained runs of tokens of a row, as text."""
    encoded = tokenizer.encode_prepared([tokenizer.conversations.prepare(row, "messages")])
    ids, labels = encoded.input_ids.values.tolist(), encoded.labels.values.tolist()
    runs: list[list[int]] = [[]]
    for token, label in zip(ids, labels, strict=True):
        if label == IGNORE_INDEX:
            runs.append([])
        else:
            runs[-1].append(token)
    return [tokenizer.tokenizer.decode(run) for run in runs if run]


# --- Characters ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ranges", "expected"),
    [
        ([only(0, 5)], ["hello", END]),
        ([only(6, 11)], [f"world{END}"]),
        ([without(0, 5)], [f" world{END}"]),
        ([without(6, 11)], ["hello ", END]),
        ([without(2, 3)], ["he", f"lo world{END}"]),
        ([only(0, 2), only(4, 5)], ["he", "o", END]),
        ([only(0, 3), only(2, 5)], ["hello", END]),
        ([without(0, 3), without(3, 5)], [f" world{END}"]),
        ([without(0, 5), only(6, 11)], [f"world{END}"]),
        ([only(0, 11)], [f"hello world{END}"]),
        ([without(0, 11)], [END]),
        ([without(4, 4)], [f"hello world{END}"]),
        ([only(4, 4)], [END]),
        ([only(11, 11)], [END]),
        ([], [f"hello world{END}"]),
        (None, [f"hello world{END}"]),
        ("", [f"hello world{END}"]),
        ([{"begin": 0, "end": 5, "train": 1, "begin_offset": None}], ["hello", END]),
        ([{"begin": 0, "end": 5, "train": "no"}], [f" world{END}"]),
    ],
)
def test_ranges_choose_characters(chat_tokenizer: MakeChatTokenizer, ranges: Any, expected: list[str]) -> None:
    assert of_answer(chat_tokenizer(templates.CHATML), "hello world", ranges) == expected


@pytest.mark.parametrize("key", ["train_detail", "training_detail"])
@pytest.mark.parametrize(
    ("ranges", "expected"),
    [
        ([(0, 4, True), (5, 10, False)], ["hello", END]),
        ([(0, 4, True)], ["hello", END]),
        ([(0, 4, False)], [END]),
        ([(10, 10, True)], [f"d{END}"]),
        ([], [f"hello world{END}"]),
    ],
)
def test_the_ranges_of_axolotl_include_their_end(
    chat_tokenizer: MakeChatTokenizer, key: str, ranges: list[Any], expected: list[str]
) -> None:
    names = ("begin_offset", "end_offset", "train")
    message = assistant("hello world", **{key: [dict(zip(names, each, strict=True)) for each in ranges]})
    assert trained(chat_tokenizer(templates.CHATML), [user("q"), message]) == expected


@pytest.mark.parametrize(
    ("content", "ranges", "expected"),
    [
        ("é😀ü漢字", [only(1, 2)], ["😀", END]),
        ("é😀ü漢字", [without(1, 4)], ["é", f"字{END}"]),
        ("e\u0301x", [only(0, 1)], ["e", END]),
        ("👩‍👩‍👧 family", [only(0, 5)], ["👩‍👩‍👧", END]),
        ("a\r\nb", [only(2, 4)], [f"\nb{END}"]),
    ],
)
def test_characters_are_those_of_unicode(
    chat_tokenizer: MakeChatTokenizer, content: str, ranges: list[Row], expected: list[str]
) -> None:
    assert of_answer(chat_tokenizer(templates.CHATML), content, ranges) == expected


@pytest.mark.parametrize("name", ["bpe", "metaspace", "sample:model", "qwen3", "granite", "tinyllama"])
def test_a_token_is_trained_if_one_of_its_characters_is(chat_tokenizer: MakeChatTokenizer, name: str) -> None:
    tokenizer = chat_tokenizer(
        templates.CHATML, name=name, special=("<|im_start|>", "<|im_end|>"), train_on_stop="none"
    )
    content = "The answer is 42 😀, surely."
    for begin in range(len(content)):
        row = {"messages": [user("q"), assistant(content, train_ranges=[only(begin, begin + 1)])]}
        [run] = trained_tokens(tokenizer, row)
        assert content[begin].strip() in run or "\ufffd" in run
    row = {"messages": [user("q"), assistant(content, train_ranges=[without(0, len(content))])]}
    assert trained_tokens(tokenizer, row) == []


TOKENS = {
    "qwen3": ["str", "aw", "😀", "berry"],
    "granite": ["str", "aw", "😀", "berry"],
    "tinyllama": ["st", "raw", "😀", "berry"],
    "sample:model": ["s", "t", "ra", "w", "😀", "ber", "r", "y"],
}
"""How tokenizers divide a content. Some divide 😀 into several tokens; all of these have its one character."""


@pytest.mark.parametrize("edges", ["any", "inner"])
@pytest.mark.parametrize("name", list(TOKENS))
def test_every_boundary_in_jsonl_and_parquet(
    tmp_path: Path, tokenizer_path: Callable[[str], str], reference: Callable[[str], Any], name: str, edges: str
) -> None:
    content = "".join(TOKENS[name])
    assert content == "straw😀berry"
    ranges = [(begin, end) for end in range(len(content) + 1) for begin in range(end + 1)]
    messages = [[user("q"), assistant(content, train_ranges=[only(*each)])] for each in ranges]
    sources = [write_jsonl(tmp_path / "in.jsonl", [{"messages": each} for each in messages]), tmp_path / "in.parquet"]
    pq.write_table(pa.table({"messages": messages}), sources[1])
    data = dataset(*sources, data_handlers=[handler("tokenize_and_apply_chat_template_with_masking")])
    preprocess(
        tmp_path / "out",
        data,
        processor={"chat_template": templates.CHATML},
        model_name_or_path=tokenizer_path(name),
        add_special_tokens=("<|im_start|>", END),
        range_edges=edges,
    )
    expected: list[str] = []
    for begin, end in ranges:
        trained, first = "", 0
        for token in TOKENS[name]:
            last = first + len(token)
            is_inside = max(first, begin) < min(last, end) if edges == "any" else begin <= first and last <= end
            trained, first = trained + token * is_inside, last
        expected.append(trained)
    loaded = reference(name)
    labels = [[label for label in row["labels"] if label >= 0] for row in written(tmp_path / "out")]
    assert [loaded.decode(each[:-1]) for each in labels] == expected * 2  # the last one is the stop token


# --- What templates do to a content -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "content", "ranges", "expected"),
    [
        ("LLAMA2", "hello world", [only(0, 5)], [" hello", " </s>"]),
        ("LLAMA2", "\nhello world\n", [only(0, 6)], [" hello", " </s>"]),
        ("LLAMA2", "\n hello world \n", [without(2, 7)], [" ", " world </s>"]),
        ("LLAMA2", "\t\thello world", [without(0, 2)], [" hello world </s>"]),
        ("GENERATION", "hello world", [only(6, 11)], [f"world{END}"]),
        ("BY_INDEX", "hello world", [without(0, 6)], [f"world{END}"]),
        ("NO_PROMPT", "hello world", [without(0, 6)], [f"world{END}"]),
        ("CAPTURED", "hello world", [without(0, 6)], [f"world{END}"]),
        ("CHATML", "  hello  ", [without(0, 1)], [f" hello  {END}"]),
        ("CHATML", "  hello  ", [only(8, 9)], [f" {END}"]),
    ],
)
def test_ranges_follow_the_content_through_the_template(
    chat_tokenizer: MakeChatTokenizer, template: str, content: str, ranges: list[Row], expected: list[str]
) -> None:
    assert of_answer(chat_tokenizer(getattr(templates, template)), content, ranges) == expected


@pytest.mark.parametrize(
    ("change", "often"),
    [
        ("message.content | upper", "not unchanged"),
        ("message.content | replace('o', '0')", "not unchanged"),
        ("message.content + ' ' + message.content", "several times"),
        ("(message.content | tojson)[1:-1] | replace('l', 'L')", "not unchanged"),
        ("'nothing'", "not unchanged"),
    ],
)
def test_a_content_that_the_template_changes_is_refused(
    chat_tokenizer: MakeChatTokenizer, change: str, often: str
) -> None:
    written = f"(({change}) if message.role == 'assistant' else message.content)"
    source = templates.GENERATION.replace(
        "{{- message.content + '<|im_end|>' }}", f"{{{{- {written} + '<|im_end|>' }}}}"
    )
    tokenizer = chat_tokenizer(source)
    with pytest.raises(RowError, match=f"message 1: the chat template writes its content {often}, so the characters"):
        of_answer(tokenizer, "hello", [only(0, 2)])
    assert of_answer(tokenizer, "hello", [only(0, 5)])


def test_white_space_that_is_written_in_part_is_refused(chat_tokenizer: MakeChatTokenizer) -> None:
    for ranges in ([only(0, 7)], [without(0, 1)], [without(14, 15)]):
        with pytest.raises(RowError, match="message 1: the chat template writes a part of the white space around its"):
            of_answer(chat_tokenizer(templates.LLAMA2), "\n hello world \n", ranges)


def test_white_space_that_is_stripped_does_not_matter_if_all_is_trained(chat_tokenizer: MakeChatTokenizer) -> None:
    assert of_answer(chat_tokenizer(templates.LLAMA2), " hello ", [only(0, 7)]) == [" hello </s>"]


def test_white_space_alone_cannot_be_found(chat_tokenizer: MakeChatTokenizer) -> None:
    with pytest.raises(RowError, match="message 1: the chat template writes its content not unchanged"):
        of_answer(chat_tokenizer(templates.CHATML), " \n", [without(0, 1)])


def test_reasoning_and_calls_are_not_searched(chat_tokenizer: MakeChatTokenizer) -> None:
    tokenizer = chat_tokenizer(named_or_given("chatml"), special=("<|im_start|>", "<|im_end|>"))
    call = {"type": "function", "function": {"name": "add", "arguments": {"say": "add"}}}
    [thought, rest] = of_answer(tokenizer, "think", [without(0, 2)], reasoning_content="I think")
    assert (thought, rest) == ("<think>\nI think\n</think>\n\n", f"ink{END}")
    [first, second] = of_answer(tokenizer, "add", [without(1, 2)], tool_calls=[call])
    assert first == "a"
    assert second.startswith("d\n<tool_call>")
    assert of_answer(tokenizer, "im_end", [only(0, 2)]) == ["im", END]


def test_reasoning_in_the_content_counts_as_content(chat_tokenizer: MakeChatTokenizer) -> None:
    content = "<think>hm</think>yes"
    assert of_answer(chat_tokenizer(templates.CHATML), content, [without(7, 9)]) == ["<think>", f"</think>yes{END}"]
    masked = chat_tokenizer(templates.CHATML, reasoning="mask")
    assert of_answer(masked, content, [without(18, 19)]) == ["y", f"s{END}"]


# --- Other choices ------------------------------------------------------------------------------------


def test_flags_and_train_on_decide_first(chat_tokenizer: MakeChatTokenizer) -> None:
    messages = [user("a"), assistant("hello", train_ranges=[only(0, 2)]), user("c"), assistant("bye")]
    assert trained(chat_tokenizer(templates.CHATML), messages) == ["he", END, f"bye{END}"]
    assert trained(chat_tokenizer(templates.CHATML, train_on="last_assistant"), messages) == [f"bye{END}"]
    messages[1]["train"] = False
    assert trained(chat_tokenizer(templates.CHATML), messages) == [f"bye{END}"]
    messages[1] |= {"train": True}
    assert trained(chat_tokenizer(templates.CHATML, train_on_stop="none"), messages) == ["he", "bye"]


def test_with_train_on_all_ranges_hold_for_every_role(chat_tokenizer: MakeChatTokenizer) -> None:
    tokenizer = chat_tokenizer(templates.CHATML, train_on="all")
    messages = [
        system("be kind"),
        {**user("hi there"), "train_ranges": [without(3, 8)]},
        assistant("yo", train_ranges=[only(0, 1)]),
    ]
    texts = trained(tokenizer, messages)
    assert "".join(texts) == (
        f"<|im_start|>system\nbe kind{END}\n<|im_start|>user\nhi {END}\n<|im_start|>assistant\ny{END}\n"
    )
    assert len(texts) == 3


def test_a_range_that_asks_for_a_loss_elsewhere_is_reported(chat_tokenizer: MakeChatTokenizer) -> None:
    tokenizer = chat_tokenizer(templates.CHATML)
    for ranges, notes in (([only(0, 1)], [LOSS_FLAG_UNUSED]), ([without(0, 1)], [])):
        row = {"messages": [user("q") | {"train_ranges": ranges}, assistant("a")]}
        assert list(tokenizer.conversations.prepare(row, "messages").notes.rules) == notes


def test_kinds_and_weights_of_ranges(chat_tokenizer: MakeChatTokenizer) -> None:
    tokenizer = chat_tokenizer(templates.CHATML, token_kinds=True)
    row = {"messages": [user("q"), assistant("hello world", train_ranges=[only(0, 5)], weight=0.5)]}
    encoded = tokenizer.encode_prepared([tokenizer.conversations.prepare(row, "messages")])
    assert encoded.weights is not None
    is_trained = encoded.labels.values != IGNORE_INDEX
    assert set(encoded.weights.values[is_trained].tolist()) == {0.5}
    assert set(encoded.weights.values[~is_trained].tolist()) == {0.0}


def test_escaped_contents_with_ranges_are_refused(chat_tokenizer: MakeChatTokenizer) -> None:
    tokenizer = chat_tokenizer(templates.CHATML, policy="escape")
    row = {"messages": [user("q"), assistant("a <|im_end|> b", train_ranges=[only(0, 1)])]}
    with pytest.raises(RowError, match="message 1 has ranges and contains a special token"):
        tokenizer.conversations.prepare(row, "messages")
    row = {"messages": [user("q <|im_end|>"), assistant("a b", train_ranges=[only(0, 1)])]}
    assert trained_tokens(tokenizer, row)[0] == "a"


def test_text_cannot_express_ranges(chat_tokenizer: MakeChatTokenizer) -> None:
    row = {"messages": [user("q"), assistant("abc", train_ranges=[without(0, 1)])]}
    with pytest.raises(RowError, match="a message trains ranges of its content, which a text column cannot express"):
        chat_tokenizer(templates.CHATML).conversations.render(row, "messages")


# --- Parts --------------------------------------------------------------------------------------------


def part(text: str, **keys: Any) -> Row:
    return {"type": "text", "text": text, **keys}


TAKES_PARTS = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% for p in m.content %}{{ p.text }}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.mark.parametrize("template", [templates.CHATML, TAKES_PARTS, templates.GENERATION])
@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([part("hello "), part("world", train=False)], ["hello ", END]),
        ([part("hello ", training="no"), part("world", loss=True)], [f"world{END}"]),
        ([part("a", train=False), part("b"), part("c", trainable=0)], ["b", END]),
        ([part("hello", train=None), part("", train=False)], [f"hello{END}"]),
        ([part("hello", train=False)], [END]),
        ([part("hello", train=True)], [f"hello{END}"]),
    ],
)
def test_parts_without_a_loss(
    chat_tokenizer: MakeChatTokenizer, template: str, parts: list[Row], expected: list[str]
) -> None:
    assert trained(chat_tokenizer(template), [user("q"), assistant(parts)]) == expected


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (assistant([part("a", train="maybe")]), "'train' of part 0 of message 1 must be true or false, not 'maybe'"),
        (assistant([part("a", train=False, loss=True)]), "part 0 of message 1 has flags that contradict each other"),
        (assistant([part("a", train=False), {"type": "image", "url": "x"}]), "part 1 of message 1 must be text"),
        (assistant([part("a", train=False)], train_ranges=[only(0, 1)]), "message 1 has ranges and parts with flags"),
    ],
)
def test_parts_that_cannot_be_followed_are_refused(
    chat_tokenizer: MakeChatTokenizer, message: Row, reason: str
) -> None:
    with pytest.raises(RowError, match=re.escape(reason)):
        trained(chat_tokenizer(templates.CHATML), [user("q"), message])


# --- Values that are not valid ------------------------------------------------------------------------


@pytest.mark.parametrize("train_on", ["assistant", "all"])
@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"train_ranges": "0-2"}, "'train_ranges' of message {} must be a list of ranges, not '0-2'"),
        ({"train_ranges": {"begin": 0}}, "'train_ranges' of message {} must be a list of ranges, not {{'begin': 0}}"),
        ({"train_ranges": [[0, 2]]}, "train_ranges[0] of message {} must have begin, end and train, and nothing else"),
        ({"train_ranges": [{"begin": 0, "end": 2}]}, "train_ranges[0] of message {} must have begin, end and train"),
        (
            {"train_ranges": [{"begin_offset": 0, "end_offset": 2, "train": True}]},
            "train_ranges[0] of message {} must have begin, end and train, and nothing else",
        ),
        ({"train_detail": [only(0, 2)]}, "train_detail[0] of message {} must have begin_offset, end_offset and train"),
        ({"train_ranges": [only(0, 2), only(0, 6)]}, "train_ranges[1] of message {} (begin 0, end 6) ends after the "
         "content, which has 5 characters"),
        ({"train_detail": [{"begin_offset": 0, "end_offset": 5, "train": False}]},
         "train_detail[0] of message {} (begin_offset 0, end_offset 5) ends after the content, which has 5 characters"),
        ({"train_ranges": [only(-1, 2)]}, "train_ranges[0] of message {} (begin -1, end 2) must begin at 0 or later"),
        ({"train_ranges": [only(3, 2)]}, "train_ranges[0] of message {} (begin 3, end 2) must begin at 0 or later and "
         "not end before it begins"),
        ({"train_ranges": [{**only(0, 2), "end": 2.0}]}, "end of train_ranges[0] of message {} must be a whole number"),
        ({"train_ranges": [{**only(0, 2), "begin": True}]}, "begin of train_ranges[0] of message {} must be a whole"),
        ({"train_ranges": [{**only(0, 2), "train": "x"}]}, "train of train_ranges[0] of message {} must be true or"),
        ({"train_ranges": [only(0, 3), without(2, 4)]},
         "ranges of 'train_ranges' of message {} contradict each other about the characters 2 to 3"),
        ({"train_ranges": [without(1, 2), only(0, 5)]},
         "ranges of 'train_ranges' of message {} contradict each other about the characters 1 to 2"),
        ({"train_ranges": [only(0, 1)], "train_detail": [1]}, "message {} has 'train_ranges' and 'train_detail'"),
    ],
)  # fmt: skip
def test_ranges_that_are_not_valid_are_refused_in_any_message(
    chat_tokenizer: MakeChatTokenizer, train_on: str, index: int, keys: Row, reason: str
) -> None:
    messages = [user("quest"), assistant("hello")]
    messages[index] |= keys
    with pytest.raises(RowError, match=re.escape(reason.format(index))):
        trained(chat_tokenizer(templates.CHATML, train_on=train_on), messages)


# --- Random rows --------------------------------------------------------------------------------------

LETTERS = st.text(st.sampled_from("ab 1.\n\té😀漢\u0301"), min_size=1, max_size=30)


@pytest.mark.parametrize("edges", ["any", "inner"])
@pytest.mark.parametrize("name", ["bpe", "sample:model", "qwen3", "granite"])
def test_random_ranges_are_those_of_the_oracle(chat_tokenizer: MakeChatTokenizer, name: str, edges: str) -> None:
    specials = ("<|im_start|>", "<|im_end|>")
    tokenizer = chat_tokenizer(templates.CHATML, name=name, special=specials, range_edges=edges)

    @settings(max_examples=max(20, int(150 * EFFORT)), deadline=None)
    @given(LETTERS, st.lists(st.booleans() | st.none(), min_size=30, max_size=30))
    def check(letters: str, wanted: list[bool | None]) -> None:
        content = f"x{letters}y"
        ranges = [
            {"begin": at, "end": at + 1, "train": flag}
            for at, flag in enumerate(wanted[: len(content)])
            if flag is not None
        ]
        row = {"messages": [user("q"), assistant(content, train_ranges=ranges)]}
        prepared = tokenizer.conversations.prepare(row, "messages")
        head = f"<|im_start|>user\nq{END}\n<|im_start|>assistant\n"
        assert prepared.text == f"{head}{content}{END}\n"
        rest = all(not each["train"] for each in ranges)
        flags = dict(enumerate(wanted[: len(content)]))
        is_trained = [False] * len(head)
        is_trained += [rest if flags.get(at) is None else bool(flags[at]) for at in range(len(content))]
        is_trained += [True] * len(END) + [False]
        offsets = tokenizer.tokenizer(prepared.text, add_special_tokens=False, return_offsets_mapping=True)
        encoded = tokenizer.encode_prepared([prepared])
        assert encoded.input_ids.values.tolist() == offsets["input_ids"]
        labels = (encoded.labels.values != IGNORE_INDEX).tolist()
        decide = any if edges == "any" else all
        assert labels == [decide(is_trained[start:end]) for start, end in offsets["offset_mapping"]]

    check()
