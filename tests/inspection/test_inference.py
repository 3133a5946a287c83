"""`inspect-shards --audit` compares every row with the tokens of inference where its conversation is retained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reliability.material import sftkit
from sftkit.config.commands import InspectConfig
from sftkit.config.schema.data_config import ProcessorConfig
from sftkit.inspection.audit.audit_shards import ShardAudit
from sftkit.inspection.audit.inference.audit_inference import InferenceAudit
from sftkit.inspection.report import inspect_shards
from sftkit.shards.reading import open_shards
from support import dataset, handler, preprocess, write_jsonl
from template_zoo.conversations import ADD, ONE_CALL, assistant, result, system, user

CHAT = "tokenize_and_apply_chat_template_with_masking"
REASONING = (
    "{% set last = namespace(user=0) %}{% for m in messages %}"
    "{% if m.role == 'user' %}{% set last.user = loop.index0 %}{% endif %}{% endfor %}"
    "{% for tool in tools or [] %}{{ tool | tojson }}{% endfor %}"
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}"
    "{% if m.reasoning_content and loop.index0 > last.user %}"
    "{{ '<think>' + m.reasoning_content + '</think>' }}{% endif %}{{ m.content }}"
    "{% for c in m.tool_calls or [] %}{{ c.function | tojson }}{% endfor %}{{ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""Writes reasoning only after the last question, as Qwen's templates do."""


def exchange(number: int) -> list[dict[str, Any]]:
    return [user(f"Question {number}?"), assistant(f"Answer {number}.", reasoning_content=f"Thought {number}.")]


TALKS = [
    [system("Be kind."), *exchange(1), *exchange(2), *exchange(3)],
    [user("Hi"), assistant("Hello"), user("Bye"), assistant("See you")],
    [*exchange(4), user("And?")],
    [
        user("1+2?"),
        assistant("", tool_calls=ONE_CALL, reasoning_content="I add."),
        result(1, "3"),
        assistant("It is 3.", reasoning_content="The tool says so."),
        *exchange(5),
    ],
]


def run(output: Path, *, retained: tuple[str, ...] = ("messages", "tools"), **options: Any) -> None:
    rows = [{"messages": talk, "tools": [ADD] if "tool_calls" in talk[1] else None} for talk in TALKS]
    source = write_jsonl(output.parent / f"{output.name}.jsonl", rows)
    made = dataset(source, data_handlers=[handler(CHAT)], retain_columns=retained)
    options = {"model_name_or_path": "sample:model", "processor": {"chat_template": REASONING}, **options}
    preprocess(output, made, **options)


def audit(output: Path, **options: Any) -> ShardAudit:
    report = inspect_shards(InspectConfig(audit=True, **options), open_shards(str(output)))
    assert report.audit is not None
    return report.audit


def inference(output: Path, **options: Any) -> InferenceAudit:
    found = audit(output, **options).inference
    assert found is not None
    return found


def change(output: Path, edit: Callable[[list[dict[str, Any]]], None]) -> None:
    """Edit the rows of the train shard."""
    path = output / "train-00000-of-00001.parquet"
    table = pq.read_table(path)
    rows = table.to_pylist()
    edit(rows)
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)


SWITCHED = (
    REASONING.removesuffix("{% endif %}")
    + "{% if enable_thinking is false %}{{ '<think></think>' }}{% endif %}{% endif %}"
).replace(
    "{% if m.reasoning_content and",
    "{% if enable_thinking is false and m.role == 'assistant' and loop.index0 > last.user %}{{ '<think></think>' }}"
    "{% endif %}{% if m.reasoning_content and",
)
"""The same, with a prompt that skips reasoning."""
CUT = [
    {"max_seq_length": 40},
    {"max_seq_length": 40, "overflow": "truncate_left"},
    {"packing": "bfd", "max_seq_length": 400},
    {"packing": "wrapped", "max_seq_length": 64},
]


@pytest.mark.parametrize("options", [{}, *CUT], ids=str)
def test_samples_of_turns_are_as_at_inference(tmp_path: Path, options: dict[str, Any]) -> None:
    run(tmp_path / "out", render="per_turn", **options)
    found = audit(tmp_path / "out")
    assert found.inference is not None
    assert (found.inference.different, found.inference.unchecked) == (0, {})
    assert found.inference.verified == (found.sequences or found.rows)
    assert "inference_differs" not in {each.rule for each in found.findings}


