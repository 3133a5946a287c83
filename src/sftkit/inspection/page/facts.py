"""What a data set is, as facts and tables of numbers. The numbers are those of the report's summary."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sftkit import __version__
from sftkit.audit.findings import RULES, Finding
from sftkit.core.token_kinds import TRAINED_KINDS
from sftkit.inspection.audit.audit_shards import ShardAudit
from sftkit.inspection.page.pictures.picture import Cell
from sftkit.inspection.summary.dataset_summary import PackSummary, SplitSummary, Summary
from sftkit.inspection.summary.lengths import Lengths
from sftkit.shards.manifest import Manifest

Number = int | float | None

BATCHES = (8, 16, 32, 64, 128, 256)
"""Rows per step for which steps are computed."""


@dataclass(frozen=True)
class NumberLine:
    """A line of the table of numbers: one value per split, with what it means."""

    name: str
    values: tuple[Number, ...]
    shares: tuple[float | None, ...] = ()
    """Shown in parentheses, 0 to 1; () if there are none."""
    is_share: bool = False
    """Whether the values are shares, 0 to 1."""


@dataclass(frozen=True)
class FindingView:
    """A finding with what its rule says."""

    finding: Finding
    description: str
    advice: str
    share: float | None
    """Of the rows that were checked."""


def number_lines(splits: Sequence[SplitSummary]) -> list[NumberLine]:
    """Return the numbers of all splits."""
    packed = any(split.packs for split in splits)
    lines = [
        NumberLine("shards", tuple(len(split.shards) for split in splits)),
        NumberLine("packs" if packed else "rows", tuple(split.rows for split in splits)),
    ]
    if packed:
        lines += _pack_lines([split.packs for split in splits])
    if any(split.tokens is not None for split in splits):
        lines.append(NumberLine("tokens", tuple(split.tokens for split in splits)))
        trained = tuple(split.trained_tokens for split in splits)
        lines.append(NumberLine("trained tokens", trained, tuple(split.trained_share for split in splits)))
    if any(split.trained_by_kind is not None for split in splits):
        lines += [_kind_line(kind.label, splits) for kind in TRAINED_KINDS]
    if any(split.characters is not None for split in splits):
        lines.append(NumberLine("characters", tuple(split.characters for split in splits)))
    unit = "sequence length" if packed else "length"
    statistics: tuple[tuple[str, Callable[[Lengths], Number]], ...] = (
        ("shortest", lambda each: each.min),
        ("median", lambda each: each.median),
        ("mean", lambda each: each.mean),
        ("95th percentile", lambda each: each.p95),
        ("longest", lambda each: each.max),
    )
    for name, value in statistics:
        values = tuple(None if split.lengths is None else value(split.lengths) for split in splits)
        lines.append(NumberLine(f"{unit}, {name}", values))
    return lines


def _pack_lines(packs: Sequence[PackSummary | None]) -> Iterator[NumberLine]:
    yield NumberLine("pack length", tuple(None if each is None else each.pack_length for each in packs))
    yield NumberLine("fill", tuple(None if each is None else each.fill_rate for each in packs), is_share=True)
    yield NumberLine("sequences", tuple(None if each is None else each.sequences for each in packs))
    yield NumberLine("sequences per pack, mean", tuple(None if each is None else each.sequences_mean for each in packs))
    yield NumberLine("sequences per pack, most", tuple(None if each is None else each.sequences_max for each in packs))


def _kind_line(label: str, splits: Sequence[SplitSummary]) -> NumberLine:
    counts = [None if split.trained_by_kind is None else split.trained_by_kind.get(label, 0) for split in splits]
    shares = tuple(
        count / split.trained_tokens if count is not None and split.trained_tokens else None
        for count, split in zip(counts, splits, strict=True)
    )
    return NumberLine(f"trained as {label.replace('_', ' ')}", tuple(counts), shares)


def finding_views(audit: ShardAudit) -> list[FindingView]:
    """Return the findings of an audit with what their rules say, errors first."""
    checked = audit.sequences or audit.rows
    return [
        FindingView(
            each,
            _sentence(RULES[each.rule].description),
            _sentence(RULES[each.rule].advice),
            each.rows / checked if checked else None,
        )
        for each in audit.findings
    ]


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def step_table(split: SplitSummary) -> list[tuple[Cell, ...]]:
    """Return rows per step, steps per epoch, and the mean number of tokens per step, for some batch sizes."""
    return [(batch, -(-split.rows // batch), _tokens_of_rows(split, batch)) for batch in BATCHES]


def _tokens_of_rows(split: SplitSummary, rows: int) -> int | None:
    """Return the mean number of tokens of so many rows; None for texts."""
    return None if split.tokens is None else round(split.tokens * min(rows, split.rows) / max(1, split.rows))


def identity_facts(summary: Summary) -> list[tuple[str, str]]:
    """Return names and values that say what the data set is and what made it."""
    facts = [("columns", ", ".join(summary.columns))]
    if summary.supervision and summary.supervision != ("labels",):
        facts.append(("loss mask from", " and ".join(summary.supervision)))
    if summary.text_column is not None:
        facts.append(("text", f"column {summary.text_column}, not tokenized"))
    if summary.origin is not None:
        facts += _origin_facts(summary.origin)
    facts.append(("report made by", f"sftkit {__version__}"))
    return facts


def _origin_facts(origin: Manifest) -> Iterator[tuple[str, str]]:
    tokenizer = origin.tokenizer
    if tokenizer is not None:
        yield "tokenizer", f"{tokenizer.name} ({tokenizer.vocabulary_size:,} tokens)"
        yield "tokenizer fingerprint", tokenizer.fingerprint
        if tokenizer.eos_token is not None:
            yield "eos token", tokenizer.eos_token
        if tokenizer.added_special_tokens:
            yield "added tokens", ", ".join(tokenizer.added_special_tokens)
        if tokenizer.chat_template_sha256 is not None:
            yield "chat template", f"sha256 {tokenizer.chat_template_sha256}"
    yield "engine", ", ".join(f"{part} {name}" for part, name in origin.engine.items())
    yield "versions", ", ".join(f"{name} {version}" for name, version in origin.versions.items())
    yield "fingerprint", origin.fingerprint
    if origin.digest:
        yield "manifest digest", origin.digest


def row_balance(origin: Manifest) -> list[tuple[Cell, ...]]:
    """Return what became of the rows of the sources: they add up to the rows that were written."""
    lines: list[tuple[Cell, ...]] = [("read from the sources", origin.rows_read)]
    for name, count in (
        (f"added by {origin.adds_rows}", origin.rows_added),
        ("dropped by rules of the config", -sum(origin.dropped.values())),
        ("quarantined: could not be used", -origin.quarantined),
        ("left out by split or mix", -origin.rows_left_out),
        ("repeated by the mix", origin.rows_repeated),
    ):
        if count:
            lines.append((name, count))
    return [*lines, ("written, before packing", origin.rows_written)]


def length_limit(config: Mapping[str, Any]) -> int | None:
    """Return the length that rows were cut to, where a config has one for all of its data sets."""
    found = set()
    for dataset in config.get("datasets") or ():
        own = [
            handler["arguments"]["fn_kwargs"]["max_seq_length"]
            for handler in dataset.get("data_handlers") or ()
            if isinstance(handler.get("arguments"), Mapping)
            and isinstance(handler["arguments"].get("fn_kwargs"), Mapping)
            and isinstance(handler["arguments"]["fn_kwargs"].get("max_seq_length"), int)
        ]
        found |= set(own) or {config.get("max_seq_length")}
    if not found:
        found = {config.get("max_seq_length")}
    limits = {limit for limit in found if isinstance(limit, int)}
    return limits.pop() if len(limits) == 1 else None
