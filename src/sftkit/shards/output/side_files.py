"""The files beside the shards of a data set: the lists of quarantined and dropped rows, and the data set card."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping

from sftkit.config.schema.option_values import SFTKIT
from sftkit.core.accounting.removed_row import RemovedRow
from sftkit.core.escape import escape_unprintable
from sftkit.core.rows import PADDING, SEQ_LENGTHS
from sftkit.shards.manifest import Manifest
from sftkit.storage.dataset_files import CARD_NAME, ROW_LIST_KEYS
from sftkit.storage.files import atomic_replace, remove, sha256_of_file, write_text
from sftkit.storage.paths import AnyPath

RowList = Collection[tuple[str, RemovedRow]]
"""Removed rows, as (source path, row)."""


def dataset_card(manifest: Manifest) -> str:
    """Return the data set card (README.md): a YAML header that lists the files of each split, and a summary.

    The manifest records its sha256, so the same data set must always get the same text.
    """
    lines = []
    if manifest.shards:
        lines += ["---", "configs:", "- config_name: default", "  data_files:"]
        for name in manifest.splits:
            lines += [f"  - split: {name}", f"    path: {name}-*.parquet"]
        lines += ["---", ""]
    lines += ["# Training-ready shards", ""]
    if manifest.tokenizer is not None and manifest.text_column is None:
        lines += [
            f"Tokenized with {_code(manifest.tokenizer.name)}; `labels` are unshifted, -100 where there is no loss.",
            "",
        ]
    if any(split.pack_length is not None for split in manifest.splits.values()):
        where = "of `seq_lengths` tokens each" if SEQ_LENGTHS in manifest.columns else "with `position_ids` from 0"
        lines += [
            f"Rows are packs: concatenated sequences {where}. A sequence must not attend to the "
            "ones before it, and its positions begin at 0.",
            "",
        ]
    if any(split.padding_tokens is not None for split in manifest.splits.values()):
        what = "The last `padding` tokens of a pack are padding: a sequence of `seq_lengths` without a loss"
        if PADDING not in manifest.columns:
            what = "The tokens at the end of a pack whose `attention_mask` is 0 are padding"
        lines += [f"{what}, which the counts below leave out.", ""]
    lines += ["| split | shards | rows | tokens | trained tokens |", "| --- | ---: | ---: | ---: | ---: |"]
    for name, split in manifest.splits.items():
        rows = f"{split.rows:,}"
        if split.pack_length is not None and split.sequences is not None and split.fill_rate is not None:
            rows += f" packs of {split.pack_length:,}, {split.fill_rate:.1%} full, with {split.sequences:,} sequences"
        shards = str(len(split.shards)) if split.shards else "-"
        lines.append(f"| {name} | {shards} | {rows} | {split.tokens:,} | {split.trained_tokens:,} |")
    trainer = manifest.config.get("parquet_columns", SFTKIT)
    for_trainer = f" (`parquet_columns: {trainer}`)" if trainer != SFTKIT else ""
    lines += ["", f"Columns: {', '.join(map(_code, manifest.columns))}{for_trainer}. "]
    lines += ["How they were made, and from what, stands in `manifest.json`."]
    for name in manifest.formats:
        lines += ["", f"The folder `{name}` has the rows as {_code(name)}."]
    return "\n".join(lines) + "\n"


def _code(name: str) -> str:
    """Format an untrusted name as a Markdown code span, in which nothing is markup.

    The fence is longer than any run of backticks in the name (CommonMark 0.31, 6.1).
    """
    shown = escape_unprintable(name)
    fence = "`" * (max(map(len, re.findall("`+", shown)), default=0) + 1)
    return f"{fence} {shown} {fence}" if "`" in shown else f"`{shown}`"


def write_row_list(target: AnyPath, rows: RowList, run: str) -> None:
    """Write removed rows as JSON lines. Without rows there is no file.

    `run` is part of the temporary name, as in `atomic_replace`.
    """
    if not rows:
        remove(target)
        return
    with (
        atomic_replace(target, run) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace") as stream,
    ):
        for path, row in rows:
            entry = dict(zip(ROW_LIST_KEYS, (path, row.number, row.reason, row.content), strict=True))
            stream.write(json.dumps(entry, ensure_ascii=False) + "\n")


def write_side_files(folder: AnyPath, manifest: Manifest, lists: Mapping[str, RowList], run: str) -> dict[str, str]:
    """Write the lists of rows, given by file name, and the card; return the sha256 of each by name."""
    for name, rows in lists.items():
        write_row_list(folder / name, rows, run)
    write_text(folder / CARD_NAME, dataset_card(manifest), run)
    hashes = {CARD_NAME: sha256_of_file(folder / CARD_NAME), **{name: row_list_sha256(folder, name) for name in lists}}
    return {name: sha256 for name, sha256 in hashes.items() if sha256 is not None}


def row_list_sha256(folder: AnyPath, name: str) -> str | None:
    """Return the sha256 of a list of rows of a data set, None when it has none."""
    try:
        return sha256_of_file(folder / name)
    except (FileNotFoundError, IsADirectoryError):
        return None
