"""A folder to run commands in: three source files, a tokenizer, a chat template, and functions of the user."""

from __future__ import annotations

import importlib
import json
import logging
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from sftkit.cli.app import app
from sftkit.config.binding import Problem, bind_config
from sftkit.config.commands import PreprocessConfig
from sftkit.core.progress import SilentProgress
from sftkit.preprocessing.build import run
from sftkit.preprocessing.plan.plan import Plan
from sftkit.preprocessing.planning import plan
from sftkit.sample import sample_path
from sftkit.shards.manifest import Manifest
from support import EFFORT, examples, write_jsonl

FILES = ("a.jsonl", "b.jsonl", "c.jsonl")
BAD = "bad.jsonl"
"""A file with some bad rows."""
OWN_MODULE = "own_functions_of_the_user"
TOKENIZER = "tokenizer"
TEMPLATE = "template.jinja"

CHAT_TEMPLATE = """\
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' }}
{%- if message.reasoning_content %}{{- '<think>\\n' + message.reasoning_content + '\\n</think>\\n' }}{% endif %}
{{- (message.content | upper) if shout else message.content }}
{{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{% endif %}
"""

OWN_FUNCTIONS = '''\
def keep(row, mark=""):
    """Add a mark to the row."""
    return {**row, "own": mark}


def other(row, mark=""):
    return {**row, "own": mark}


def is_odd(row, rest=1):
    return row["id"] % 2 == rest


def is_even(row):
    return row["id"] % 2 == 0
'''


def row_of(number: int) -> dict[str, Any]:
    """A row that every handler can tokenize."""
    said = f"answer {number} " + "and more " * (number % 5)
    question = f"question {number}?" if number % 4 else f"what does <|im_end|> mean, {number}?"
    first = {"role": "assistant", "content": f"first {number}", "reasoning_content": f"thought {number}"}
    return {
        "id": number,
        "topic": "even" if number % 2 == 0 else "odd",
        "input": question,
        "output": said,
        "text": f"### Question: {question}\n### Answer: {said}",
        "messages": [
            {"role": "user", "content": question},
            first,
            {"role": "user", "content": "and?"},
            {"role": "assistant", "content": said},
        ],
    }


def copy_tokenizer(folder: Path) -> None:
    """Copy the bundled tokenizer, with a chat template that uses reasoning and a variable."""
    shutil.copytree(sample_path("sample:model"), folder)
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)


def make_folder(folder: Path) -> None:
    """Create everything that the configs below refer to."""
    folder.mkdir(parents=True, exist_ok=True)
    for at, name in enumerate(FILES):
        write_jsonl(folder / name, [row_of(8 * at + each) for each in range(8)])
    lines = [json.dumps(row_of(number)) for number in range(40, 48)]
    lines[4], lines[6] = '{"input": "no answer"}' + " " * 400, '{"input": 5' + " " * 400
    (folder / BAD).write_text("".join(f"{line}\n" for line in lines))
    copy_tokenizer(folder / TOKENIZER)
    (folder / TEMPLATE).write_text(CHAT_TEMPLATE)
    (folder / f"{OWN_MODULE}.py").write_text(OWN_FUNCTIONS)


RETAINED = ["id", "input", "output", "text", "messages"]
_COMMON = {
    "tokenizer_name_or_path": TOKENIZER,
    "output_dir": "out",
    "staging_dir": "units",
    "num_workers": 1,
    "ignore_columns": ["messages"],  # the rows have columns for all kinds of configs
}


def _with_handlers(*handlers: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **_COMMON,
        "datasets": [
            {"name": "data", "data_paths": list(FILES), "retain_columns": RETAINED, "data_handlers": [*handlers]}
        ],
    }


_PAIR: dict[str, Any] = {
    "name": "tokenize_and_apply_input_masking",
    "arguments": {"fn_kwargs": {"input_field_name": "input", "output_field_name": "output"}},
}
_TOKENIZE = {"name": "tokenize", "arguments": {"fn_kwargs": {"dataset_text_field": "text"}}}
_TRUNCATE = {"name": "tokenize", "arguments": {"fn_kwargs": {"dataset_text_field": "text", "truncation": True}}}

