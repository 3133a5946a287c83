"""Rows of every kind that a run can make are clean, and faults are found with what is known of the kind."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chat_templates
from sftkit.audit.checks.row_checks import check_row, check_rows
from sftkit.audit.expectations.expected import Expectations, RowOrigin
from sftkit.audit.expectations.learn import learn_expectations
from sftkit.core.row_kinds import RowKind
from sftkit.core.rows import Ragged
from sftkit.tokenization.loading.tokenizer_loading import TokenizerSpec, load_tokenizer

from .material import IGNORED, MASKED_CHAT, Row, built, conversation, handler, named, row_of, sentence

TOKENIZERS = ("sample:model", "bos_eos", "metaspace", "qwen3", "granite", "tinyllama")
RESPONSE = "\n### Response:"


@cache
def loaded(path: str, template: str | None = None) -> Any:
    return load_tokenizer(TokenizerSpec(path, template))


def expectations(path: str, template: str | None = None, **origin: Any) -> Expectations:
    tokenizer = loaded(path, template)
    return learn_expectations(tokenizer, RowOrigin(**origin), [tokenizer.eos_token])


def draws(count: int = 40) -> list[random.Random]:
    return [random.Random(number) for number in range(count)]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_pairs_are_clean(tmp_path: Path, tokenizer_path: Callable[[str], str], name: str) -> None:
    path = tokenizer_path(name)
    rows = [{"input": sentence(draw) + "?", "output": sentence(draw, plain=True)} for draw in draws()]
    masking = handler("tokenize_and_apply_input_masking", input_field_name="input", output_field_name="output")
    made = built(tmp_path, rows, masking, tokenizer_name_or_path=path)
    right = expectations(path, kind=RowKind.PAIRS, trains_all=False)
    assert named(made, expectations(path)) == {}
    if name == "bos_eos":  # this tokenizer appends an eos of its own, also to the input
        assert named(made, right) == {"special_token_in_content": list(range(40))}
        return
    assert named(made, right) == {}
    without_eos = [row_of(row.ids[:-1], row.labels[:-1]) for row in made]
    assert named(without_eos, right) == {"answer_cut": list(range(40))}
    without_end = expectations(path, kind=RowKind.PAIRS, trains_all=False, ends=False)
    assert named(without_eos, without_end) == {}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_special_tokens_inside_pairs_are_found(tokenizer_path: Callable[[str], str], name: str) -> None:
    path = tokenizer_path(name)
    tokenizer = loaded(path)

    def encode(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    begin = [tokenizer.bos_token_id] if expectations(path).bos_in_text else []
    eos = tokenizer.eos_token_id
    clean = [*begin, *encode("What is it?"), *encode(" It is that."), eos]
    seeded = [*begin, *encode("What is"), eos, *encode(" it?"), *encode(" It is that."), eos]
    rows = [row_of(ids, [IGNORED] * (len(ids) - 3) + ids[-3:]) for ids in (clean, seeded, clean)]
    assert named(rows, expectations(path, kind=RowKind.PAIRS, trains_all=False)) == {"special_token_in_content": [1]}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_texts_with_responses_are_clean(tmp_path: Path, tokenizer_path: Callable[[str], str], name: str) -> None:
    path = tokenizer_path(name)
    rows = [{"text": f"### Input:\n{sentence(draw)}\n{RESPONSE} {sentence(draw, plain=True)}<eos>"} for draw in draws()]
    eos = loaded(path).eos_token
    texts = [{"text": row["text"].replace("<eos>", eos)} for row in rows]
    made = built(tmp_path, texts, tokenizer_name_or_path=path, response_template=RESPONSE)
    right = expectations(path, kind=RowKind.TEXT, trains_all=False, response_template=RESPONSE)
    assert right.prompts
    assert named(made, right) == {}
    assert named(made, expectations(path)) == {}
    start = made[3].trained_runs()[0][0]
    made[3] = row_of(made[3].ids, [*made[3].labels[: start - 1], *made[3].ids[start - 1 :]])
    assert named(made, right) == {"header_trained": [3]}


def test_rendered_texts_are_clean(tmp_path: Path, tokenizer_path: Callable[[str], str]) -> None:
    rows = [{"messages": conversation(draw, system=True)} for draw in draws()]
    rendering = handler("apply_tokenizer_chat_template", dataset_text_field="text", conversation_column="messages")
    path = tokenizer_path("bos")
    processor = {"chat_template": chat_templates.CHATML}
    options = {"response_template": "<|im_start|>assistant\n", "instruction_template": "<|im_end|>"}
    made = built(tmp_path, rows, rendering, processor=processor, tokenizer_name_or_path=path, **options)
    right = expectations(path, chat_templates.CHATML, kind=RowKind.RENDERED, trains_all=False, variables={})
    # The eos is no <|im_end|> here, so the template's own stop token carries no loss.
    assert set(named(made, right)) == {"stop_token_untrained"}


def test_a_bos_of_both_template_and_tokenizer_is_written_once(
    tmp_path: Path, tokenizer_path: Callable[[str], str]
) -> None:
    rows = [{"messages": conversation(draw, system=False)} for draw in draws(9)]
    rendering = handler("apply_tokenizer_chat_template", dataset_text_field="text", conversation_column="messages")
    path = tokenizer_path("bos")
    options = {"response_template": "[/INST]", "processor": {"chat_template": chat_templates.LLAMA2}}
    made = built(tmp_path, rows, rendering, tokenizer_name_or_path=path, **options)
    right = expectations(path, chat_templates.LLAMA2, kind=RowKind.RENDERED, trains_all=False, variables={})
    assert named(made, right) == {}


@pytest.mark.parametrize("train_on", ["all", "last_assistant"])
@pytest.mark.parametrize(
    ("name", "template"), [("sample:model", None), ("bpe", "LLAMA2"), ("qwen3", None), ("granite", None)]
)
def test_rows_with_train_on_all_or_last_assistant_are_clean(
    tmp_path: Path, tokenizer_path: Callable[[str], str], name: str, template: str | None, train_on: str
) -> None:
    source = getattr(chat_templates, template) if template else None
    rows = [{"messages": conversation(draw, system=True)} for draw in draws()]
    path = tokenizer_path(name)
    made = built(
        tmp_path, rows, MASKED_CHAT, processor={"chat_template": source}, tokenizer_name_or_path=path, train_on=train_on
    )
    origin = {"kind": RowKind.CONVERSATIONS, "trains_all": train_on == "all", "variables": {}}
    assert named(made, expectations(path, source, **origin)) == {}
    assert named(made, expectations(path, source)) == {}
    if train_on == "all":  # without the config, it takes a row that is not trained as a whole to tell
        assert set(named(made, expectations(path, source, **{**origin, "trains_all": False}))) == {"header_trained"}
        last = made[5]
        cut = row_of(last.ids[:-4], last.labels[:-4])
        assert named([*made[:5], cut, *made[6:]], expectations(path, source, **origin)) == {"answer_cut": [5]}


@pytest.mark.parametrize("name", ["sample:model", "qwen3"])
def test_masked_reasoning_is_clean(tmp_path: Path, tokenizer_path: Callable[[str], str], name: str) -> None:
    thinking = "<think>\nsay {}\n</think>\n\n"
    rows = [
        {
            "messages": [
                {"role": "user", "content": sentence(draw)},
                {"role": "assistant", "content": thinking.format(number) + sentence(draw, plain=True)},
            ]
        }
        for number, draw in enumerate(draws(20))
    ]
    path = tokenizer_path(name)
    made = built(tmp_path, rows, MASKED_CHAT, tokenizer_name_or_path=path, reasoning="mask")
    origin = {"kind": RowKind.CONVERSATIONS, "trains_all": False, "variables": {}}
    assert named(made, expectations(path, **origin, parts_masked=True)) == {}
    assert named(made, expectations(path, **origin)) == {"prompt_mismatch": list(range(20))}
    question = row_of(made[4].ids, [IGNORED, IGNORED, IGNORED, IGNORED, made[4].ids[4], *made[4].labels[5:]])
    made[4] = question
    assert named(made, expectations(path, **origin, parts_masked=True)) == {"prompt_mismatch": [4]}


def test_an_answer_whose_tokens_merge_with_the_prompt_is_found(
    tmp_path: Path, tokenizer_path: Callable[[str], str]
) -> None:
    rows = [{"messages": conversation(draw, system=False)} for draw in draws(10)]
    rows[6]["messages"][1]["content"] = "\n\nso"  # "\n" of the header and these are one token
    path = tokenizer_path("qwen3")
    made = built(
        tmp_path,
        rows,
        MASKED_CHAT,
        processor={"chat_template": chat_templates.CHATML},
        tokenizer_name_or_path=path,
        boundary="joint",
    )
    right = expectations(path, chat_templates.CHATML, kind=RowKind.CONVERSATIONS, trains_all=False, variables={})
    assert named(made, right) == {"prompt_mismatch": [6]}


# --- what others' files hold


@pytest.fixture(scope="module")
def chats(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    rows = [{"messages": conversation(draw, system=True)} for draw in draws(24)]
    return built(tmp_path_factory.mktemp("chats"), rows, MASKED_CHAT, tokenizer_name_or_path="sample:model")


def test_padding_around_rows_is_ignored(chats: list[Row]) -> None:
    right = expectations("sample:model")
    assert right.pad is not None
    cut = row_of(
        chats[2].ids[: chats[2].trained_runs()[-1][1] - 1], chats[2].labels[: chats[2].trained_runs()[-1][1] - 1]
    )
    rows = [*chats[:2], cut, *chats[3:]]
    width = max(len(row.ids) for row in rows) + 3
    for left in (0, 2):
        padded = []
        for row in rows:
            right_pad = width - left - len(row.ids)
            ids = [right.pad] * left + list(row.ids) + [right.pad] * right_pad
            padded.append(row_of(ids, [IGNORED] * left + list(row.labels) + [IGNORED] * right_pad))
        assert named(padded, right) == {"answer_cut": [2]}
    assert named([row_of([right.pad] * 5, [IGNORED] * 5), chats[0]], right) == {"no_trained_token": [0]}


def test_without_labels_the_ids_are_still_checked(chats: list[Row]) -> None:
    rows = [list(row.ids) for row in chats]
    rows[3][5] = 99_999
    rows[9].insert(6, rows[9][0])
    found = check_rows(Ragged.from_lists(rows), None, None, expectations("sample:model"))
    assert {rule: fault.rows.tolist() for rule, fault in found.items()} == {
        "ids_outside_vocabulary": [3],
        "special_token_in_content": [9],
    }


def test_without_a_tokenizer_labels_are_still_checked(chats: list[Row]) -> None:
    rows = list(chats)
    rows[1] = row_of(rows[1].ids, [IGNORED] * len(rows[1].ids))
    rows[2] = row_of(rows[2].ids, [*rows[2].labels[:-3], 7, *rows[2].labels[-2:]])
    rows[5] = row_of([], [])
    assert named(rows, Expectations()) == {"no_trained_token": [1, 5], "labels_differ": [2]}


def test_faults_of_one_row_have_places(chats: list[Row]) -> None:
    right = expectations("sample:model", kind=RowKind.CONVERSATIONS, trains_all=False, variables={})
    row = max(chats, key=lambda row: len(row.trained_runs()))
    start, stop = row.trained_runs()[1]
    labels = np.array(row.labels, np.int32)
    labels[start - 1], labels[stop - 1] = row.ids[start - 1], IGNORED
    ids = np.array(row.ids, np.int32)
    places = check_row(ids, labels, labels != IGNORED, right)
    assert places == [("header_trained", start - 1, start), ("stop_token_untrained", stop - 1, stop)]
    assert right.openers == (loaded("sample:model").convert_tokens_to_ids("<|im_start|>"),)


def test_no_rows_have_no_faults() -> None:
    empty = np.zeros(0, np.int32)
    assert check_rows(Ragged.from_lists([]), empty, empty != 0, expectations("sample:model")) == {}


@pytest.mark.parametrize("source", ["{{ raise_exception('no') }}", "{{ messages[0].content }}", "{% for", "hello"])
def test_templates_that_show_nothing_leave_expectations_unknown(
    tokenizer_path: Callable[[str], str], source: str
) -> None:
    made = expectations(tokenizer_path("bpe"), source)
    assert (made.prompts, made.openers, made.after, made.bos_in_chats) == ((), (), (), False)
    assert named(
        [row_of([9, 10, 4], [IGNORED, 10, 4])], expectations(tokenizer_path("bpe"), source, kind=RowKind.UNKNOWN)
    ).keys() <= {"answer_cut"}
