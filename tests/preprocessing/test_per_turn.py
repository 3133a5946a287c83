"""`render: per_turn` and `auto` in runs: rows, counts, splits, and what does not change."""

from __future__ import annotations

import json
import random
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from test_cuts import shown

from reliability.material import sftkit
from sftkit.cli.console.reports.show_inference import inference_lines
from sftkit.config.commands import PreprocessConfig
from sftkit.config.schema.data_config import SplitConfig
from sftkit.config.schema.deduplicate_options import DeduplicateConfig
from sftkit.config.validation import validate_config
from sftkit.core.accounting.inference_counts import InferenceCounts
from sftkit.core.progress import SilentProgress
from sftkit.core.rows import IGNORE_INDEX
from sftkit.errors import ConfigError
from sftkit.preprocessing.build import run as build
from sftkit.preprocessing.planning import plan
from sftkit.sample import sample_path
from sftkit.shards.manifest import Manifest
from support import dataset, handler, preprocess, shard_bytes, write_jsonl, written
from template_zoo.conversations import ONE_CALL, assistant, result, user

CHAT = "tokenize_and_apply_chat_template_with_masking"
FIND_LAST_QUESTION = (
    "{% set last = namespace(user=0) %}{% for m in messages %}"
    "{% if m.role == 'user' %}{% set last.user = loop.index0 %}{% endif %}{% endfor %}"
)
PROMPT = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
REASONING = (
    f"{FIND_LAST_QUESTION}{{% for m in messages %}}{{{{ '<|im_start|>' + m.role + '\\n' }}}}"
    "{% if m.reasoning_content and loop.index0 > last.user %}"
    "{{ '<think>' + m.reasoning_content + '</think>' }}{% endif %}"
    f"{{{{ m.content + '<|im_end|>\\n' }}}}{{% endfor %}}{PROMPT}"
)
"""Writes reasoning only after the last question, as Qwen's templates do."""
FORGETFUL = (
    f"{FIND_LAST_QUESTION}{{% for m in messages %}}"
    "{% if m.role == 'user' or loop.index0 > last.user or (m.role == 'assistant' and not m.tool_calls) %}"
    "{{ '<|im_start|>' + m.role + '\\n' }}{% for c in m.tool_calls or [] %}{{ c.function | tojson }}{% endfor %}"
    f"{{{{ m.content + '<|im_end|>\\n' }}}}{{% endif %}}{{% endfor %}}{PROMPT}"
)
"""Leaves out calls and results before the last question."""

Message = dict[str, Any]


def exchange(number: int, thought: str = "") -> list[Message]:
    answer = assistant(f"Answer {number}.", **({"reasoning_content": thought} if thought else {}))
    return [user(f"Question {number}?"), answer]


def talk(*thoughts: str) -> list[Message]:
    return list(chain.from_iterable(exchange(number, thought) for number, thought in enumerate(thoughts)))


def run(output: Path, talks: list[list[Message]], *, template: str = REASONING, **more: Any) -> Manifest:
    rows = [{"messages": messages, "id": number} for number, messages in enumerate(talks)]
    source = write_jsonl(output.parent / f"{output.name}.jsonl", rows)
    keys = {"data_handlers": [handler(CHAT)], "retain_columns": ("id",), **more.pop("keys", {})}
    processor = {"chat_template": template, **more.pop("processor", {})}
    options: dict[str, Any] = {"model_name_or_path": "sample:model", "render": "per_turn", **more}
    return preprocess(output, dataset(source, **keys), processor=processor, **options)


