"""Compares the rows of shards with the tokens of inference, and says which ones could not be compared, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import numpy as np

from sftkit.audit.checks.packs import Packing
from sftkit.audit.findings import EXAMPLES, INFERENCE_DIFFERS, INFERENCE_EXACT_WRONG, RuleCount
from sftkit.core.message_fields import ASSISTANT_ROLES
from sftkit.core.progress import Progress, progress_stage
from sftkit.core.row_kinds import RowKind
from sftkit.errors import TokenizerError
from sftkit.inspection.audit.inference.check_inference import NOT_RETAINED, InferenceChecker, RowChecks
from sftkit.inspection.audit.inference.compare_tokens import SHOWN_TOKENS, FirstDifference
from sftkit.inspection.audit.inference.retained_conversations import RetainedRow
from sftkit.inspection.audit.inference.turn_tokens import TurnTokenizer
from sftkit.inspection.audit.shard_origin import ShardOrigin
from sftkit.inspection.columns.column_layout import ColumnLayout
from sftkit.inspection.columns.text_columns import row_reference
from sftkit.inspection.compare.row_sources import find_row_sources
from sftkit.shards.manifest import Manifest
from sftkit.tokenization.conversation_reader import CONVERSATION_COLUMNS

_REASONS = 5
"""Maximum number of reasons that are named."""


@dataclass(frozen=True)
class InferenceDifference:
    """A row that differs from what the model has at inference."""

    row: str
    """`shard:row`, or `shard:row (sequence n)` in packs."""
    source: str | None
    """`path:row` of its source, or only the path; None where this is not known, as in packs."""
    message: int
    """Index of the assistant message in the retained conversation that the row is compared with."""
    token: int
    """Index of the first token that differs, in the row or the sequence."""
    found: str
    """The text of this token and some that follow it."""
    expected: str | None
    """The text there at inference; None where the turn has ended."""


@dataclass(frozen=True)
class InferenceAudit:
    """How the rows of some shards compare with the tokens of inference. In packs, sequences are counted."""

    verified: int
    """Rows in which every trained token follows the tokens of its prompt at inference and of its own turn."""
    different: int
    """Rows in which one does not."""
    unchecked: Mapping[str, int]
    """Why rows could not be compared -> their number."""
    differences: tuple[InferenceDifference, ...]
    """The first of those that differ, at most `EXAMPLES`."""
    claimed: bool | None = None
    """What the manifest says (`inference_exact`)."""

    @property
    def count(self) -> dict[str, RuleCount]:
        """The rows that differ, as an audit counts them."""
        rule = INFERENCE_EXACT_WRONG if self.claimed else INFERENCE_DIFFERS
        return {rule: RuleCount(self.different, tuple(each.row for each in self.differences))}


@dataclass(frozen=True)
class InferenceInput:
    """A file to check."""

    layout: ColumnLayout
    name: str
    """What the file is called."""
    packing: Packing
    rows: int
    """Rows, or sequences in packs."""
    split: str


def audit_inference(
    files: Sequence[InferenceInput], origin: ShardOrigin, stops: Sequence[int], progress: Progress
) -> InferenceAudit | None:
    """Check all rows of some files.

    Args:
        files: the files.
        origin: what made them.
        stops: the stop tokens.
        progress: receives rows and tokens.

    Returns:
        None if rows are not known to be conversations, and none is retained.

    Raises:
        SourceError: a file cannot be read.
    """
    columns = tuple(dict.fromkeys((*_configured_columns(origin), *CONVERSATION_COLUMNS)))
    retains = [not set(columns).isdisjoint(each.layout.names) for each in files]
    made = origin.row_origin
    if not any(retains) and made.kind not in (RowKind.CONVERSATIONS, RowKind.RENDERED):
        return None
    total = sum(each.rows for each in files)
    options = origin.manifest.config if origin.manifest is not None else {}
    try:
        reason = _why_impossible(origin) if any(retains) else NOT_RETAINED
        if reason is not None:
            return InferenceAudit(0, 0, {reason: total}, ())
        assert origin.tokenizer is not None
        turns = TurnTokenizer(
            origin.tokenizer,
            made.variables or {},
            made.template_date,
            escapes=options.get("special_tokens_in_content") == "escape",
            skips_reasoning=options.get("empty_reasoning") == "add",
        )
    except TokenizerError as error:
        return InferenceAudit(0, 0, {str(error): total}, ())
    if turns.takes_whole_row:
        return InferenceAudit(0, 0, {"the chat template takes whole rows": total}, ())
    checker = InferenceChecker(turns, columns, stops, options)
    with progress_stage(progress, "comparing with inference", total):
        checks = [
            checker.check(
                each.layout, each.packing, lambda rows, tokens: progress.advance(rows, rows=rows, tokens=tokens)
            )
            for each in files
        ]
    claimed = origin.manifest.inference_exact if origin.manifest is not None else None
    return replace(_summed(checks, files, _SourceNames(origin.manifest), turns), claimed=claimed)


def _why_impossible(origin: ShardOrigin) -> str | None:
    if origin.tokenizer is None:
        return "the tokenizer is not there"
    if origin.row_origin.trains_all:
        return "train_on: all trains more than the turns of the assistant"
    options = origin.manifest.config if origin.manifest is not None else {}
    if set(options.get("roles_to_train") or ASSISTANT_ROLES) - ASSISTANT_ROLES:
        return "roles_to_train: no generation prompt opens the messages of other roles"
    return None


def _configured_columns(origin: ShardOrigin) -> Iterator[str]:
    """Yield the columns of conversations that the config in the manifest names."""
    config: Mapping[str, Any] = origin.manifest.config if origin.manifest is not None else {}
    for dataset in config.get("datasets") or ():
        for handler in dataset.get("data_handlers") or ():
            arguments = handler.get("arguments")
            own = arguments.get("fn_kwargs") if isinstance(arguments, Mapping) else None
            if isinstance(own, Mapping) and isinstance(own.get("conversation_column"), str):
                yield own["conversation_column"]


def _summed(
    checks: Sequence[RowChecks], files: Sequence[InferenceInput], sources: _SourceNames, turns: TurnTokenizer
) -> InferenceAudit:
    unchecked: Counter[str] = Counter()
    for each in checks:
        unchecked.update(each.unchecked)
    named = dict(unchecked.most_common(_REASONS))
    others = unchecked.total() - sum(named.values())
    first = [
        _described(file, *difference, sources, turns)
        for each, file in zip(checks, files, strict=True)
        for difference in each.first_different
    ]
    return InferenceAudit(
        verified=sum(each.verified for each in checks),
        different=sum(each.different for each in checks),
        unchecked={**named, "other reasons": others} if others else named,
        differences=tuple(first[:EXAMPLES]),
    )


class _SourceNames:
    """Names the sources of rows, where the manifest tells them."""

    def __init__(self, manifest: Manifest | None) -> None:
        self._sources = find_row_sources(manifest)
        self._first: dict[tuple[str, str], int] = {}
        for name, split in manifest.splits.items() if manifest is not None else ():
            rows = accumulate((shard.rows for shard in split.shards), initial=0)
            self._first.update({(name, shard.file): row for shard, row in zip(split.shards, rows, strict=False)})

    def name(self, file: InferenceInput, row: int) -> str | None:
        """Return the source of a row of a file; None if it is not known."""
        first = self._first.get((file.split, file.name))
        return (
            self._sources.reference(file.split, first + row)
            if self._sources is not None and first is not None
            else None
        )


def _described(
    file: InferenceInput, row: RetainedRow, first: FirstDifference, sources: _SourceNames, turns: TurnTokenizer
) -> InferenceDifference:
    return InferenceDifference(
        row_reference(file.name, row.row, row.sequence),
        sources.name(file, row.row),
        first.message,
        first.token,
        turns.decode(row.ids[first.token :][:SHOWN_TOKENS]),
        turns.decode(np.array(first.expected, np.int32)) if first.expected else None,
    )
