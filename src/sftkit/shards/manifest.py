"""manifest.json: describes a data set, and marks it as complete, since it is written last."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from sftkit.config.binding import Problem, bind_config
from sftkit.config.fields import to_plain_data
from sftkit.config.schema.option_values import PER_TURN, SPLIT_TURNS
from sftkit.core.accounting.cuts import Cuts
from sftkit.core.accounting.inference_counts import InferenceCounts
from sftkit.errors import OutputError
from sftkit.shards.recorded_config import recorded_config_problem
from sftkit.shards.source_info import SourceInfo
from sftkit.storage.dataset_files import MANIFEST_NAME
from sftkit.storage.files import read_bytes
from sftkit.storage.paths import AnyPath
from sftkit.storage.retry import error_reason

FORMAT_VERSION = 5
"""Version 2: the token over the boundary of a pair carries a loss, and a rendered text has one BOS token. Version 3: a
turn of a conversation starts after the longest part of its generation prompt that it begins with. Version 4: `cuts`
and `columns_not_used`; `shuffle` of a data set is null where the config does not set it. Version 5: conversations
become samples of their turns where their template changes history (`render: auto`); `inference_exact`."""

_TIMES = ("seconds", "worker_seconds", "rows_by_programs")
_EXECUTORS = ("executor", "ray_address")
_NOT_STORED = ("units_found", "digest")


@dataclass(frozen=True)
class ShardInfo:
    """One Parquet file."""

    file: str
    """Name within the directory of the manifest."""
    rows: int
    """Rows, or packs."""
    tokens: int
    """0 for text."""
    trained_tokens: int
    """Tokens whose label is not -100."""
    bytes: int
    sha256: str


@dataclass(frozen=True)
class FormatFile:
    """A file of a data set in one of its formats."""

    file: str
    """Path within the directory of the manifest, with slashes."""
    bytes: int
    sha256: str
    rows: int | None = None
    """Rows, or packs, that it holds; None for a file that only describes others."""


@dataclass(frozen=True)
class SplitInfo:
    """The shards of one split."""

    rows: int
    """Rows of the shards: packs, where rows are packed."""
    tokens: int
    trained_tokens: int
    length_min: int
    """Tokens of the shortest sequence. A sequence is a row, or one of those in a pack; text counts in characters."""
    length_max: int
    """Tokens of the longest sequence."""
    length_histogram: Mapping[str, int]
    """Number of sequences by length: bucket "64" counts those of 64 to 127 tokens. Empty for text."""
    shards: tuple[ShardInfo, ...]
    """The Parquet shards, in row order; empty if `output_format` has no Parquet."""
    sequences: int | None = None
    """Number of sequences in all packs; None where rows are not packed."""
    pack_length: int | None = None
    """The most tokens that a pack may have; None where rows are not packed."""
    fill_rate: float | None = None
    """tokens / (rows * pack_length), 0 to 1; None where rows are not packed."""
    padding_tokens: int | None = None
    """Tokens of padding, which `tokens` and `sequences` do not count; None where packs are not padded."""


@dataclass(frozen=True)
class TokenizerInfo:
    """The tokenizer and chat template that made the tokens."""

    name: str
    """The path or Hub id that it was loaded from."""
    vocabulary_size: int
    """Number of tokens, including added ones."""
    eos_token: str | None
    fingerprint: str
    """A hash that differs between tokenizers that may give different ids."""
    chat_template_sha256: str | None
    added_special_tokens: tuple[str, ...] = ()
    """Tokens that the config added to the tokenizer."""
    adds_missing_tokens: bool = False
    """Whether it got a pad, eos, bos or unk token that it lacked (`compat: fms`)."""
    eos_token_id: int | None = None
    pad_token_id: int | None = None
    chat_template: str | None = None
    """Text of the template; where the tokenizer has several named ones, a JSON object of them."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Name -> sha256 of the files that the tokenizer was loaded from."""


@dataclass(frozen=True)
class FindingInfo:
    """A rule of the audit that some rows break."""

    rule: str
    level: str
    """`error` or `warning`."""
    rows: int
    """Number of rows that break it."""
    examples: tuple[str, ...]
    """The first of them, as `path:row` of their source."""


