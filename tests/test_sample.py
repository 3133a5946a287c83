"""The bundled sample: its scripts reproduce it, its rows and answers are correct, its tokenizer works as documented."""

from __future__ import annotations

import importlib.util
import itertools
import json
import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, AutoTokenizer

REPOSITORY = Path(__file__).resolve().parent.parent
SAMPLE = REPOSITORY / "src" / "sftkit" / "sample"
CHAT_FILES = ("conversations.jsonl", "validation.jsonl")


def load_script(name: str) -> ModuleType:
    """Import a file of scripts/, which is not a package."""
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read_rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (SAMPLE / name).read_text(encoding="utf-8").splitlines()]


def exchanges(topic: str) -> Iterator[tuple[str, str]]:
    """Every question of a topic with its answer, from all three files."""
    for row in [*read_rows("conversations.jsonl"), *read_rows("validation.jsonl")]:
        contents = [message["content"] for message in row["messages"] if message["role"] != "system"]
        if row["topic"] == topic:
            yield from zip(contents[::2], contents[1::2], strict=True)
    for row in read_rows("pairs.jsonl"):
        if row["topic"] == topic:
            yield row["input"], row["output"]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(SAMPLE / "model")


# --- The scripts reproduce the files ------------------------------------------------------------------


def test_make_sample_writes_the_bundled_files_byte_for_byte(tmp_path: Path) -> None:
    load_script("make_sample").write_sample(tmp_path)
    for name in (*CHAT_FILES, "pairs.jsonl"):
        assert (tmp_path / name).read_bytes() == (SAMPLE / name).read_bytes(), name


def test_train_tokenizer_writes_the_bundled_model_directory_byte_for_byte(tmp_path: Path) -> None:
    load_script("train_tokenizer").write_model_dir(SAMPLE, tmp_path)
    written = sorted(path.name for path in tmp_path.iterdir())
    assert written == ["chat_template.jinja", "config.json", "tokenizer.json", "tokenizer_config.json"]
    assert written == sorted(path.name for path in (SAMPLE / "model").iterdir())
    for name in written:
        assert (tmp_path / name).read_bytes() == (SAMPLE / "model" / name).read_bytes(), name


def test_generated_conversations_do_not_depend_on_their_count() -> None:
    generate = load_script("make_sample").generate_conversations
    assert list(itertools.islice(generate(1000, seed=1), 20)) == list(generate(20, seed=1))
    assert list(generate(20, seed=1)) != list(generate(20, seed=2))


def test_generated_conversations_have_the_requested_turns_and_do_not_repeat() -> None:
    rows = list(load_script("make_sample").generate_conversations(3000, seed=5, turns=(4, 10)))
    turns = [sum(message["role"] == "user" for message in row["messages"]) for row in rows]
    assert (min(turns), max(turns)) == (4, 10)
    assert len({json.dumps(row["messages"]) for row in rows}) == 3000


# --- The rows are well-formed --------------------------------------------------------------------------


def test_the_sample_has_the_documented_size() -> None:
    counts = {name: len(read_rows(name)) for name in (*CHAT_FILES, "pairs.jsonl")}
    assert counts == {"conversations.jsonl": 320, "validation.jsonl": 40, "pairs.jsonl": 280}
    assert sum((SAMPLE / name).stat().st_size for name in counts) < 400_000