@pytest.mark.parametrize("options", [{}, CUT[2]], ids=str)
def test_a_conversation_rendered_once_differs_at_the_first_answer_without_its_reasoning(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    run(tmp_path / "out", render="once", **options)
    found = inference(tmp_path / "out")
    assert (found.verified, found.different, found.unchecked) == (1, 3, {})
    assert {each.found[:1] for each in found.differences} == {"A", "{"}
    assert {(each.expected or "")[:7] for each in found.differences} == {"<think>"}
    assert sorted(each.message for each in found.differences) == [1, 1, 2]
    rows = [f"{tmp_path / 'out.jsonl'}:{number}" for number in (1, 3, 4)]
    assert sorted(each.source or "" for each in found.differences) == ([""] * 3 if "packing" in options else rows)


def test_a_changed_token_of_the_history_is_named(tmp_path: Path) -> None:
    run(tmp_path / "out", render="per_turn")

    def edit(rows: list[dict[str, Any]]) -> None:
        row = next(row for row in rows if len(row["messages"]) == 5)
        row["input_ids"][20] += 1
        row["labels"] = [
            -100 if label == -100 else token for token, label in zip(row["input_ids"], row["labels"], strict=True)
        ]

    change(tmp_path / "out", edit)
    found = audit(tmp_path / "out")
    assert found.inference is not None
    assert found.inference.different == 1
    assert found.inference.differences[0].token == 20
    finding = next(each for each in found.findings if each.rule == "inference_exact_wrong")
    assert (finding.rows, finding.level) == (1, "error")  # the manifest says that all are as at inference
    assert finding.examples == (found.inference.differences[0].row,)


def test_rows_that_cannot_be_compared_are_counted_with_the_reason(tmp_path: Path) -> None:
    run(tmp_path / "out", retained=())
    assert list(inference(tmp_path / "out").unchecked.values()) == [7]
    run(tmp_path / "tools", render="per_turn")
    path = tmp_path / "tools" / "train-00000-of-00001.parquet"
    pq.write_table(pq.read_table(path).drop_columns("tools"), path)
    found = inference(tmp_path / "tools")
    assert (found.verified, found.different) == (5, 0)
    (reason,) = found.unchecked
    assert reason.endswith("they have no tools")
    run(tmp_path / "all", train_on="all")
    assert inference(tmp_path / "all").verified == 0


def test_a_template_that_refuses_a_prompt_leaves_rows_unchecked(tmp_path: Path) -> None:
    run(tmp_path / "out", render="per_turn")
    refuses = "{% if add_generation_prompt and messages | length > 3 %}{{ raise_exception('too long') }}{% endif %}"
    found = inference(tmp_path / "out", dataprocessor=ProcessorConfig(chat_template=refuses + REASONING))
    assert found.different == 0
    assert 0 < found.verified < 7
    assert all("too long" in reason for reason in found.unchecked)


def test_keys_of_arguments_in_another_order_are_no_difference(tmp_path: Path) -> None:
    run(tmp_path / "out", render="per_turn")
    path = tmp_path / "out" / "train-00000-of-00001.parquet"
    kept = [row for row in pq.read_table(path).to_pylist() if row["messages"][1]["tool_calls"]]
    for call in (call for row in kept for message in row["messages"] for call in message["tool_calls"] or []):
        call["function"]["arguments"] = dict(reversed(call["function"]["arguments"].items()))
    pq.write_table(pa.Table.from_pylist(kept), path)
    found = inference(tmp_path / "out")
    assert (found.verified, found.different, list(found.unchecked.values())) == (0, 0, [2])


def test_the_command_prints_rows_and_tokens_and_fails_if_asked_to(tmp_path: Path) -> None:
    run(tmp_path / "out", render="once")
    done = sftkit("inspect-shards", tmp_path / "out", "--fail_on", "warning")
    assert done.code == 1
    assert "inference: 1 row verified against apply_chat_template; 3 rows differ" in done.out
    run(tmp_path / "turns", render="per_turn")
    done = sftkit("inspect-shards", tmp_path / "turns", "--fail_on", "warning")
    assert done.code == 0
    assert "inference: 7 rows verified against apply_chat_template" in done.out


def test_rows_after_prompts_that_skip_reasoning_are_compared_with_these(tmp_path: Path) -> None:
    keys = {"render": "per_turn", "empty_reasoning": "add", "processor": {"chat_template": SWITCHED}}
    run(tmp_path / "out", **keys)
    found = inference(tmp_path / "out")
    assert (found.different, found.unchecked) == (0, {})


def test_other_roles_are_not_compared(tmp_path: Path) -> None:
    run(tmp_path / "out", roles_to_train=("user", "assistant"))
    (reason,) = inference(tmp_path / "out").unchecked
    assert reason.startswith("roles_to_train")
