"""Every fault that the audit knows, put into clean rows: those rows are named under its rule, and no other row is."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import pytest

import chat_templates
from sftkit.audit.checks.duplicates import repeated_rows, row_digests
from sftkit.audit.checks.packs import Packing
from sftkit.audit.expectations.expected import Expectations, RowOrigin
from sftkit.audit.expectations.learn import learn_expectations
from sftkit.core.row_kinds import RowKind
from sftkit.core.rows import Ragged

from .material import IGNORED, MASKED_CHAT, Row, built, conversation, named, row_of, with_tools
from .packed import packed, sequences_named, wrapped

ROWS = 60
SEEDED = (0, 7, 8, 31, 59)
"""Which rows are broken: the first, the last, neighbours, and some in the middle."""

TEMPLATES: dict[str, str | None] = {
    "own": None,
    "chatml": chat_templates.CHATML,
    "llama2": chat_templates.LLAMA2,
    "response": chat_templates.RESPONSE,
    "gemma": "{{ bos_token }}" + chat_templates.MERGES_SYSTEM,
    "generation": chat_templates.GENERATION,
    "qwen3 like": chat_templates.QWEN3_LIKE,
}
CASES = [
    ("sample:model", "own"),
    ("bpe", "chatml"),
    ("bpe", "generation"),
    ("bpe", "qwen3 like"),
    ("bpe", "llama2"),
    ("bpe", "response"),
    ("metaspace", "chatml"),
    ("metaspace", "llama2"),
    ("bos", "gemma"),
    ("qwen3", "own"),
    ("granite", "own"),
    ("tinyllama", "llama2"),
    ("tinyllama", "response"),
]
ADDED = {"gemma": ("<start_of_turn>", "<end_of_turn>")}


@dataclass(frozen=True)
class Clean:
    """Rows without a fault, the expectations of their kind, and the tokenizer."""

    rows: tuple[Row, ...]
    expectations: Expectations
    tokenizer: Any


@pytest.fixture(scope="module")
def clean(
    tokenizer_path: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str], Clean]:
    """Clean conversations of a tokenizer and a template."""

    @cache
    def make(name: str, style: str) -> Clean:
        template, added = TEMPLATES[style], ADDED.get(style, ())
        draw = random.Random(f"{name} {style}")
        rows: list[dict[str, Any]] = [{"messages": conversation(draw, system=style != "gemma")} for _ in range(ROWS)]
        if style == "own":
            rows[::6] = [with_tools(draw) for _ in rows[::6]] if name != "granite" else rows[::6]
        made = built(
            tmp_path_factory.mktemp("clean"),
            rows,
            MASKED_CHAT,
            processor={"chat_template": template},
            tokenizer_name_or_path=tokenizer_path(name),
            add_special_tokens=added,
        )
        tokenizer = loaded(tokenizer_path(name), template, added)
        return Clean(tuple(made), expectations_of(tokenizer, RowKind.CONVERSATIONS), tokenizer)

    return make


def loaded(path: str, template: str | None, added: Sequence[str] = ()) -> Any:
    from sftkit.tokenization.loading.tokenizer_loading import TokenizerSpec, load_tokenizer

    return load_tokenizer(TokenizerSpec(path, template, tuple(added)))


def expectations_of(tokenizer: Any, kind: str) -> Expectations:
    origin = RowOrigin(
        kind, trains_all=False if kind != RowKind.UNKNOWN else None, variables={} if kind != RowKind.UNKNOWN else None
    )
    return learn_expectations(tokenizer, origin, [tokenizer.eos_token])


# --- faults


def without_loss(row: Row, _: Clean) -> Row:
    return row_of(row.ids, [IGNORED] * len(row.ids))


def loss_on_the_first_only(row: Row, _: Clean) -> Row:
    return row_of(row.ids, [row.ids[0]] + [IGNORED] * (len(row.ids) - 1))


def stop_without_loss(row: Row, _: Clean) -> Row:
    labels = list(row.labels)
    labels[row.trained_runs()[0][1] - 1] = IGNORED
    return row_of(row.ids, labels)


def prompt_with_loss(row: Row, clean: Clean) -> Row:
    start = row.trained_runs()[-1][0]
    prompt = next(prompt for prompt in clean.expectations.prompts if row.ids[start - len(prompt) : start] == prompt)
    labels = list(row.labels)
    labels[start - len(prompt) : start] = prompt
    return row_of(row.ids, labels)


def end_of_prompt_with_loss(row: Row, _: Clean) -> Row:
    start = row.trained_runs()[0][0]
    labels = list(row.labels)
    labels[start - 1] = row.ids[start - 1]
    return row_of(row.ids, labels)


def shifted_labels(row: Row, _: Clean) -> Row:
    return row_of(row.ids, [*row.labels[1:], IGNORED])


def one_other_label(row: Row, _: Clean) -> Row:
    start, stop = row.trained_runs()[-1]
    labels = list(row.labels)
    labels[(start + stop) // 2] += 1
    return row_of(row.ids, labels)


def with_token(row: Row, place: int, token: int) -> Row:
    ids, labels = list(row.ids), list(row.labels)
    label = token if labels[place] != IGNORED and labels[place - 1] != IGNORED else IGNORED
    ids.insert(place, token)
    labels.insert(place, label)
    return row_of(ids, labels)


def id_beyond(row: Row, clean: Clean) -> Row:
    return with_token(row, row.trained_runs()[0][0] + 1, clean.expectations.vocabulary_size or 0)


def id_below(row: Row, _: Clean) -> Row:
    return with_token(row, row.trained_runs()[0][0] + 1, -7)


def cut_in_the_answer(row: Row, _: Clean) -> Row:
    start, stop = row.trained_runs()[-1]
    end = max(start + 1, (start + stop) // 2)
    return row_of(row.ids[:end], row.labels[:end])


def cut_before_the_stop(row: Row, _: Clean) -> Row:
    end = row.trained_runs()[-1][1] - 1
    return row_of(row.ids[:end], row.labels[:end])


def stop_in_the_question(row: Row, clean: Clean) -> Row:
    """In the middle of the longest part before the first answer without a special token."""
    special = set(clean.expectations.special)
    edges = [-1, *(i for i, value in enumerate(row.ids) if value in special), row.trained_runs()[0][0]]
    edges = [edge for edge in edges if edge <= row.trained_runs()[0][0]]
    _, left, right = max((right - left, left, right) for left, right in pairwise(edges))
    place, eos = (left + right) // 2 + 1, clean.tokenizer.eos_token_id
    written = dict(clean.expectations.after).get(eos, ())
    while any(row.ids[place : place + len(sequence)] == sequence for sequence in written):
        place -= 1  # where the template writes one too, nobody could tell
    return with_token(row, place, eos)


def stop_in_the_answer(row: Row, clean: Clean) -> Row:
    start, stop = row.trained_runs()[0]
    return with_token(row, start + 2 if stop - start > 3 else start + 1, clean.tokenizer.eos_token_id)


def opener_in_the_answer(row: Row, clean: Clean) -> Row:
    return with_token(row, row.trained_runs()[-1][0] + 2, bound(clean)[0])


def foreign_in_the_answer(row: Row, clean: Clean) -> Row:
    return with_token(row, row.trained_runs()[-1][0] + 2, clean.expectations.foreign[-1])


def bos_twice(row: Row, clean: Clean) -> Row:
    assert clean.expectations.bos is not None
    return row_of([clean.expectations.bos, *row.ids], [IGNORED, *row.labels])


def bos_away(row: Row, _: Clean) -> Row:
    return row_of(row.ids[1:], row.labels[1:])


def first_token_of_answer_untrained(row: Row, _: Clean) -> Row:
    labels = list(row.labels)
    labels[row.trained_runs()[0][0]] = IGNORED
    return row_of(row.ids, labels)


def other_prompt(row: Row, clean: Clean) -> Row:
    """The prompt ends with another token than at inference."""
    start = row.trained_runs()[-1][0]
    ids = list(row.ids)
    ids[start - 1] = clean.tokenizer.encode("x", add_special_tokens=False)[-1]
    return row_of(ids, row.labels)


def question_with_loss(row: Row, _: Clean) -> Row:
    start = row.trained_runs()[0][0]
    labels = list(row.labels)
    place = max(2, start // 2)
    labels[place] = row.ids[place]
    return row_of(row.ids, labels)


def bound(clean: Clean) -> list[int]:
    """Openers that may not stand anywhere."""
    return [token for token, _ in clean.expectations.before if token in clean.expectations.openers]


def begins_with_bos(clean: Clean) -> bool:
    return clean.expectations.bos_in_chats


def stops_bind(clean: Clean) -> bool:
    """Whether it is known what follows a stop token (in one template contents may follow it)."""
    return (
        clean.tokenizer.eos_token_id in dict(clean.expectations.after)
        or clean.tokenizer.eos_token_id in clean.expectations.foreign
    )


def always(_: Clean) -> bool:
    return True


Fault = Callable[[Row, Clean], Row]
FAULTS: list[tuple[str, Fault, Callable[[Clean], Any]]] = [
    ("no_trained_token", without_loss, always),
    ("no_trained_token", loss_on_the_first_only, always),
    ("stop_token_untrained", stop_without_loss, always),
    ("header_trained", prompt_with_loss, always),
    ("header_trained", end_of_prompt_with_loss, always),
    ("labels_differ", one_other_label, always),
    ("ids_outside_vocabulary", id_beyond, always),
    ("ids_outside_vocabulary", id_below, always),
    ("answer_cut", cut_in_the_answer, always),
    ("answer_cut", cut_before_the_stop, always),
    ("special_token_in_content", stop_in_the_question, stops_bind),
    ("special_token_in_content", stop_in_the_answer, stops_bind),
    ("special_token_in_content", opener_in_the_answer, bound),
    ("special_token_in_content", foreign_in_the_answer, lambda clean: clean.expectations.foreign),
    ("bos_doubled", bos_twice, begins_with_bos),
    ("bos_missing", bos_away, begins_with_bos),
    ("prompt_mismatch", first_token_of_answer_untrained, always),
    ("prompt_mismatch", other_prompt, always),
]


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("name", "style"), CASES, ids=lambda value: str(value))
def test_clean_conversations_give_no_finding(clean: Callable[[str, str], Clean], name: str, style: str) -> None:
    made = clean(name, style)
    assert made.expectations.prompts
    assert named(made.rows, made.expectations) == {}
    assert named(made.rows, expectations_of(made.tokenizer, RowKind.UNKNOWN)) == {}


@pytest.mark.parametrize(("name", "style"), CASES, ids=lambda value: str(value))
def test_every_seeded_row_is_found_and_no_other(clean: Callable[[str, str], Clean], name: str, style: str) -> None:
    made = clean(name, style)
    tried = 0
    for rule, break_row, applies in FAULTS:
        if not applies(made):
            continue
        rows = [break_row(row, made) if place in SEEDED else row for place, row in enumerate(made.rows)]
        assert named(rows, made.expectations) == {rule: list(SEEDED)}, break_row.__name__
        tried += 1
    assert tried >= (12 if (name, style) == ("bpe", "response") else 14)


@pytest.mark.parametrize(("name", "style"), CASES, ids=lambda value: str(value))
def test_repeated_rows_are_found(clean: Callable[[str, str], Clean], name: str, style: str) -> None:
    rows = list(clean(name, style).rows)
    for place in SEEDED[1:]:
        rows[place] = rows[place - 3]
    assert repeated_rows(row_digests(Ragged.from_lists([row.ids for row in rows]))).tolist() == list(SEEDED[1:])


# --- the same rows in packs


@pytest.mark.parametrize(("name", "style"), CASES, ids=lambda value: str(value))
def test_every_seeded_row_is_found_in_its_pack(clean: Callable[[str, str], Clean], name: str, style: str) -> None:
    made = clean(name, style)
    assert sequences_named(packed(made.rows, 1000), made.expectations) == {}
    assert sequences_named(packed(made.rows, 1000), expectations_of(made.tokenizer, RowKind.UNKNOWN)) == {}
    for rule, break_row, applies in FAULTS:
        if applies(made):
            rows = [break_row(row, made) if place in SEEDED else row for place, row in enumerate(made.rows)]
            assert sequences_named(packed(rows, 1000), made.expectations) == {rule: list(SEEDED)}, break_row.__name__


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("name", "style"), CASES, ids=lambda value: str(value))
def test_edges_cut_by_wrapping_are_clean(clean: Callable[[str, str], Clean], name: str, style: str) -> None:
    made = clean(name, style)
    whole = [row_of(row.ids, row.ids) for row in made.rows]
    origin = RowOrigin(RowKind.CONVERSATIONS, trains_all=True, variables={})
    everything = learn_expectations(made.tokenizer, origin, [made.tokenizer.eos_token])
    unknown = expectations_of(made.tokenizer, RowKind.UNKNOWN)
    for capacity in (1, 2, 5, 11, 23, 37, 61, 97, 331):
        packing = Packing(capacity, may_cut_rows=True)
        for rows, of_rows in ((made.rows[:24], (made.expectations, unknown)), (whole[:24], (everything, unknown))):
            packs = wrapped(rows, capacity).packs
            for expectations in of_rows:
                assert sequences_named(packs, expectations, packing) == {}, capacity


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("name", "style"), CASES, ids=lambda value: str(value))
def test_seeded_rows_are_found_in_wrapped_packs_if_they_are_not_cut(
    clean: Callable[[str, str], Clean], name: str, style: str
) -> None:
    made = clean(name, style)
    seen = 0
    for rule, break_row, applies in FAULTS:
        if not applies(made):
            continue
        rows = [break_row(row, made) if place in SEEDED else row for place, row in enumerate(made.rows)]
        for capacity in (531, 1009):
            packs = wrapped(rows, capacity)
            found = sequences_named(packs.packs, made.expectations, Packing(capacity, may_cut_rows=True))
            named_rows = {packs.owners[sequence] for sequence in found.get(rule, [])}
            assert set(found) <= {rule}, (break_row.__name__, capacity)
            assert packs.inner & set(SEEDED) <= named_rows <= set(SEEDED), (break_row.__name__, capacity)
            seen += len(packs.inner & set(SEEDED))
    assert seen


def test_a_special_token_in_the_content_next_to_a_cut_is_not_a_header(clean: Callable[[str, str], Clean]) -> None:
    made = clean("sample:model", "own")
    rows = [opener_in_the_answer(row, made) for row in made.rows[:12]]
    for capacity in range(2, 90):
        packs = wrapped(rows, capacity).packs
        found = sequences_named(packs, made.expectations, Packing(capacity, may_cut_rows=True))
        assert set(found) <= {"special_token_in_content"}, capacity
