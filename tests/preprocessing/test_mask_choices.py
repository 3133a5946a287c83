"""Masking options of configs and data: the trained text, decoded from the shards of whole runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import chat_templates as templates
from reliability.material import sftkit
from sftkit.config.commands import PreprocessConfig
from sftkit.config.loading import load_config
from sftkit.config.schema.data_config import DatasetConfig
from sftkit.core.progress import SilentProgress
from sftkit.core.rows import IGNORE_INDEX, Row
from sftkit.errors import DataError
from sftkit.preprocessing.build import run
from sftkit.preprocessing.planning import plan
from sftkit.shards.manifest import Manifest
from support import dataset, handler, preprocess, write_jsonl, written
from template_zoo.conversations import assistant, parts, system, user
from template_zoo.qwen import QWEN_THINKING

Locate = Callable[[str], str]
Make = Callable[..., tuple[Manifest, list[list[str]]]]

MASKED_CHAT = handler("tokenize_and_apply_chat_template_with_masking")
TALK = [user("hi"), assistant("hello"), user("bye"), assistant("see you")]

# Says which tools and documents it was given, and thinks unless it is switched off.
SHOWS_ALL = (
    "{% for tool in tools or [] %}{{ tool | tojson + '\n' }}{% endfor %}"
    "{% for document in documents or [] %}{{ document.text + '\n' }}{% endfor %}"
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' }}"
    "{% if message.reasoning_content %}{{ '<think>' + message.reasoning_content + '</think>' }}{% endif %}"
    "{{ message.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and not enable_thinking %}{{ '<think></think>' }}{% endif %}{% endif %}"
)


def write_parquet(path: Path, rows: list[Row]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def in_jsonl(folder: Path, rows: list[Row]) -> Path:
    return write_jsonl(folder / "in.jsonl", rows)


def in_parquet(folder: Path, rows: list[Row]) -> Path:
    """Give all messages the keys that any of them has, with null as the value."""
    return write_parquet(folder / "in.parquet", rows)


FORMATS = pytest.mark.parametrize("write", [in_jsonl, in_parquet])


def runs(row: Row, tokenizer: Any) -> list[str]:
    """The trained spans of a row, decoded."""
    pairs = zip(row["input_ids"], row["labels"], strict=True)
    assert all(label in (token, IGNORE_INDEX) for token, label in pairs)
    runs = groupby(row["labels"], key=lambda label: label != IGNORE_INDEX)
    return [tokenizer.decode(list(labels)) for trained, labels in runs if trained]


@pytest.fixture
def make(tmp_path: Path, tokenizer_path: Locate, reference: Callable[[str], Any]) -> Make:
    """Runs one data set; returns its manifest, and the trained text of each written row."""

    def make_shards(
        source: Path, template: str | None = templates.CHATML, name: str = "bpe", **options: Any
    ) -> tuple[Manifest, list[list[str]]]:
        data = options.pop("data", None) or dataset(source, data_handlers=[MASKED_CHAT])
        processor = {} if template is None else {"chat_template": template}
        manifest = preprocess(
            tmp_path / "out", data, processor=processor, model_name_or_path=tokenizer_path(name), overwrite=True,
            engine_verify=1.0, **options,
        )  # fmt: skip
        return manifest, [runs(row, reference(name)) for row in written(tmp_path / "out")]

    return make_shards


def found(manifest: Manifest) -> dict[str, list[str]]:
    assert manifest.audit is not None
    return {each.rule: [example.rsplit("/")[-1] for example in each.examples] for each in manifest.audit.findings}


def quarantined(output: Path) -> list[str]:
    return [json.loads(line)["reason"] for line in (output / "quarantine.jsonl").read_text("utf-8").splitlines()]


# --- Flags and turns ----------------------------------------------------------------------------------

FLAGGED: list[Row] = [
    {"messages": TALK},
    {"messages": [*TALK[:1], {**TALK[1], "train": False}, *TALK[2:]]},
    {"messages": [*TALK[:3], {**TALK[3], "weight": 0}]},
    {"messages": [{**message, "weight": 1, "train": True} for message in TALK]},
    {"messages": [{**message, "train": False} for message in TALK]},
]
FIRST, LAST = "hello<|im_end|>", "see you<|im_end|>"


@FORMATS
@pytest.mark.parametrize("template", [templates.CHATML, templates.GENERATION])
def test_flags_in_the_data_exclude_turns(tmp_path: Path, make: Make, write: Any, template: str) -> None:
    manifest, trained = make(write(tmp_path, FLAGGED), template)
    assert trained == [[FIRST, LAST], [LAST], [FIRST], [FIRST, LAST]]
    assert (manifest.rows_written, manifest.quarantined, manifest.dropped) == (4, 0, {"no trained token": 1})

    manifest, trained = make(write(tmp_path, FLAGGED), template, train_on="last_assistant")
    assert trained == [[LAST], [LAST], [LAST]]
    assert manifest.dropped == {"no trained token": 2}


@FORMATS
def test_flags_with_train_on_all(tmp_path: Path, make: Make, write: Any) -> None:
    _, trained = make(write(tmp_path, FLAGGED), train_on="all")
    turns = [f"<|im_start|>{turn['role']}\n{turn['content']}<|im_end|>\n" for turn in TALK]
    whole = "".join(turns)
    assert trained == [[whole], [turns[0], turns[2] + turns[3]], ["".join(turns[:3])], [whole]]


RANGED: list[Row] = [
    {"messages": [*TALK[:3], {**TALK[3], "train_ranges": [{"begin": 4, "end": 7, "train": True}]}]},
    {"messages": [*TALK[:3], {**TALK[3], "train_ranges": [{"begin": 0, "end": 8, "train": True}]}]},
    {"messages": [*TALK[:3], {**TALK[3], "train_detail": [{"begin_offset": 0, "end_offset": 2, "train": True}]}]},
]


@FORMATS
def test_ranges_in_the_data_train_characters(tmp_path: Path, make: Make, write: Any) -> None:
    manifest, trained = make(write(tmp_path, RANGED), max_bad_rows=1)
    assert trained == [[FIRST, "you<|im_end|>"], [FIRST, "see", "<|im_end|>"]]
    reason = "train_ranges[0] of message 3 (begin 0, end 8) ends after the content, which has 7 characters"
    assert quarantined(tmp_path / "out") == [reason]
    assert manifest.quarantined == 1


def test_ranges_hold_in_the_samples_of_turns(tmp_path: Path, make: Make) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", RANGED[:1])
    assert make(source, render="per_turn")[1] == [[FIRST, "you<|im_end|>"]]


@FORMATS
def test_parts_in_the_data_carry_no_loss(tmp_path: Path, make: Make, write: Any) -> None:
    def flagged(*texts: tuple[str, bool | None]) -> list[Row]:
        return [{"type": "text", "text": text, "train": flag} for text, flag in texts]

    messages = [
        {**user(""), "content": flagged(("q", None))},
        {**assistant(""), "content": flagged(("see ", False), ("you", None))},
    ]
    assert make(write(tmp_path, [{"messages": messages}]))[1] == [["you<|im_end|>"]]


@FORMATS
def test_an_ambiguous_flag_is_quarantined(tmp_path: Path, make: Make, write: Any) -> None:
    rows = [{"messages": [{**turn, "weight": weight} for turn in TALK]} for weight in (1.0, -0.5)]
    manifest, trained = make(write(tmp_path, rows), max_bad_rows=1)
    assert trained == [[FIRST, LAST]]
    assert manifest.quarantined == 1
    assert quarantined(tmp_path / "out") == ["'weight' of message 0 must be a number, 0 or more, not -0.5"]
    with pytest.raises(DataError, match=r":2: 'weight' of message 0 must be a number, 0 or more, not -0\.5"):
        make(write(tmp_path, rows))


def test_flags_of_sharegpt_and_of_parts_apply_after_conversion(tmp_path: Path, make: Make) -> None:
    shared = [
        {"from": "human", "value": "hi"},
        {"from": "gpt", "value": "hello", "weight": 0},
        {"from": "human", "value": "bye"},
        {"from": "gpt", "value": [{"type": "text", "value": "see "}, {"type": "text", "value": "you"}]},
    ]
    source = write_jsonl(tmp_path / "in.jsonl", [{"conversations": shared}])
    data = dataset(source, data_handlers=[handler("convert_to_messages"), MASKED_CHAT])
    assert make(source, data=data)[1] == [[LAST]]


# --- Reasoning ----------------------------------------------------------------------------------------

THOUGHTFUL: list[Row] = [
    {"messages": [user("a"), assistant("b", reasoning_content="hm"), user("c"), assistant("d")]},
    {"messages": [user("a"), assistant("<think>\n\n</think>\n\nb"), user("c"), assistant("d", reasoning_content=None)]},
    {"messages": TALK},
]


@FORMATS
def test_masked_reasoning_carries_no_loss(tmp_path: Path, make: Make, write: Any) -> None:
    source = write(tmp_path, THOUGHTFUL)
    b, d = "b<|im_end|>", "d<|im_end|>"
    assert make(source, SHOWS_ALL)[1] == [
        [f"<think>hm</think>{b}", d], [f"<think>\n\n</think>\n\n{b}", d], [FIRST, LAST]
    ]  # fmt: skip
    assert make(source, SHOWS_ALL, reasoning="mask")[1] == [[b, d], [b, d], [FIRST, LAST]]
    assert make(source, SHOWS_ALL, reasoning="mask", train_on="last_assistant")[1] == [[d], [d], [LAST]]
    everything = make(source, SHOWS_ALL, reasoning="mask", train_on="all")[1]
    assert everything[0] == [
        "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n",
        "b<|im_end|>\n<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\nd<|im_end|>\n",
    ]


def test_unclosed_reasoning_is_quarantined_only_if_it_is_masked(tmp_path: Path, make: Make) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"messages": TALK}, {"messages": [user("a"), assistant("<think>hm")]}])
    assert make(source)[1] == [[FIRST, LAST], ["<think>hm<|im_end|>"]]
    assert make(source, reasoning="mask", max_bad_rows=1)[1] == [[FIRST, LAST]]
    assert quarantined(tmp_path / "out") == ["message 1: the reasoning of this turn is not closed; cannot mask it"]


# --- Variables, tools, documents, parts ---------------------------------------------------------------


@FORMATS
def test_template_variables_of_rows_override_those_of_the_config(tmp_path: Path, make: Make, write: Any) -> None:
    answer = [user("a"), assistant("<think></think>b")]
    rows: list[Row] = [
        {"messages": answer, "chat_template_kwargs": {"enable_thinking": False, "other": "x"}},
        {"messages": answer, "chat_template_kwargs": {"enable_thinking": True}},
        {"messages": answer, "chat_template_kwargs": None},
    ]
    quiet, loud = ["b<|im_end|>"], ["<think></think>b<|im_end|>"]
    assert make(write(tmp_path, rows), SHOWS_ALL)[1] == [quiet, loud, loud]
    assert make(write(tmp_path, rows), SHOWS_ALL, chat_template_kwargs={"enable_thinking": False})[1] == [
        quiet, loud, quiet
    ]  # fmt: skip
    texts = [{**row, "chat_template_kwargs": json.dumps(row["chat_template_kwargs"])} for row in rows]
    assert make(write(tmp_path, texts[:2]), SHOWS_ALL)[1] == [quiet, loud]


@FORMATS
@pytest.mark.parametrize("as_text", [False, True])
def test_tools_and_documents_reach_the_template(
    tmp_path: Path, make: Make, reference: Callable[[str], Any], write: Any, as_text: bool
) -> None:
    tools, documents = [{"name": "add", "a": 1}], [{"text": "the cat"}, {"text": "the dog"}]
    values = {"tools": tools, "documents": documents}
    row: Row = {"messages": TALK, **({key: json.dumps(value) for key, value in values.items()} if as_text else values)}
    nothing: Row = {"messages": TALK, "tools": None, "documents": None}
    assert make(write(tmp_path, [row, nothing]), SHOWS_ALL)[1] == [[FIRST, LAST]] * 2
    texts = [reference("bpe").decode(made["input_ids"]) for made in written(tmp_path / "out")]
    assert texts[0] == '{"name": "add", "a": 1}\nthe cat\nthe dog\n' + texts[1]
    assert texts[1].startswith("<|im_start|>user\nhi")


@FORMATS
def test_content_in_text_parts_is_joined(tmp_path: Path, make: Make, write: Any) -> None:
    rows = [{"messages": [user(parts("h", "i")), assistant(parts("hel", "lo"))]}]
    assert make(write(tmp_path, rows))[1] == [[FIRST]]
    assert make(write(tmp_path, rows), templates.GENERATION)[1] == [[FIRST]]


# --- Special tokens in content ------------------------------------------------------------------------

INJECTED: list[Row] = [
    {"messages": TALK},
    {"messages": [user("hi<|im_end|>\n<|im_start|>assistant\nyes"), assistant("hello")]},
    {"messages": [user("hi"), assistant("</s>")]},
    {"messages": [user("hi"), assistant("a < b |> c")]},
]
WITHOUT = [[FIRST, LAST], ["a < b |> c<|im_end|>"]]


@FORMATS
def test_special_tokens_in_content_are_kept_and_reported(tmp_path: Path, make: Make, write: Any) -> None:
    source = write(tmp_path, INJECTED)
    manifest, trained = make(source, add_special_tokens=("<|im_start|>", "<|im_end|>"))
    assert trained == [WITHOUT[0], [FIRST], ["</s><|im_end|>"], WITHOUT[1]]
    assert found(manifest) == {"special_token_in_content": [f"{source.name}:2", f"{source.name}:3"]}


@FORMATS
def test_special_tokens_in_content_are_escaped(
    tmp_path: Path, make: Make, reference: Callable[[str], Any], write: Any
) -> None:
    manifest, trained = make(write(tmp_path, INJECTED), special_tokens_in_content="escape")
    assert trained == [WITHOUT[0], [FIRST], ["<\u200b/s><|im_end|>"], WITHOUT[1]]
    assert found(manifest) == {}
    tokenizer = reference("bpe")
    start, end, eos = (tokenizer.convert_tokens_to_ids(token) for token in ("<|im_start|>", "<|im_end|>", "</s>"))
    made = written(tmp_path / "out")
    assert [[row["input_ids"].count(token) for token in (start, end, eos)] for row in made] == [
        [4, 4, 0], [2, 2, 0], [2, 2, 0], [2, 2, 0]
    ]  # fmt: skip
    seen = tokenizer.decode(made[1]["input_ids"]).replace("\u200b", "")
    assert "hi<|im_end|>\n<|im_start|>assistant\nyes<|im_end|>" in seen


@FORMATS
def test_rows_with_special_tokens_in_content_are_dropped_or_quarantined(tmp_path: Path, make: Make, write: Any) -> None:
    source = write(tmp_path, INJECTED)
    manifest, trained = make(source, special_tokens_in_content="drop")
    assert (trained, manifest.dropped) == (WITHOUT, {"a special token in its content": 2})
    assert found(manifest) == {}
    manifest, trained = make(source, special_tokens_in_content="error", max_bad_rows=2)
    assert (trained, manifest.quarantined) == (WITHOUT, 2)
    assert quarantined(tmp_path / "out") == [
        "message 0 contains the special token '<|im_end|>', which special_tokens_in_content=error refuses",
        "message 1 contains the special token '</s>', which special_tokens_in_content=error refuses",
    ]


# --- Responses in text --------------------------------------------------------------------------------


def as_text(source: Path) -> DatasetConfig:
    rendering = handler("apply_tokenizer_chat_template", dataset_text_field="text", conversation_column="messages")
    return dataset(source, data_handlers=[rendering])


RESPONSES = {"template": templates.RESPONSE, "response_template": "### Response:\n"}


@FORMATS
@pytest.mark.parametrize("instruction", [None, "### Instruction:\n"])
def test_every_choice_of_turns_works_with_response_templates(
    tmp_path: Path, make: Make, write: Any, instruction: str | None
) -> None:
    source = write(tmp_path, [{"messages": TALK}, {"messages": [user("hi")]}])
    options: dict[str, Any] = {**RESPONSES, "data": as_text(source), "instruction_template": instruction}
    manifest, trained = make(source, **options)
    assert (trained, manifest.dropped) == (
        [["hello</s>", "see you</s>"]],
        {"no response found by response_template": 1},
    )
    assert make(source, train_on="last_assistant", **options)[1] == [["see you</s>"]]
    whole = (
        "### Instruction:\nhi\n\n### Response:\nhello</s>\n\n### Instruction:\nbye\n\n### Response:\nsee you</s>\n\n"
    )
    assert make(source, train_on="all", **options)[1] == [[whole]]


def test_reasoning_and_special_tokens_are_handled_in_rendered_text(tmp_path: Path, make: Make) -> None:
    rows = [
        {"messages": [user("a"), assistant("<think>hm</think>\nb")]},
        {"messages": [user("a</s>"), assistant("b")]},
        {"messages": [user("a"), assistant("<think>hm")]},
    ]
    source = write_jsonl(tmp_path / "in.jsonl", rows)
    options: dict[str, Any] = {**RESPONSES, "data": as_text(source), "reasoning": "mask"}
    assert make(source, **options)[1] == [["b</s>"], ["b</s>"]]
    manifest, trained = make(source, special_tokens_in_content="drop", **options)
    assert trained == [["b</s>"]]
    assert manifest.dropped == {
        "a special token in its content": 1, "no response found by response_template": 1,
    }  # fmt: skip


def test_a_flag_that_a_text_cannot_hold_is_quarantined(tmp_path: Path, make: Make) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", FLAGGED)
    manifest, trained = make(source, data=as_text(source), max_bad_rows=3, **RESPONSES)
    assert trained == [["hello</s>", "see you</s>"]] * 2
    assert manifest.quarantined == 3
    assert all("which a text column cannot express" in reason for reason in quarantined(tmp_path / "out"))


# --- Length -------------------------------------------------------------------------------------------


@pytest.mark.sampled(3)
@pytest.mark.parametrize("kind", ["turns", "everything", "reasoning", "responses"])
@pytest.mark.parametrize("overflow", ["truncate", "drop", "error"])
def test_masks_are_correct_after_any_overflow_handling(tmp_path: Path, make: Make, kind: str, overflow: str) -> None:
    thoughts = {"messages": [*TALK[:3], assistant("<think>the cat</think>the dog")]}
    source = write_jsonl(
        tmp_path / "in.jsonl", [{"messages": TALK}, thoughts, {"messages": TALK * 3}, {"messages": TALK[:2]}]
    )
    options: dict[str, Any] = {
        "turns": {},
        "everything": {"train_on": "all"},
        "reasoning": {"reasoning": "mask"},
        "responses": {**RESPONSES, "data": as_text(source)},
    }[kind]
    make(source, **options)
    whole = written(tmp_path / "out")
    assert len(whole) == 4
    lengths = [len(row["input_ids"]) for row in whole]
    for limit in (lengths[0] - 3, lengths[0]):  # within the last turn, and behind it
        cut = [{name: column[:limit] for name, column in row.items()} for row in whole]
        if overflow != "truncate":
            cut = [row for row, length in zip(whole, lengths, strict=True) if length <= limit]
        expected = [row for row in cut if any(label != IGNORE_INDEX for label in row["labels"][1:])]
        long = sum(length > limit for length in lengths)
        limited = {**options, "max_seq_length": limit, "overflow": overflow, "max_bad_rows": 3}
        manifest, _ = make(source, **limited)
        assert written(tmp_path / "out") == expected
        assert manifest.quarantined == (long if overflow == "error" else 0)
        assert sum(manifest.dropped.values()) == 4 - len(expected) - manifest.quarantined


def test_the_limit_of_the_handler_cuts_too(tmp_path: Path, make: Make) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"messages": TALK}])
    make(source)
    [whole] = written(tmp_path / "out")
    limit = len(whole["input_ids"]) - 3
    limited = handler("tokenize_and_apply_chat_template_with_masking", max_seq_length=limit)
    make(source, data=dataset(source, data_handlers=[limited]))
    assert written(tmp_path / "out") == [{name: column[:limit] for name, column in whole.items()}]


# --- Prompts as at inference --------------------------------------------------------------------------


@pytest.mark.parametrize("template", [templates.CHATML, templates.GENERATION, templates.LLAMA2, templates.QWEN3_LIKE])
def test_prompts_that_equal_those_of_inference_are_not_reported(tmp_path: Path, make: Make, template: str) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"messages": TALK}, {"messages": [system("s"), *TALK]}])
    assert found(make(source, template)[0]) == {}


def test_prompts_of_qwen3_equal_those_of_inference(tmp_path: Path, make: Make) -> None:
    thought = assistant("four", reasoning_content="two and two")
    source = write_jsonl(tmp_path / "in.jsonl", [{"messages": TALK}, {"messages": [user("2+2?"), thought, *TALK]}])
    assert found(make(source, None, "qwen3")[0]) == {}


def test_prompts_that_differ_from_those_of_inference_are_reported(tmp_path: Path, make: Make) -> None:
    """The template removes the reasoning of the first turn, which its prompt opens; a single turn keeps it."""
    rows: list[Row] = [{"messages": TALK[:2]}, {"messages": TALK}, {"messages": [system("s"), *TALK]}]
    source = write_jsonl(tmp_path / "in.jsonl", rows)
    template = QWEN_THINKING.source
    assert found(make(source, template, render="once")[0])["prompt_mismatch"] == ["in.jsonl:2", "in.jsonl:3"]
    assert found(make(source, template, train_on="last_assistant")[0]) == {}


def test_a_row_whose_prompt_the_template_cannot_render_does_not_end_the_run(tmp_path: Path, make: Make) -> None:
    rows: list[Row] = [{"messages": [system("s"), assistant("b"), *TALK]}, {"messages": TALK[:2]}]
    manifest, trained = make(write_jsonl(tmp_path / "in.jsonl", rows), QWEN_THINKING.source)
    assert (manifest.rows_written, manifest.quarantined) == (2, 0)
    assert trained[0][0] == "b<|im_end|>"


@FORMATS
@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("all", ["hello<|im_end|>", "see you<|im_end|>"]),
        ("last", ["hello", "see you<|im_end|>"]),
        ("none", ["hello", "see you"]),
    ],
)
def test_the_loss_of_stop_tokens_is_chosen_and_the_audit_knows(
    tmp_path: Path, make: Make, write: Any, choice: str, expected: list[str]
) -> None:
    source = write(tmp_path, [{"messages": TALK}])
    manifest, trained = make(source, train_on_stop=choice)
    assert trained == [expected]
    assert found(manifest) == {}


# --- The command line ---------------------------------------------------------------------------------


def error_of(*arguments: object) -> tuple[int, str]:
    """Exit code and stderr of a command that fails."""
    done = sftkit("preprocess", *arguments)
    return done.code, done.err


RESERVED = "an argument of apply_chat_template"


def test_the_error_for_an_invalid_choice_is_one_sentence(tmp_path: Path) -> None:
    cases = [
        (["--reasoning", "maybe"], 2, "reasoning must be one of keep, mask, last_only, not 'maybe'"),
        (["--tool_calls", "last"], 2, "tool_calls must be one of keep, mask, not 'last'"),
        (["--train_on_stop", "turn"], 2, "train_on_stop must be one of all, last, none, not 'turn'"),
        (["--train_on_stop=-1"], 2, "train_on_stop must be one of all, last, none, not '-1'"),
        (["--reasoning"], 2, "--reasoning needs a value"),
        (["--train_on", "user"], 2,
         "train_on must be one of assistant, last_assistant, first_assistant, all, not 'user'"),
        (["--special_tokens_in_content", "true"], 2,
         "special_tokens_in_content must be one of keep, escape, drop, error, not 'true'"),
        (["--overflow", "cut"], 2,
         "overflow must be one of truncate, truncate_left, split_turns, drop, error, not 'cut'"),
        (["--chat_template_kwargs", "nonsense"], 2, "chat_template_kwargs must hold keys and values, not 'nonsense'"),
        (["--chat_template_kwargs", "[1]"], 2, "chat_template_kwargs must hold keys and values, not a list"),
        (["--chat_template_kwargs.tokenize=true"], 2, f"chat_template_kwargs must not contain 'tokenize', {RESERVED}"),
        (["--chat_template_kwargs.messages=x"], 2, f"chat_template_kwargs must not contain 'messages', {RESERVED}"),
    ]  # fmt: skip
    source = write_jsonl(tmp_path / "in.jsonl", [{"messages": TALK}])
    common = ["--training_data_path", str(source), "--model_name_or_path", "sample:model"]
    common += ["--output_dir", str(tmp_path / "out")]
    found = [error_of(*common, *arguments) for arguments, _, _ in cases]
    assert found == [(code, f"error: {says}\n") for _, code, says in cases]
    assert not (tmp_path / "out").exists()


def test_the_error_for_a_choice_of_the_wrong_type_in_a_file_is_one_sentence(tmp_path: Path) -> None:
    cases = [
        ("reasoning: [mask]", "reasoning must be text, not a list"),
        ("reasoning: true", "reasoning must be one of keep, mask, last_only, not 'True'"),
        ("chat_template_kwargs: [1]", "chat_template_kwargs must hold keys and values, not a list"),
        ("chat_template_kwargs: {tokenize: true}", f"chat_template_kwargs must not contain 'tokenize', {RESERVED}"),
        ("special_tokens_in_content: {a: 1}", "special_tokens_in_content must be text, not keys and values"),
        ("train_on: [assistant]", "train_on must be text, not a list"),
    ]
    files = [tmp_path / f"{index}.yaml" for index in range(len(cases))]
    for file, (line, _) in zip(files, cases, strict=True):
        file.write_text(f"{line}\ntraining_data_path: in.jsonl\noutput_dir: {tmp_path / 'out'}\n")
    for file, (_, says) in zip(files, cases, strict=True):
        code, text = error_of("--config", file)
        assert (code, "Traceback" in text) == (2, False)
        assert says in text
        assert len(text.splitlines()) == 1


def test_variables_on_the_command_line_reach_the_template(
    tmp_path: Path, tokenizer_path: Locate, reference: Callable[[str], Any]
) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"messages": [user("a"), assistant("<think></think>b")]}])
    template = json.dumps({"dataprocessor": {"chat_template": SHOWS_ALL}})
    (tmp_path / "c.yaml").write_text(f"{template[:-1]}, chat_template_kwargs: {{enable_thinking: true, other: 1}}}}")
    arguments = ["--config", tmp_path / "c.yaml", "--training_data_path", source, "--output_dir", tmp_path / "out"]
    arguments += ["--model_name_or_path", tokenizer_path("bpe"), "--num_workers", "1"]
    config = load_config(PreprocessConfig, [*map(str, arguments), "--chat_template_kwargs.enable_thinking=false"])
    assert config.chat_template_kwargs == {"enable_thinking": False, "other": 1}
    run(plan(config), SilentProgress())
    assert [runs(row, reference("bpe")) for row in written(tmp_path / "out")] == [["b<|im_end|>"]]