@dataclass(frozen=True)
class AuditInfo:
    """What the audit found in the rows that passed, before they were split, mixed and packed."""

    rows: int
    """Rows that were checked."""
    findings: tuple[FindingInfo, ...]


@dataclass(frozen=True)
class Increment:
    """What one run has made of a data set that later runs have added to (`append`)."""

    fingerprint: str
    """A hash of everything that decides the content of its shards."""
    sources: int
    """How many of `Manifest.sources` are its own; they follow those of earlier runs."""
    train_shards: int
    """`num_dataset_shards` of its config."""
    validation_shards: int
    """`num_eval_dataset_shards` of its config."""


@dataclass(frozen=True)
class Manifest:
    """The content of manifest.json: what a data set consists of, and everything needed to verify and reproduce it.

    The manifest is written after all other files, so a data set with a manifest is complete. Its row counts add up:
    rows_read + rows_added = rows_written - rows_repeated + rows_left_out + the sum of `dropped` + quarantined.
    """

    columns: tuple[str, ...]
    """Columns of the shards."""
    text_column: str | None
    """The text column, where rows are text instead of tokens."""
    splits: Mapping[str, SplitInfo]
    """By name: `train`, `validation`."""
    sources: tuple[SourceInfo, ...]
    rows_read: int
    """Rows of all sources."""
    rows_written: int
    """Rows that went into the shards, counted before packing. A row that the mix repeats counts each time."""
    rows_left_out: int
    """Rows that passed, but that splitting or mixing did not use."""
    rows_repeated: int
    """Additional copies of rows in the shards, made by the mix."""
    dropped: Mapping[str, int]
    """Rows that a rule of the config removed: reason -> count."""
    quarantined: int
    """Rows that could not be used; they are in quarantine.jsonl."""
    tokenizer: TokenizerInfo | None
    """None for text."""
    engine: Mapping[str, str]
    """The engines that encoded and rendered the rows."""
    fingerprint: str
    """A hash of everything that decides the content of the shards; a run with the same fingerprint is already done."""
    config: Mapping[str, Any]
    """The resolved config of the run, without secrets; `preprocess --config manifest.json` accepts it."""
    versions: Mapping[str, str]
    """Versions of Python and of the libraries that made the shards."""
    format_version: int = FORMAT_VERSION
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Elapsed time of each stage of the run."""
    worker_seconds: Mapping[str, float] = field(default_factory=dict)
    """Time spent on each step of tokenizing, summed over all workers."""
    rows_by_programs: int = 0
    """Conversations that programs rendered; it depends on how the rows met the workers."""
    audit: AuditInfo | None = None
    """None for text, and in manifests that are older than the audit."""
    units: int = 0
    """Work units of the run."""
    units_found: int = field(default=0, compare=False)
    """Units that an earlier run had staged. Set in the result of a run, not stored on disk."""
    dropped_by_handler: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """`dropped` by the step that removed the rows: a handler, or `finish` and `packing`, which follow all handlers."""
    quarantined_by_reason: Mapping[str, int] = field(default_factory=dict)
    """Reason -> count. Numbers that differ between rows are replaced by N."""
    cuts: Cuts | None = None
    """What limits on the length cut off rows; None in manifests before version 4."""
    not_rendered: Mapping[str, int] = field(default_factory=dict)
    """What of conversations the chat template did not render: the number of rows by key, of messages (`name`) or of the
    row (`tools`); `role: tool` stands for whole messages of a role."""
    rows_added: int = 0
    """Rows that rows became (`overflow: split_turns`, `render: auto` or `per_turn`), beyond the first of each."""
    inference_exact: bool | None = None
    """Whether every trained token follows the tokens of its prompt at inference, and those of its own turn. None if
    this was not established for all rows: `render: once`, and rows that are not conversations."""
    inference: InferenceCounts | None = None
    """How conversations compare with inference, and what they became; None where that was not established for any."""
    function_inputs: Mapping[str, str] = field(default_factory=dict)
    """Path -> sha256 of the files that user functions read while they ran."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Name -> sha256 of the other files of the data set: README.md, quarantine.jsonl."""
    token_kinds: Mapping[str, int] = field(default_factory=dict)
    """The numbers in the column `token_kinds`, by name; empty if the shards have no such column."""
    too_long_rows: Mapping[str, int] = field(default_factory=dict)
    """Rows that were dropped or quarantined because they are longer than `max_seq_length` or a pack, by length as in
    `SplitInfo.length_histogram`. Rows of units that earlier versions staged are missing."""
    source_names: tuple[str, ...] = ()
    """The names of the data sets, in the order of their numbers in the column `source`; empty if there is none."""
    sources_left_out: tuple[str, ...] = ()
    """Data files that lay next to the sources and were not read, because they belong to another split."""
    formats: Mapping[str, tuple[FormatFile, ...]] = field(default_factory=dict)
    """The files of each format but Parquet, by its name; for each split in row order, then what describes them."""
    increments: tuple[Increment, ...] = ()
    """The runs that have made the data set, in order; empty if it is a single one. With several, `fingerprint` is a
    hash of theirs, and `versions` and times are those of the last one."""
    digest: str = field(default="", compare=False)
    """sha256 of the stored values, except for times (see `manifest_digest`); detects edits."""

    @property
    def shards(self) -> list[ShardInfo]:
        """The Parquet shards of all splits."""
        return [shard for split in self.splits.values() for shard in split.shards]

    @property
    def format_files(self) -> list[FormatFile]:
        """The files of all other formats."""
        return [file for files in self.formats.values() for file in files]

    @property
    def adds_rows(self) -> str:
        """The value of the option that made several rows of one: `split_turns` or `per_turn`."""
        return SPLIT_TURNS if self.config.get("overflow") == SPLIT_TURNS else PER_TURN

    def to_json(self) -> str:
        """Return the manifest as indented JSON, with keys in the order of the fields."""
        stored = {key: value for key, value in to_plain_data(self).items() if key not in _NOT_STORED}
        for key in ("token_kinds", "source_names", "too_long_rows", "formats", "increments"):
            if not stored[key]:
                del stored[key]
        for split in stored["splits"].values():
            if split["padding_tokens"] is None:
                del split["padding_tokens"]
        for source in stored["sources"]:
            if source["mix"] is None:
                del source["mix"]
        return json.dumps({**stored, "digest": manifest_digest(stored)}, indent=2, ensure_ascii=False) + "\n"