@pytest.mark.parametrize("name", CHAT_FILES)
def test_roles_alternate_and_no_text_is_empty(name: str) -> None:
    for row in read_rows(name):
        roles = [message["role"] for message in row["messages"]]
        turns = roles[1:] if roles[0] == "system" else roles
        assert turns == ["user", "assistant"] * (len(turns) // 2), row["id"]
        assert 2 <= len(roles) <= 8, row["id"]
        assert all(message["content"].strip() for message in row["messages"]), row["id"]
        assert set(row) == {"id", "topic", "messages"}, row["id"]


def test_pairs_have_an_input_and_an_output() -> None:
    for row in read_rows("pairs.jsonl"):
        assert set(row) == {"id", "topic", "input", "output"}
        assert row["input"].strip(), row["id"]
        assert row["output"].strip(), row["id"]


def test_ids_are_unique() -> None:
    ids = [row["id"] for name in (*CHAT_FILES, "pairs.jsonl") for row in read_rows(name)]
    assert len(ids) == len(set(ids)) == 640


def test_about_a_third_of_the_conversations_has_a_system_prompt() -> None:
    rows = read_rows("conversations.jsonl")
    assert 0.25 < sum(row["messages"][0]["role"] == "system" for row in rows) / len(rows) < 0.4


def test_both_chat_files_cover_the_same_eleven_topics() -> None:
    train, held_out = ({row["topic"] for row in read_rows(name)} for name in CHAT_FILES)
    assert train == held_out
    assert len(train) == 11


def test_no_validation_conversation_occurs_in_train() -> None:
    def dialogues(name: str) -> set[str]:
        """The conversations without their system prompts."""
        rows = (row["messages"] for row in read_rows(name))
        return {json.dumps([each for each in row if each["role"] != "system"]) for row in rows}

    assert len(dialogues("validation.jsonl")) == 40
    assert not dialogues("validation.jsonl") & dialogues("conversations.jsonl")


# --- The answers are correct --------------------------------------------------------------------------

OPERATIONS = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "\N{MULTIPLICATION SIGN}": lambda a, b: a * b,
    "\N{DIVISION SIGN}": lambda a, b: a / b,
}


def test_every_equation_of_the_arithmetic_answers_holds() -> None:
    pattern = re.compile(r"(\d+) (\S) (\d+) = (\d+)")
    answers = "\n".join(answer for _, answer in exchanges("arithmetic"))
    equations = pattern.findall(answers)
    for a, sign, b, result in equations:
        assert OPERATIONS[sign](int(a), int(b)) == int(result), (a, sign, b, result)
    assert len(equations) > 80
    assert {sign for _, sign, _, _ in equations} == set(OPERATIONS)


def test_arithmetic_answers_repeat_the_expression_of_the_question() -> None:
    asked = [
        (expression[0], answer)
        for question, answer in exchanges("arithmetic")
        if (expression := re.findall(r"\d+ [^\w\s] \d+", question))
    ]
    assert len(asked) > 50
    for expression, answer in asked:
        assert answer.startswith(f"{expression} = ")


def test_every_receipt_adds_up() -> None:
    receipts = [answer for _, answer in exchanges("shopping") if "Total" in answer]
    assert len(receipts) > 30
    for receipt in receipts:
        *prices, total = (round(float(price) * 100) for price in re.findall(r"€(\d+\.\d\d)$", receipt, re.M))
        assert sum(prices) == total, receipt


def test_every_weekday_is_correct() -> None:
    answers = "\n".join(answer for _, answer in exchanges("calendar"))
    found = re.findall(r"(\d+) (\w+) (\d{4}) is a (\w+)\.", answers)
    months = [date(2000, number, 1).strftime("%B") for number in range(1, 13)]
    for day, month, year, weekday in found:
        assert date(int(year), months.index(month) + 1, int(day)).strftime("%A") == weekday
    assert len(found) > 10


def test_answers_about_sftkit_use_existing_options() -> None:
    options = {match for _, answer in exchanges("sftkit") for match in re.findall(r"--(\w+)", answer)}
    assert options == {
        "data_config_path",
        "dry_run",
        "max_seq_length",
        "max_steps",
        "num_dataset_shards",
        "output_dir",
        "rows",
        "training_data_path",
    }


# --- The tokenizer, the chat template, the model config -----------------------------------------------


def test_special_tokens_are_single_ids(tokenizer: Any) -> None:
    specials = {"<|endoftext|>": [0], "<|im_start|>": [1], "<|im_end|>": [2]}
    assert {token: tokenizer(token).input_ids for token in specials} == specials
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id) == (0, 2, None)
    assert sorted(tokenizer.all_special_ids) == [0, 1, 2]
    assert len(tokenizer) == 2048