CONFIGS: Mapping[str, Mapping[str, Any]] = {
    "pairs": _with_handlers(_PAIR),
    "cut": {
        **_COMMON,
        "unit_size": 1000,
        "max_bad_rows": 2,
        "datasets": [{"name": "data", "data_paths": [*FILES, BAD], "data_handlers": [_PAIR]}],
    },
    "chats": _with_handlers(
        {"name": f"{OWN_MODULE}:keep", "arguments": {"fn_kwargs": {"mark": "x"}}},
        {
            "name": "tokenize_and_apply_chat_template_with_masking",
            "arguments": {"remove_columns": ["topic"], "fn_kwargs": {"conversation_column": "messages"}},
        },
    ),
    "filtered": _with_handlers(
        {"name": "filter", "arguments": {"fn_kwargs": {"condition": "len(input) > 0"}}},
        {"name": "filter", "arguments": {"fn_kwargs": {"function": f"{OWN_MODULE}:is_odd"}}},
        _PAIR,
        {"name": "filter_length", "arguments": {"fn_kwargs": {"min_tokens": 1}}},
    ),
    "texts": {
        **_with_handlers(),
        "response_template": "### Answer:",
        "instruction_template": "### Question:",
        "dataset_text_field": "text",
    },
    "tokenized": {**_with_handlers(_TOKENIZE), "train_on": "all"},
    "truncated": {**_with_handlers(_TRUNCATE), "train_on": "all"},
    "simple": {
        **_COMMON,
        "training_data_path": list(FILES),
        "input_field_name": "input",
        "output_field_name": "output",
    },
    "columns": {**_COMMON, "training_data_path": list(FILES)},
    "mixed": {
        **_COMMON,
        "datasets": [
            {"name": "most", "data_paths": ["a.jsonl", "b.jsonl"], "sampling": 0.7, "data_handlers": [_PAIR]},
            {"name": "rest", "data_paths": ["c.jsonl"], "sampling": 0.3, "data_handlers": [_PAIR]},
        ],
    },
    "packed": {**_with_handlers(_PAIR), "packing": "wrapped", "pack_length": 64},
}


@dataclass(frozen=True)
class World:
    """A working directory, and a config of `preprocess` as plain data."""

    folder: Path
    config: dict[str, Any]

    @classmethod
    def of(cls, folder: Path, kind: str) -> World:
        return cls(folder, deepcopy(dict(CONFIGS[kind])))

    @property
    def data(self) -> dict[str, Any]:
        """The only data set."""
        found: dict[str, Any] = self.config["datasets"][0]
        return found

    def arguments(self, handler: int = -1) -> dict[str, Any]:
        """The `fn_kwargs` of a handler."""
        found: dict[str, Any] = self.data["data_handlers"][handler]["arguments"]["fn_kwargs"]
        return found

    def plan(self, **keys: Any) -> Plan:
        """Plan like a new process: modules are imported again."""
        sys.modules.pop(OWN_MODULE, None)
        importlib.invalidate_caches()
        problems: list[Problem] = []
        config = bind_config(PreprocessConfig, {**self.config, **keys}, problems)
        assert config is not None, problems
        return plan(config)

    def preprocess(self, **keys: Any) -> Manifest:
        return run(self.plan(**keys), SilentProgress())

    def edit(self, name: str, old: str, new: str) -> None:
        """Replace the first occurrence of a text in a file."""
        path = self.folder / name
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new, 1), encoding="utf-8")

    def edit_json(self, name: str, **keys: Any) -> None:
        """Set keys of a JSON file."""
        path = self.folder / name
        path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **keys}), encoding="utf-8")


# --- Commands in this process, and fuzzing ----------------------------------------------------------------------------


def budget(count: int) -> Callable[[Any], Any]:
    """Settings of a fuzzer that tries this many examples, times `EFFORT`."""
    return settings(
        max_examples=examples(count),
        derandomize=EFFORT <= 1,
        database=None,
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )


HANG = 600.0
"""Seconds after which a command counts as hanging, however busy the machine is."""


class HangError(BaseException):
    """Something ran for longer than it may on any machine."""


@contextmanager
def within(seconds: float = HANG) -> Iterator[None]:
    """Interrupt code that hangs."""

    def end(*_: object) -> None:
        raise HangError(f"still running after {seconds} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@dataclass(frozen=True)
class Outcome:
    """The exit code and output of a command."""

    code: int
    out: str
    err: str

    @property
    def clear(self) -> bool:
        """Whether it is a success, or a clear error."""
        if self.code == 0:
            return "Traceback" not in self.err
        return self.code in (1, 2) and "Traceback" not in self.err and "error: " in self.err


def sftkit(*arguments: object, seconds: float = HANG) -> Outcome:
    """Run a command in this process."""
    import transformers  # otherwise `preprocess` would import it without torch, for all later tests

    assert transformers is not None
    logger = logging.getLogger("sftkit")
    before = logger.handlers[:], logger.propagate, logger.level
    try:
        with within(seconds):
            done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    finally:
        logger.handlers[:], logger.propagate = before[0], before[1]
        logger.setLevel(before[2])
    return Outcome(done.exit_code, done.stdout, done.stderr)


def changed_bytes(draw: st.DrawFn, data: bytes) -> bytes:
    """Replace, remove or repeat some of the bytes."""
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, max(0, len(data) - 1)))
        length = draw(st.integers(0, 40))
        put = draw(st.one_of(st.binary(max_size=8), st.just(data[start : start + length] * 2)))
        data = data[:start] + put + data[start + length :]
    return data
