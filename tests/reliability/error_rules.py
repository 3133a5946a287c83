"""What every message to the user must be, as far as a program can tell. `tests/conftest.py` asks it of all of them.

The rules: one line a problem, none of Python's own words (tracebacks, addresses, names of exceptions). It
names its place (a key, a path, `path:row`, a name in quotes, a token, a part of the run), and says what to do, or
what is and what was to be.
"""

from __future__ import annotations

import dataclasses
import re
from functools import cache

from sftkit.cli.console.output import printable
from sftkit.config.commands import InspectConfig, PreprocessConfig, TrainConfig
from sftkit.config.schema import DataOptions, ProcessorConfig
from sftkit.handlers.registry import HANDLERS
from sftkit.training.arguments.build_arguments import training_argument_fields

LONGEST_LINE = 1000
MOST_LINES = 40
"""Of a config with many things wrong, or of many bad rows."""

_PYTHON = re.compile(
    r"Traceback|^\s*File \"|<[\w.]+(?: [\w.]+)* at 0x|0x[0-9a-f]{6,}|<class '|\bNoneType\b|\bNone$|^[A-Z]\w*Error\b|"
    r"(?<!raised )\b(?!TProtocol)[A-Z]\w*(?:Error|Exception)\b(?!\w* raised)|\bself\.|\bdtype\(|\bobject at\b"
)
_START = re.compile(r"(?i)^(?:an? )?(?:error|exception|failed|failure)\b")
_PLACE = re.compile(
    r"'[^']*'|`[^`]+`|\"[^\"]+\"|"  # a name in quotes
    r"^.+: no such|[\w.\-]*/[^\s:]*|\w\.(?:jsonl?|parquet|csv|tsv|arrow|ya?ml|jinja|py)\b|\w+://|"  # a path
    r"--\w|\w=-?\w|\w\.\w|\*\.\w|"  # an option, a key further in
    r"\bline \d|\brow \d|:\d"  # a place in a file
)
_PARTS = ("template", "tokenizer", "main process", "another process", "worker process", "model", "GPU", "transformers")
_DOES = re.compile(
    # what to do
    r"(?i)\b(?:give|say|choose|ask for|use|leave|lower|raise|set|add|name|take|run it|train|wait|mend|allow|install|"
    r"write|start|needs?|known|did you mean|known|there:|here:|there is|there are|takes|must|may|can|should|at most|"
    # what is, where what was to be is plain from it
    r"no such|not (?:valid|found|there|a|one|the|to|end|UTF-8|installed|whole)|cannot|holds?|has|have|missing|"
    r"unknown|unexpected|broken|more than|differs?|empty|twice|gone|is a|without|invalid|null|alone|together|computes|"
    r"requires?|expected|like it|"
    r"no (?:rows?|data|Parquet|files?))\b"
)


@cache
def _keys() -> re.Pattern[str]:
    """Every key of a config, every handler, every argument of the Trainer."""
    schemas = (DataOptions, PreprocessConfig, InspectConfig, TrainConfig, ProcessorConfig)
    keys = {field.name for schema in schemas for field in dataclasses.fields(schema)}
    keys -= {"config", "row", "rows", "split", "format", "type"}  # words of any sentence
    names = "|".join(sorted({*keys, *HANDLERS, *training_argument_fields()}, key=len, reverse=True))
    return re.compile(rf"\b(?:{names})\b|\b[a-z]+(?:_[a-z0-9]+)+\b")


def faults_of(message: str) -> list[str]:
    """What is wrong with a message as it is shown; [] when nothing is."""
    message = printable(message)
    if not message.strip():
        return ["it is empty"]
    lines = message.split("\n")
    found = [fault for line in lines for fault in _faults_of_line(line)]
    if len(lines) > MOST_LINES:
        found.append(f"it has {len(lines)} lines")
    if message != message.strip():
        found.append("it begins or ends with white space")
    if not (_PLACE.search(message) or _keys().search(message) or any(part in message for part in _PARTS)):
        found.append("it names no place")
    if not _DOES.search(message):
        found.append("it says neither what to do nor what is and should be")
    return found


def _faults_of_line(line: str) -> list[str]:
    found = []
    if not line.strip():
        found.append("it has an empty line")
    if len(line) > LONGEST_LINE:
        found.append(f"it has a line of {len(line)} characters")
    if _START.match(line.strip()):
        found.append("it begins with what is said in front of it anyway")
    if python := _PYTHON.search(line):
        found.append(f"it speaks Python: {python[0]!r}")
    return found


def faults_of_reason(reason: str) -> list[str]:
    """What is wrong with the reason for which a row is quarantined; it stands behind the row's place."""
    return _faults_of_line(printable(reason).replace("\n", " "))
