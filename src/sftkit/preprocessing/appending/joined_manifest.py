"""Joins the manifest of new shards with that of the data set that they are added to, and the lists of rows of both."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from itertools import chain, islice

from sftkit.audit.findings import RuleCount, findings_of, merge_counts
from sftkit.core.accounting.cuts import Cuts
from sftkit.core.accounting.inference_counts import InferenceCounts
from sftkit.core.accounting.removed_row import RemovedRow
from sftkit.preprocessing.appending.addition import Addition
from sftkit.shards.manifest import AuditInfo, FindingInfo, Manifest, SplitInfo
from sftkit.storage.dataset_files import ROW_LIST_KEYS
from sftkit.storage.paths import AnyPath
from sftkit.storage.streams import open_binary


def join_manifests(addition: Addition, new: Manifest) -> Manifest:
    """Return the manifest of a data set with new shards: counts are sums, and shards and sources follow each other.

    Args:
        addition: the data set, and what is added.
        new: describes the new shards alone.
    """
    base = addition.base
    names = dict.fromkeys([*base.splits, *new.splits])
    return replace(
        new,
        splits={name: _join_splits(base.splits.get(name), new.splits.get(name)) for name in names},
        sources=(*base.sources, *new.sources),
        rows_read=base.rows_read + new.rows_read,
        rows_written=base.rows_written + new.rows_written,
        rows_left_out=base.rows_left_out + new.rows_left_out,
        rows_repeated=base.rows_repeated + new.rows_repeated,
        dropped=_sum(base.dropped, new.dropped),
        quarantined=base.quarantined + new.quarantined,
        engine={
            name: ", ".join(dict.fromkeys(each[name] for each in (base.engine, new.engine) if name in each))
            for name in sorted({*base.engine, *new.engine})
        },
        fingerprint=addition.fingerprint,
        audit=_join_audits(base.audit, new.audit),
        units=base.units + new.units,
        dropped_by_handler={
            name: _sum(base.dropped_by_handler.get(name, {}), new.dropped_by_handler.get(name, {}))
            for name in sorted({*base.dropped_by_handler, *new.dropped_by_handler})
        },
        quarantined_by_reason=_sum(base.quarantined_by_reason, new.quarantined_by_reason),
        cuts=(base.cuts or Cuts()) + (new.cuts or Cuts()),
        not_rendered=_sum(base.not_rendered, new.not_rendered),
        rows_added=base.rows_added + new.rows_added,
        rows_by_programs=base.rows_by_programs + new.rows_by_programs,
        inference_exact=_is_inference_exact(base, new),
        inference=_join_inference(base.inference, new.inference),
        function_inputs={**base.function_inputs, **new.function_inputs},
        too_long_rows=_by_length(base.too_long_rows, new.too_long_rows),
        increments=addition.increments,
    )


class JoinedRows(Collection[tuple[str, RemovedRow]]):
    """The rows in a list of a data set, and then new ones."""

    def __init__(self, place: AnyPath, old: int, new: Collection[tuple[str, RemovedRow]]) -> None:
        """Describe the rows; they are read when iterated over.

        Args:
            place: the list of the data set.
            old: how many of its rows belong to the data set: an interrupted addition may have added others.
            new: the rows to add.
        """
        self._place, self._old, self._new = place, old, new

    def __len__(self) -> int:
        return self._old + len(self._new)

    def __iter__(self) -> Iterator[tuple[str, RemovedRow]]:
        return chain(self._listed(), self._new)

    def __contains__(self, row: object) -> bool:
        return any(each == row for each in self)

    def _listed(self) -> Iterator[tuple[str, RemovedRow]]:
        if not self._old:
            return
        with open_binary(self._place) as stream:
            for line in islice(stream, self._old):
                path, number, reason, content = (json.loads(line)[key] for key in ROW_LIST_KEYS)
                yield path, RemovedRow(number, reason, content)


def _join_splits(base: SplitInfo | None, new: SplitInfo | None) -> SplitInfo:
    if base is None or new is None:
        only = new if base is None else base
        assert only is not None
        return only
    rows, tokens = base.rows + new.rows, base.tokens + new.tokens
    length = new.pack_length
    return SplitInfo(
        rows=rows,
        tokens=tokens,
        trained_tokens=base.trained_tokens + new.trained_tokens,
        length_min=min(base.length_min, new.length_min),
        length_max=max(base.length_max, new.length_max),
        length_histogram=_by_length(base.length_histogram, new.length_histogram),
        shards=(*base.shards, *new.shards),
        sequences=None if new.sequences is None else (base.sequences or 0) + new.sequences,
        pack_length=length,
        fill_rate=None if length is None else round(tokens / (rows * length), 4),
        padding_tokens=None if new.padding_tokens is None else (base.padding_tokens or 0) + new.padding_tokens,
    )


def _join_audits(base: AuditInfo | None, new: AuditInfo | None) -> AuditInfo | None:
    audits = [each for each in (base, new) if each is not None]
    if not audits:
        return None
    counts = [{each.rule: RuleCount(each.rows, each.examples) for each in audit.findings} for audit in audits]
    findings = findings_of(merge_counts(counts))
    found = tuple(FindingInfo(each.rule, each.level, each.rows, each.examples) for each in findings)
    return AuditInfo(sum(audit.rows for audit in audits), found)


def _is_inference_exact(*parts: Manifest) -> bool | None:
    """Whether the rows of all parts are exact: False if those of one are not, None if one does not know."""
    found = {each.inference_exact for each in parts if each.rows_written}
    if False in found:
        return False
    return True if found == {True} else None


def _join_inference(base: InferenceCounts | None, new: InferenceCounts | None) -> InferenceCounts | None:
    return base + new if base is not None and new is not None else base or new


def _sum(base: Mapping[str, int], new: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted((Counter(base) + Counter(new)).items()))


def _by_length(base: Mapping[str, int], new: Mapping[str, int]) -> dict[str, int]:
    counts = Counter(base) + Counter(new)
    return {low: counts[low] for low in sorted(counts, key=int)}
