"""manifest.json: what a data set is made of, and the sign that it is whole (it is written last)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sftkit.config.fields import plain
from sftkit.errors import OutputError

MANIFEST_NAME = "manifest.json"
FORMAT_VERSION = 1


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
    """One file that was read, with the account of its rows: read = kept + dropped + quarantined."""

    dataset: str
    path: str
    bytes: int
    sha256: str
    rows_read: int
    rows_kept: int
    dropped: Mapping[str, int]
    quarantined: int


@dataclass(frozen=True)
class TokenizerInfo:
    """Which tokenizer and chat template made the tokens."""

    name: str
    vocabulary_size: int
    eos_token: str | None
    fingerprint: str
    chat_template_sha256: str | None
    added_special_tokens: tuple[str, ...] = ()


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

    seconds: of each stage of the run, as time passed. worker_seconds: what staging was spent on, all workers together.
    audit: None for text, and for shards of a time before the audit. units, units_found: work units of the run, and how
    many of them an earlier run had staged already.
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
    units_found: int = 0

    def to_json(self) -> str:
        """The manifest as indented JSON, keys in the order of the fields."""
        return json.dumps(plain(self), indent=2, ensure_ascii=False) + "\n"


def read_manifest(directory: Path) -> Manifest | None:
    """The manifest of a directory, or None where there is none of ours.

    Raises:
        OutputError: there is one, but it cannot be read as ours.
    """
    path = directory / MANIFEST_NAME
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        raise OutputError(f"{path}: cannot be read: {error.strerror}") from None
    except (OSError, ValueError) as error:
        raise OutputError(f"{path}: cannot be read: {error}") from None
    if not isinstance(data, dict) or "format_version" not in data or "fingerprint" not in data:
        return None  # another tool's file of this name
    try:
        return _from_json(data)
    except (TypeError, KeyError, AttributeError) as error:
        raise OutputError(f"{path}: not a manifest of sftkit ({error})") from None


def length_histogram(lengths: npt.NDArray[np.int64]) -> dict[str, int]:
    """Row lengths (tokens, shape (rows,)) counted in buckets that double: lower bound -> rows."""
    if not len(lengths):
        return {}
    exponents = np.frexp(np.maximum(lengths, 0).astype(np.float64))[1]  # 0 -> 0, 1 -> 1, 2..3 -> 2, 4..7 -> 3
    counts = np.bincount(exponents)
    return {str(0 if e == 0 else 1 << (e - 1)): int(n) for e, n in enumerate(counts) if n}


def _from_json(data: dict[str, Any]) -> Manifest:
    splits = {
        name: SplitInfo(**{**split, "shards": tuple(ShardInfo(**shard) for shard in split["shards"])})
        for name, split in data["splits"].items()
    }
    tokenizer = data["tokenizer"]
    if tokenizer is not None:
        tokenizer = TokenizerInfo(**{**tokenizer, "added_special_tokens": tuple(tokenizer["added_special_tokens"])})
    return Manifest(
        **{
            **data,
            "columns": tuple(data["columns"]),
            "splits": splits,
            "sources": tuple(SourceInfo(**source) for source in data["sources"]),
            "tokenizer": tokenizer,
            "audit": _audit(data.get("audit")),
        }
    )


def _audit(data: dict[str, Any] | None) -> AuditInfo | None:
    if data is None:
        return None
    findings = [FindingInfo(**{**finding, "examples": tuple(finding["examples"])}) for finding in data["findings"]]
    return AuditInfo(data["rows"], tuple(findings))