def texts(output: Path, split: str = "train") -> list[tuple[str, list[str]]]:
    """What each row is, and what is trained of it, as text."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(sample_path("sample:model"))
    found = []
    for row in written(output, split):
        runs: list[list[int]] = [[]]
        for token, label in zip(row["input_ids"], row["labels"], strict=True):
            if label != IGNORE_INDEX:
                runs[-1].append(token)
            elif runs[-1]:
                runs.append([])
        found.append((tokenizer.decode(row["input_ids"]), [tokenizer.decode(each) for each in runs if each]))
    return found


def test_each_turn_is_trained_in_the_form_and_after_the_history_of_inference(tmp_path: Path) -> None:
    manifest = run(tmp_path / "out", [talk("a", "b", ""), talk("", "")])
    head = "<|im_start|>user\nQuestion 0?<|im_end|>\n<|im_start|>assistant\n"
    then = "<|im_start|>user\nQuestion 1?<|im_end|>\n<|im_start|>assistant\n"
    plain = [f"Answer {number}.<|im_end|>" for number in range(3)]
    # The third turn has no reasoning, so the second is no beginning of its sample, and neither is the first.
    assert texts(tmp_path / "out") == [
        (f"{head}<think>a</think>{plain[0]}\n", [f"<think>a</think>{plain[0]}"]),
        (f"{head}{plain[0]}\n{then}<think>b</think>{plain[1]}\n", [f"<think>b</think>{plain[1]}"]),
        (
            f"{head}{plain[0]}\n{then}{plain[1]}\n{then.replace('1', '2')}{plain[2]}\n",
            [plain[2]],
        ),
        (f"{head}{plain[0]}\n{then}{plain[1]}\n", plain[:2]),
    ]
    assert [row["id"] for row in written(tmp_path / "out")] == [0, 0, 0, 1]
    assert (manifest.rows_read, manifest.rows_added, manifest.rows_written) == (2, 2, 4)
    assert manifest.sources[0].rows_added == 2
    assert "2 rows read, 2 added by per_turn, 4 written" in shown(manifest)
    report = sftkit("inspect-shards", tmp_path / "out", "--rows", 0).out
    assert "rows: 2 read, 4 written, 2 added by per_turn\n" in report
    assert sftkit("inspect-shards", tmp_path / "out", "--verify", "true").code == 0
    assert manifest.audit is not None
    assert manifest.audit.findings == ()


def test_turns_that_a_later_sample_begins_with_are_trained_in_it(tmp_path: Path) -> None:
    manifest = run(tmp_path / "out", [talk("", "", "c"), talk("", "b", "c")])
    assert (manifest.rows_added, [len(trained) for _, trained in texts(tmp_path / "out")]) == (1, [3, 1, 2])


@pytest.mark.parametrize("more", [{}, {"val_size": 0.3}, {"token_kinds": True}])
def test_an_ordinary_template_gives_the_same_bytes(tmp_path: Path, more: dict[str, Any]) -> None:
    exact = {}
    for render in ("once", "per_turn", "auto"):
        config = PreprocessConfig(
            output_dir=str(tmp_path / render),
            training_data_path=("sample:conversations.jsonl",),
            model_name_or_path="sample:model",
            render=render,
            num_workers=1,
            **more,
        )
        manifest = build(plan(config), SilentProgress())
        assert manifest.rows_added == 0
        exact[render] = manifest.inference_exact
    assert exact == {"once": None, "per_turn": True, "auto": True}
    assert shard_bytes(tmp_path / "once") == shard_bytes(tmp_path / "per_turn") == shard_bytes(tmp_path / "auto") != {}


def tokens_of(manifest: Manifest) -> int:
    return sum(split.tokens for split in manifest.splits.values())


def test_auto_renders_turn_by_turn_where_a_turn_would_lose_its_reasoning(tmp_path: Path) -> None:
    talks = [talk("a", "b", ""), talk("", "", ""), talk("", "c"), talk("a", "")]
    once = run(tmp_path / "once", talks, render="once")
    per_turn = run(tmp_path / "per_turn", talks)
    manifest = run(tmp_path / "out", talks, render="auto")
    assert written(tmp_path / "out") == written(tmp_path / "per_turn")
    assert [row["id"] for row in written(tmp_path / "out")] == [0, 0, 0, 1, 2, 3, 3]
    more = tokens_of(manifest) - tokens_of(once)
    assert manifest.inference == per_turn.inference == InferenceCounts(7, 0, 0, 2, 5, more)
    assert (once.inference_exact, once.inference) == (None, None)
    assert manifest.inference_exact is per_turn.inference_exact is True
    line = (
        "2 conversations are rendered turn by turn (render: auto), because the chat template changes earlier turns: "
        f"5 samples, {more:+,} tokens"
    )
    assert list(inference_lines(manifest)) == [
        line,
        "every trained token follows the tokens that the model gets at inference",
    ]
    assert f"inference: {line}" in sftkit("inspect-shards", tmp_path / "out", "--rows", 0).out


def test_auto_leaves_turns_without_an_empty_block_of_reasoning(tmp_path: Path) -> None:
    block = "{{ '<think></think>' if loop.last and not m.reasoning_content and m.role == 'assistant' }}"
    template = REASONING.replace("{{ m.content", block + "{{ m.content")
    manifest = run(tmp_path / "out", [talk("", ""), talk("a", "")], template=template, render="auto")
    assert [row["id"] for row in written(tmp_path / "out")] == [0, 1, 1]
    assert manifest.inference_exact is True
    assert run(tmp_path / "per_turn", [talk("", "")], template=template).rows_written == 2


def test_auto_trains_the_stop_token_of_inference(tmp_path: Path) -> None:
    template = REASONING.replace(
        "'<|im_end|>\\n'", "('<|endoftext|>' if loop.last and m.role == 'assistant' else '<|im_end|>\\n')"
    )
    manifest = run(tmp_path / "out", [talk("", "")], template=template, render="auto")
    assert (manifest.rows_written, manifest.inference_exact) == (2, True)


def test_auto_trains_no_token_that_covers_the_start_of_the_next_message(tmp_path: Path) -> None:
    template = "{% for m in messages %}{{ '\\n<|im_start|>' + m.role + '\\n' + m.content }}{% endfor %}"
    template += PROMPT.replace("<|im", "\\n<|im")
    lines = [user("one"), assistant("two?"), user("three"), assistant("four?")]
    made = {
        render: run(tmp_path / render, [lines], template=template, render=render) for render in ("per_turn", "auto")
    }
    assert shard_bytes(tmp_path / "auto") == shard_bytes(tmp_path / "per_turn")
    assert [(each.rows_written, each.inference_exact) for each in made.values()] == [(2, True), (2, True)]


@pytest.mark.parametrize(
    "keys",
    [
        {"train_on": "all"},
        {"reasoning": "last_only"},
        {"train_on_stop": "last"},
        {"roles_to_train": ("user",)},
        {"overflow": "split_turns", "max_seq_length": 99},
    ],
    ids=str,
)
def test_auto_is_once_beside_keys_that_go_without_samples(tmp_path: Path, keys: dict[str, Any]) -> None:
    talks = [talk("a", "b"), talk("", "c")]
    run(tmp_path / "once", talks, render="once", **keys)
    manifest = run(tmp_path / "auto", talks, render="auto", **keys)
    assert shard_bytes(tmp_path / "once") == shard_bytes(tmp_path / "auto")
    assert (manifest.inference_exact, manifest.inference) == (None, None)


def test_starts_that_are_cut_off_are_not_exact(tmp_path: Path) -> None:
    manifest = run(tmp_path / "out", [talk("", "")], render="auto", max_seq_length=20, overflow="truncate_left")
    assert manifest.inference_exact is False


@pytest.mark.parametrize("method", ["exact", "near"])
def test_a_repeated_conversation_is_removed_with_all_its_samples(tmp_path: Path, method: str) -> None:
    long = " ".join(f"word{number}" for number in range(60))
    talks = [talk(f"{long} a", f"{long} b"), talk("x", "y", "z"), talk(f"{long} a", f"{long} b")]
    run(tmp_path / "out", talks, render="auto", processor={"deduplicate": DeduplicateConfig(method=method)})
    assert [row["id"] for row in written(tmp_path / "out")] == [0, 0, 1, 1, 1]


@pytest.mark.parametrize("workers", [1, 2])
def test_samples_do_not_depend_on_units_workers_and_earlier_runs(tmp_path: Path, workers: int) -> None:
    draw = random.Random(1)
    talks = [talk(*(draw.choice(["", "hm", "well"]) for _ in range(draw.randint(1, 5)))) for _ in range(40)]
    one = run(tmp_path / "one", talks)
    staging = str(tmp_path / "units")
    more: dict[str, Any] = {"unit_size": 2000, "num_workers": workers, "staging_dir": staging}
    two, three = run(tmp_path / "two", talks, **more), run(tmp_path / "three", talks, **more)
    assert one.rows_added == two.rows_added == three.rows_added > 20
    assert three.units_found == three.units > 3
    assert shard_bytes(tmp_path / "one") == shard_bytes(tmp_path / "two") == shard_bytes(tmp_path / "three")


@pytest.mark.parametrize("shuffle", [None, True, False])
@pytest.mark.parametrize("amount", ["split", "validation_rows"])
def test_samples_of_a_conversation_are_in_one_split(tmp_path: Path, shuffle: bool | None, amount: str) -> None:
    talks = [talk(*["hm"] * (number % 4 + 1)) for number in range(40)]
    keys: dict[str, Any] = {"split": SplitConfig(validation=0.25)} if amount == "split" else {"validation_rows": 10}
    manifest = run(tmp_path / "out", talks, keys={**keys, "shuffle": shuffle}, unit_size=1000)
    train, validation = ([row["id"] for row in written(tmp_path / "out", each)] for each in ("train", "validation"))
    assert not {*train} & {*validation}
    assert len({*validation}) == 10
    assert len(train) + len(validation) == manifest.rows_written == 100
    assert sorted(train + validation) == sorted(chain.from_iterable([n] * (n % 4 + 1) for n in range(40)))


def test_conversations_of_too_many_samples_are_dropped(tmp_path: Path) -> None:
    manifest = run(tmp_path / "out", [talk("a", "b", "c"), talk("a", "b"), talk("", "", "")], max_samples_per_row=2)
    assert [row["id"] for row in written(tmp_path / "out")] == [1, 1, 2]
    reason = "a conversation of more than max_samples_per_row=2 samples"
    assert manifest.dropped_by_handler == {CHAT: {reason: 1}}
    [entry] = [json.loads(line) for line in (tmp_path / "out" / "dropped.jsonl").read_text().splitlines()]
    assert (entry["row"], entry["reason"]) == (1, reason)


def test_choices_of_turns_are_kept(tmp_path: Path) -> None:
    chosen = talk("a", "b", "c")
    chosen[3]["train"] = False
    run(tmp_path / "flags", [chosen])
    assert [trained for _, trained in texts(tmp_path / "flags")] == [
        ["<think>a</think>Answer 0.<|im_end|>"],
        ["<think>c</think>Answer 2.<|im_end|>"],
    ]
    ranged = talk("a", "b")
    ranged[1]["train_ranges"] = [{"begin": 0, "end": 6, "train": False}]
    run(tmp_path / "ranges", [ranged])
    assert [trained[-1] for _, trained in texts(tmp_path / "ranges")] == [
        " 0.<|im_end|>",
        "<think>b</think>Answer 1.<|im_end|>",
    ]
    run(tmp_path / "last", [talk("a", "b")], train_on="last_assistant")
    assert [trained for _, trained in texts(tmp_path / "last")] == [["<think>b</think>Answer 1.<|im_end|>"]]
    run(tmp_path / "answers", [talk("a", "b")], reasoning="mask")
    assert [trained for _, trained in texts(tmp_path / "answers")] == [["Answer 0.<|im_end|>"], ["Answer 1.<|im_end|>"]]


def test_retained_messages_are_those_of_the_sample(tmp_path: Path) -> None:
    run(tmp_path / "out", [talk("a", "")], keys={"retain_columns": ("messages",)})
    first, second = ([m.get("train") for m in row["messages"]] for row in written(tmp_path / "out"))
    assert (first, second) == ([None, None], [None, False, None, None])


def test_history_that_the_template_leaves_out_is_no_finding(tmp_path: Path) -> None:
    chain_of_calls = [user("1+2?"), assistant("", tool_calls=ONE_CALL), result(1, "3"), assistant("It is 3.")]
    talks = [[*chain_of_calls, user("Thanks."), assistant("Welcome.")]]
    once = run(tmp_path / "once", talks, template=FORGETFUL, render="once")
    made = run(tmp_path / "out", talks, template=FORGETFUL)
    assert [len(trained) for _, trained in texts(tmp_path / "out")] == [2, 1]
    assert once.audit is not None
    assert made.audit is not None
    assert "message_not_rendered" in {finding.rule for finding in once.audit.findings}
    assert "message_not_rendered" not in {finding.rule for finding in made.audit.findings}


def test_a_prompt_that_a_turn_does_not_begin_with_is_reported(tmp_path: Path) -> None:
    template = REASONING.replace("{{ '<|im_start|>assistant\\n' }}", "{{ '<|im_start|>assistant\\n<think>' }}")
    manifest = run(tmp_path / "out", [talk("a", "b"), talk("a", "")], template=template)
    assert [trained[0][:5] for _, trained in texts(tmp_path / "out")] == ["a</th", "b</th", "a</th", "Answe"]
    assert manifest.audit is not None
    [found] = [each for each in manifest.audit.findings if each.rule == "prompt_mismatch"]
    assert (found.rows, found.examples) == (1, (f"{tmp_path / 'out.jsonl'}:2",))
    assert manifest.inference_exact is False
    assert manifest.inference is not None
    assert (manifest.inference.inexact_turns, manifest.inference.rows) == (1, 4)


def test_samples_that_are_too_long(tmp_path: Path) -> None:
    talks = [talk("a", "b " * 20)]
    left = run(tmp_path / "left", talks, max_seq_length=40, overflow="truncate_left")
    assert (left.rows_written, left.cuts.rows if left.cuts else 0) == (2, 1)
    dropped = run(tmp_path / "drop", talks, max_seq_length=40, overflow="drop")
    assert (dropped.rows_written, dropped.dropped) == (1, {"longer than max_seq_length=40": 1})


def test_a_turn_that_the_template_refuses_is_named(tmp_path: Path) -> None:
    refusing = "{% if messages[-1].content == 'Answer 0.' %}{{ raise_exception('never last') }}{% endif %}" + REASONING
    talks = [talk("a", "b"), [*exchange(1, "b"), *exchange(2, "c")]]
    assert run(tmp_path / "once", talks, template=refusing, render="once").quarantined == 0
    manifest = run(tmp_path / "out", talks, template=refusing, max_bad_rows=1)
    assert [row["id"] for row in written(tmp_path / "out")] == [1, 1]
    [bad] = [json.loads(line) for line in (tmp_path / "out" / "quarantine.jsonl").read_text().splitlines()]
    reason = "the conversation up to message 1: the chat template cannot render this row: never last"
    assert (manifest.quarantined, bad["row"], bad["reason"]) == (1, 1, reason)
    automatic = run(tmp_path / "auto", talks, template=refusing, render="auto")
    assert [row["id"] for row in written(tmp_path / "auto")] == [0, 1, 1]
    assert automatic.inference_exact is False
    assert "1 turn does not follow the prompt of inference, or it is not known: in 1 of 3 rows" in shown(automatic)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (
            {"max_samples_per_row": 2, "render": "once"},
            "max_samples_per_row is given, and conversations are rendered once (render=once, or a key that "
            "render=per_turn cannot be combined with); leave it out",
        ),
        ({"render": "per_turn", "max_samples_per_row": 0}, "max_samples_per_row must be 1 or more, not 0"),
        (
            {"render": "per_turn", "train_on": "all"},
            "render=per_turn trains assistant turns, and train_on=all trains every token; set only one of them",
        ),
        (
            {"render": "per_turn", "reasoning": "last_only"},
            "reasoning=last_only is about the last trained turn of a conversation, and with render=per_turn every turn "
            "may be the last of a sample; set only one of them",
        ),
        (
            {"render": "per_turn", "overflow": "split_turns", "max_seq_length": 9},
            "render=per_turn and overflow=split_turns both make several rows of a conversation; set only one of them "
            "(overflow=truncate_left keeps the trained turns of samples that are too long)",
        ),
    ],
)
def test_options_that_do_not_go_together(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate_config(PreprocessConfig(output_dir="o", training_data_path=("x",), **options))
    assert caught.value.problems == (problem,)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"render": "per_turn"}, "render=per_turn renders conversations"),
        ({"roles_to_train": ("user",)}, "roles_to_train is about messages of conversations"),
        ({"empty_reasoning": "drop"}, "empty_reasoning is about messages of conversations"),
        ({"pattern_weights": {"a": 2}}, "pattern_weights is about messages of conversations"),
    ],
)
def test_keys_about_conversations_need_some(tmp_path: Path, options: dict[str, Any], named: str) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"input_ids": [1, 2], "labels": [1, 2]}])
    config = PreprocessConfig(
        output_dir="o",
        datasets=(dataset(source),),
        model_name_or_path="sample:model",
        num_workers=1,
        **options,
    )
    with pytest.raises(ConfigError, match=f"{named}, but no data set has the handler"):
        plan(config)


def test_values_of_render(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [])
    assert (
        "render must be one of auto, once, per_turn, not 'each'"
        in sftkit("preprocess", "--training_data_path", source, "--render", "each", "--output_dir", tmp_path / "o").err
    )