def manifest_digest(data: Mapping[str, Any]) -> str:
    """Return a sha256 over the JSON values of a manifest.

    Values in which two runs with the same result may differ are left out: times, and where the run was executed.
    """
    content = {key: value for key, value in data.items() if key not in (*_NOT_STORED, *_TIMES)}
    if isinstance(content.get("config"), Mapping):
        content["config"] = {key: value for key, value in content["config"].items() if key not in _EXECUTORS}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_manifest(directory: AnyPath) -> Manifest | None:
    """Read the manifest of a directory.

    Returns:
        None when there is no manifest.json, or when it is another tool's.

    Raises:
        OutputError: the file cannot be read, or is not a valid manifest.
    """
    path = directory / MANIFEST_NAME
    try:
        data = json.loads(read_bytes(path).decode())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        raise OutputError(f"{path}: cannot be read: {error.strerror}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise OutputError(f"{path}: cannot be read: {error_reason(error)}") from None
    if not isinstance(data, dict) or "format_version" not in data or "fingerprint" not in data:
        return None
    problems: list[Problem] = []
    manifest = bind_config(Manifest, data, problems)
    if manifest is None:
        raise OutputError(f"{path}: is not a valid manifest of sftkit: {problems[0].message.rstrip(': ')}")
    problem = recorded_config_problem(manifest.config)
    if problem is not None:
        raise OutputError(f"{path}: is not a valid manifest of sftkit: {problem}")
    return manifest


def length_histogram(lengths: npt.NDArray[np.int64]) -> dict[str, int]:
    """Count lengths (shape (rows,)) in buckets that double in size.

    Returns:
        Lower bound of the bucket -> count, without empty buckets.

    Example:
        >>> length_histogram(np.array([0, 1, 3, 64, 127]))
        {'0': 1, '1': 1, '2': 1, '64': 2}
    """
    if not len(lengths):
        return {}
    exponents = np.frexp(np.maximum(lengths, 0).astype(np.float64))[1]  # 0 -> 0, 1 -> 1, 2..3 -> 2, 4..7 -> 3
    counts = np.bincount(exponents)
    return {str(0 if e == 0 else 1 << (e - 1)): int(n) for e, n in enumerate(counts) if n}