@pytest.mark.parametrize("text", ["", " ", "crème brûlée: 30 °C", "日本語 🏳️‍🌈 \x00\x7f", " a\t\r\n\n  b "])
def test_text_round_trips(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(tokenizer(text).input_ids) == text


@given(text=st.text())
def test_any_text_round_trips(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_digits_are_single_tokens_and_offsets_cover_the_text(tokenizer: Any) -> None:
    encoded = tokenizer("1234 is even", return_offsets_mapping=True)
    assert tokenizer.convert_ids_to_tokens(encoded.input_ids) == ["1", "2", "3", "4", "Ġis", "Ġeven"]
    assert encoded.offset_mapping == [(0, 1), (1, 2), (2, 3), (3, 4), (4, 7), (7, 12)]


def test_no_special_tokens_are_added_around_a_text(tokenizer: Any) -> None:
    assert tokenizer("even").input_ids == tokenizer("even", add_special_tokens=False).input_ids


def test_chat_template_renders_a_conversation(tokenizer: Any) -> None:
    messages = [
        {"role": "system", "content": "You convert units."},
        {"role": "user", "content": "5 km in m?"},
        {"role": "assistant", "content": "5000 m."},
    ]
    assert tokenizer.apply_chat_template(messages, tokenize=False) == (
        "<|im_start|>system\nYou convert units.<|im_end|>\n"
        "<|im_start|>user\n5 km in m?<|im_end|>\n"
        "<|im_start|>assistant\n5000 m.<|im_end|>\n"
    )
    assert tokenizer.apply_chat_template(messages[1:2], tokenize=False, add_generation_prompt=True) == (
        "<|im_start|>user\n5 km in m?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_chat_template_renders_tools_and_their_calls(tokenizer: Any) -> None:
    call = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Malmö"}}}
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "How warm is it in Malmö?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "7"},
        {"role": "assistant", "content": "7 °C."},
    ]
    tools = [{"name": "weather", "parameters": {"city": "string"}}, {"name": "time"}]
    assert tokenizer.apply_chat_template(messages, tools=tools, tokenize=False) == (
        "<|im_start|>system\nBe brief.\n\n"
        "You can call these tools, one JSON object a line:\n"
        '{"name": "weather", "parameters": {"city": "string"}}\n'
        '{"name": "time"}\n'
        'To call a tool, write <tool_call>{"name": ..., "arguments": ...}</tool_call>.<|im_end|>\n'
        "<|im_start|>user\nHow warm is it in Malmö?<|im_end|>\n"
        "<|im_start|>assistant\n"
        '<tool_call>{"name": "weather", "arguments": {"city": "Malmö"}}</tool_call><|im_end|>\n'
        "<|im_start|>tool\n7<|im_end|>\n"
        "<|im_start|>assistant\n7 °C.<|im_end|>\n"
    )


def test_chat_template_rejects_content_that_it_would_drop(tokenizer: Any) -> None:
    messages = [{"role": "user", "content": [{"type": "image", "url": "x.png"}]}]
    with pytest.raises(Exception, match="must be a text"):
        tokenizer.apply_chat_template(messages, tokenize=False)


def test_model_config_matches_the_tokenizer(tokenizer: Any) -> None:
    config = AutoConfig.from_pretrained(SAMPLE / "model")
    assert config.architectures == ["LlamaForCausalLM"]
    assert config.vocab_size == len(tokenizer)
    assert (config.eos_token_id, config.pad_token_id, config.bos_token_id) == (2, 0, None)
    assert config.max_position_embeddings == tokenizer.model_max_length == 2048


def test_data_config_refers_to_the_bundled_files() -> None:
    config = yaml.safe_load((SAMPLE / "data_config.yaml").read_text(encoding="utf-8"))
    assert [each["name"] for each in config["datasets"]] == ["conversations", "pairs", "held_out"]
    for dataset in config["datasets"]:
        for path in dataset["data_paths"]:
            assert (SAMPLE / path.removeprefix("sample:")).is_file(), path
