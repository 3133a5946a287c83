"""Rules for the wording of messages to users. `tests/conftest.py` applies them to every error raised in any test.

Each line of a message is short, and contains nothing of Python (tracebacks, addresses, names of exceptions) and no word
that the project avoids. A message names a place (a key, a path, `path:row`, a quoted name, a token, a part of the run),
and says what to do or what is wrong.
"""

from __future__ import annotations

import dataclasses
import re
from functools import cache

from plain_words import AVOIDED
from sftkit.cli.console.output import printable
from sftkit.config.commands import InspectConfig, PreprocessConfig, TrainConfig
from sftkit.config.schema.data_config import ProcessorConfig
from sftkit.config.schema.shared_options import DataOptions
from sftkit.handlers.registry import HANDLERS
from sftkit.training.arguments.build_arguments import training_argument_fields

LONGEST_LINE = 1000
MOST_LINES = 40
"""A config may have many problems, and a source many bad rows."""

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
_STATEMENT = re.compile(
    # what to do
    r"(?i)\b(?:add|allow|ask for|change|check|choose|correct|delete|did you mean|download|fix|give|increase|install|"
    r"leave|lower|make|move|name|pass|raise|reduce|remove|rename|repeat|replace|rerun|retry|run|say|set|shorten|split|"
    r"start|take|tokenize|train|try|update|upgrade|use|wait|write|"
    # what is wrong
    r"at most|at least|alone|beyond|broken|cannot|can|computes|conflicts?|contains?|corrupt|damaged|differs?|do not|"
    r"does not|duplicates?|empty|exceeds?|exists?|expected|expects?|ends?|fails?|failed|gone|has|have|here:|holds?|"
    r"ignored|incomplete|invalid|is a|is an|is not|are not|is only|is set|known|larger|like it|longer|may|mismatch|"
    r"missing|more than|must|needs?|no such|no (?:rows?|data|Parquet|files?)|null|requires?|should|stopped|takes?|"
    r"not (?:a|end|found|installed|one|the|there|to|valid|UTF-8)|there are|there is|there:|together|too|twice|"
    r"unexpected|unknown|unsupported|without|would|wrong)\b"
)
FORBIDDEN = re.compile(rf"(?i)\b(?:{AVOIDED}|norms|misfit)\b")
"""Words that messages must not use. The last two have a meaning elsewhere."""


@cache
def _keys() -> re.Pattern[str]:
    """Matches keys of a config, names of handlers, and arguments of the Trainer."""
    schemas = (DataOptions, PreprocessConfig, InspectConfig, TrainConfig, ProcessorConfig)
    keys = {field.name for schema in schemas for field in dataclasses.fields(schema)}
    keys -= {"config", "row", "rows", "split", "format", "type"}  # common words
    names = "|".join(sorted({*keys, *HANDLERS, *training_argument_fields()}, key=len, reverse=True))
    return re.compile(rf"\b(?:{names})\b|\b[a-z]+(?:_[a-z0-9]+)+\b")


def faults_of(message: str) -> list[str]:
    """What is wrong with the wording of a message; [] if nothing is."""
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
    if not _STATEMENT.search(message):
        found.append("it says neither what to do nor what is wrong")
    return found


def _faults_of_line(line: str) -> list[str]:
    found = []
    if not line.strip():
        found.append("it has an empty line")
    if len(line) > LONGEST_LINE:
        found.append(f"it has a line of {len(line)} characters")
    if _START.match(line.strip()):
        found.append("it repeats the prefix of errors")
    if python := _PYTHON.search(line):
        found.append(f"it contains Python: {python[0]!r}")
    if forbidden := FORBIDDEN.search(line):
        found.append(f"it uses a word that the project avoids: {forbidden[0]!r}")
    return found


def faults_of_reason(reason: str) -> list[str]:
    """What is wrong with the wording of the reason why a row is quarantined, which follows the place of the row."""
    return _faults_of_line(printable(reason).replace("\n", " "))
