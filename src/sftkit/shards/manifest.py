"""manifest.json: what a data set is made of, and the sign that it is whole (it is written last)."""

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
from sftkit.errors import OutputError
from sftkit.storage.dataset_files import MANIFEST_NAME
from sftkit.storage.files import read_bytes
from sftkit.storage.paths import AnyPath
from sftkit.storage.retry import error_reason

FORMAT_VERSION = 1

_TIMES = ("seconds", "worker_seconds")
_EXECUTORS = ("executor", "ray_address")
_TOLD = ("units_found", "digest")


@dataclass(frozen=True)
class ShardInfo:
    """One Parquet file: its name within the directory, and what it holds."""

    file: str
    rows: int
    tokens: int
    trained_tokens: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class SplitInfo:
    """The shards of one split together.

    rows: of the shards; packs, where rows are packed. length_min, length_max: tokens of the shortest and the longest
    sequence (a row, or a part of a pack). length_histogram: sequences by tokens; bucket "64" holds 64 to 127.
    sequences, pack_length, fill_rate: of packs only; fill_rate is tokens over rows * pack_length.
    """

    rows: int
    tokens: int
    trained_tokens: int
    length_min: int
    length_max: int
    length_histogram: Mapping[str, int]
    shards: tuple[ShardInfo, ...]
    sequences: int | None = None
    pack_length: int | None = None
    fill_rate: float | None = None


@dataclass(frozen=True)
class SourceInfo:
    """One file that was read, with the account of its rows: read = kept + dropped + quarantined.

    dropped, dropped_by_handler, quarantined_by_reason: as in `Manifest`.
    """

    dataset: str
    path: str
    bytes: int
    sha256: str
    rows_read: int
    rows_kept: int
    dropped: Mapping[str, int]
    quarantined: int
    dropped_by_handler: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    quarantined_by_reason: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class TokenizerInfo:
    """Which tokenizer and chat template made the tokens.

    chat_template: its text; of several named ones, JSON of them. files: sha256 by name, of what it was loaded from.
    """

    name: str
    vocabulary_size: int
    eos_token: str | None
    fingerprint: str
    chat_template_sha256: str | None
    added_special_tokens: tuple[str, ...] = ()
    eos_token_id: int | None = None
    pad_token_id: int | None = None
    chat_template: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class FindingInfo:
    """A rule of the audit that rows break: how many do, and the first of them by `path:row` of their source."""

    rule: str
    level: str
    rows: int
    examples: tuple[str, ...]


@dataclass(frozen=True)
class AuditInfo:
    """What the audit found in the rows that passed, before they were split and mixed."""

    rows: int
    findings: tuple[FindingInfo, ...]


@dataclass(frozen=True)
class Manifest:
    """Everything needed to trust and to repeat a data set.

    rows_read = rows_written - rows_repeated + rows_left_out + the sum of `dropped` + quarantined. dropped: by reason.
    dropped_by_handler: the same, by the handler that did it (`finish` and `packing` are what comes after handlers).
    quarantined_by_reason: numbers that differ from row to row are N in a reason.
    seconds: of each stage of the run, as time passed. worker_seconds: what staging was spent on, all workers together.
    audit: None for text, and for shards of a time before the audit. units: work units of the run. units_found: how many
    of them an earlier run had staged already; told by the run, and not kept on disk. files: sha256 by name, of what
    stands beside the shards. digest: of all that is kept, but
    for times: it tells a manifest that was edited.
    """

    columns: tuple[str, ...]
    text_column: str | None
    splits: Mapping[str, SplitInfo]
    sources: tuple[SourceInfo, ...]
    rows_read: int
    rows_written: int
    rows_left_out: int
    rows_repeated: int
    dropped: Mapping[str, int]
    quarantined: int
    tokenizer: TokenizerInfo | None
    engine: Mapping[str, str]
    fingerprint: str
    config: Mapping[str, Any]
    versions: Mapping[str, str]
    format_version: int = FORMAT_VERSION
    seconds: Mapping[str, float] = field(default_factory=dict)
    worker_seconds: Mapping[str, float] = field(default_factory=dict)
    audit: AuditInfo | None = None
    units: int = 0
    units_found: int = field(default=0, compare=False)
    dropped_by_handler: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    quarantined_by_reason: Mapping[str, int] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    digest: str = field(default="", compare=False)

    @property
    def shards(self) -> list[ShardInfo]:
        """The shards of all splits."""
        return [shard for split in self.splits.values() for shard in split.shards]

    def to_json(self) -> str:
        """The manifest as indented JSON, keys in the order of the fields."""
        kept = {key: value for key, value in to_plain_data(self).items() if key not in _TOLD}
        return json.dumps({**kept, "digest": manifest_digest(kept)}, indent=2, ensure_ascii=False) + "\n"


def manifest_digest(data: Mapping[str, Any]) -> str:
    """sha256 over the JSON values of a manifest, without those that two runs with the same outcome may differ in."""
    content = {key: value for key, value in data.items() if key not in (*_TOLD, *_TIMES)}
    if isinstance(content.get("config"), Mapping):
        content["config"] = {key: value for key, value in content["config"].items() if key not in _EXECUTORS}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_manifest(directory: AnyPath) -> Manifest | None:
    """The manifest of a directory, or None where there is none of ours.

    Raises:
        OutputError: there is one, but it cannot be read as ours.
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
        return None  # another tool's file of this name
    problems: list[Problem] = []
    manifest = bind_config(Manifest, data, problems)
    if manifest is None:
        raise OutputError(f"{path}: not a manifest of sftkit: {problems[0].message.rstrip(': ')}")
    return manifest


def length_histogram(lengths: npt.NDArray[np.int64]) -> dict[str, int]:
    """Row lengths (tokens, shape (rows,)) counted in buckets that double: lower bound -> rows."""
    if not len(lengths):
        return {}
    exponents = np.frexp(np.maximum(lengths, 0).astype(np.float64))[1]  # 0 -> 0, 1 -> 1, 2..3 -> 2, 4..7 -> 3
    counts = np.bincount(exponents)
    return {str(0 if e == 0 else 1 << (e - 1)): int(n) for e, n in enumerate(counts) if n}
