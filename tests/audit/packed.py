"""Packs of clean rows, made without the code of sftkit; labels of first tokens are -100, as the format says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sftkit.audit.checks.packs import Packing, pack_boundaries
from sftkit.audit.checks.row_checks import check_rows
from sftkit.audit.expectations.expected import Expectations
from sftkit.core.rows import Ragged
from sftkit.shards.manifest import read_manifest

from .material import IGNORED, Row, row_of


@dataclass(frozen=True)
class Pack:
    """One row of a packed shard."""

    ids: tuple[int, ...]
    labels: tuple[int, ...]
    lengths: tuple[int, ...]

    def starts(self) -> list[int]:
        return [0, *np.cumsum(self.lengths).tolist()][:-1]

    def with_label(self, place: int, label: int) -> Pack:
        return replace(self, labels=(*self.labels[:place], label, *self.labels[place + 1 :]))


def pack_of(rows: Sequence[Row]) -> Pack:
    parts = [row_of(row.ids, [IGNORED, *row.labels[1:]]) for row in rows]
    return Pack(
        tuple(value for row in parts for value in row.ids),
        tuple(label for row in parts for label in row.labels),
        tuple(len(row.ids) for row in parts),
    )


def packed(rows: Sequence[Row], capacity: int) -> list[Pack]:
    """Whole rows in order, as many as fit."""
    groups: list[list[Row]] = [[]]
    for row in rows:
        if groups[-1] and sum(len(each.ids) for each in groups[-1]) + len(row.ids) > capacity:
            groups.append([])
        groups[-1].append(row)
    return [pack_of(group) for group in groups]


@dataclass(frozen=True)
class Wrapped:
    """Packs; the row of each of their sequences, in order; the rows that are whole and at no edge of a pack."""

    packs: list[Pack]
    owners: list[int]
    inner: frozenset[int]


def wrapped(rows: Sequence[Row], capacity: int) -> Wrapped:
    """Rows concatenated and cut."""
    groups: list[list[Row]] = [[]]
    owners = []
    inner = set()
    room = capacity
    for number, row in enumerate(rows):
        at = 0
        while at < len(row.ids):
            size = min(room, len(row.ids) - at)
            if size == len(row.ids) and groups[-1] and size < room and number < len(rows) - 1:
                inner.add(number)
            groups[-1].append(row_of(row.ids[at : at + size], row.labels[at : at + size]))
            owners.append(number)
            at, room = at + size, room - size
            if not room:
                groups.append([])
                room = capacity
    return Wrapped([pack_of(group) for group in groups if group], owners, frozenset(inner))


def sequences_named(
    packs: Sequence[Pack], expectations: Expectations, packing: Packing | None = None
) -> dict[str, list[int]]:
    """Sequences, counted through all packs, by the rules that they break."""
    ids = Ragged.from_lists([pack.ids for pack in packs])
    labels = Ragged.from_lists([pack.labels for pack in packs]).values
    found = pack_boundaries(ids, Ragged.from_lists([pack.lengths for pack in packs]), packing or Packing())
    faults = check_rows(ids, labels, labels != IGNORED, expectations, found)
    return {rule: sorted(set(fault.sequences.tolist())) for rule, fault in faults.items()}


def repack(folder: Path, how: str, capacity: int) -> list[Pack]:
    """Pack the only training shard of a data set, and change the manifest accordingly."""
    manifest = read_manifest(folder)
    assert manifest is not None
    info = manifest.splits["train"]
    path = folder / info.shards[0].file
    rows = [row_of(row["input_ids"], row["labels"]) for row in pq.read_table(path).to_pylist()]
    packs = packed(rows, capacity) if how == "bfd" else wrapped(rows, capacity).packs
    trained = sum(label != IGNORED for pack in packs for label in pack.labels)
    shard = replace(info.shards[0], rows=len(packs), trained_tokens=trained)
    info = replace(
        info,
        rows=len(packs),
        trained_tokens=trained,
        shards=(shard,),
        sequences=sum(len(pack.lengths) for pack in packs),
        pack_length=capacity,
        fill_rate=info.tokens / (len(packs) * capacity),
    )
    changed = replace(manifest, splits={"train": info}, config={**manifest.config, "packing": how})
    (folder / "manifest.json").write_text(changed.to_json(), encoding="utf-8")
    write_packs(path, packs)
    return packs


def write_packs(path: Path, packs: Sequence[Pack]) -> None:
    kind = pa.list_(pa.int32())
    columns = {
        "input_ids": pa.array([pack.ids for pack in packs], kind),
        "labels": pa.array([pack.labels for pack in packs], kind),
        "seq_lengths": pa.array([pack.lengths for pack in packs], kind),
    }
    pq.write_table(pa.table(columns), path, row_group_size=3)
