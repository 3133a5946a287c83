"""The README.md beside the shards: a data set card, so that `datasets.load_dataset(output_dir)` gives the splits."""

from __future__ import annotations

import re

from sftkit.shards.manifest import Manifest


def dataset_card(manifest: Manifest) -> str:
    """A card whose head names the files of each split, and whose text says what they hold."""
    lines = ["---", "configs:", "- config_name: default", "  data_files:"]
    for name in manifest.splits:
        lines += [f"  - split: {name}", f"    path: {name}-*.parquet"]
    lines += ["---", "", "# Training-ready shards", ""]
    if manifest.tokenizer is not None and manifest.text_column is None:
        lines += [
            f"Tokenized with {_code(manifest.tokenizer.name)}; `labels` are unshifted, -100 where there is no loss.",
            "",
        ]
    if any(split.pack_length is not None for split in manifest.splits.values()):
        lines += [
            "Rows are packs: sequences laid end to end, `seq_lengths` tokens each. A sequence must not attend to the "
            "ones before it, and its positions begin at 0.",
            "",
        ]
    lines += ["| split | shards | rows | tokens | trained tokens |", "| --- | ---: | ---: | ---: | ---: |"]
    for name, split in manifest.splits.items():
        rows = f"{split.rows:,}"
        if split.pack_length is not None and split.sequences is not None and split.fill_rate is not None:
            rows += f" packs of {split.pack_length:,}, {split.fill_rate:.1%} full, with {split.sequences:,} sequences"
        lines.append(f"| {name} | {len(split.shards)} | {rows} | {split.tokens:,} | {split.trained_tokens:,} |")
    lines += ["", f"Columns: {', '.join(map(_code, manifest.columns))}. "]
    lines += ["How they were made, and from what, stands in `manifest.json`."]
    return "\n".join(lines) + "\n"


def _code(name: str) -> str:
    """A name from data or a path as a code span of Markdown, in which nothing is markup. Its fence is longer than any
    run of backticks in it (CommonMark 0.31, 6.1).
    """
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
    fence = "`" * (max(map(len, re.findall("`+", shown)), default=0) + 1)
    return f"{fence} {shown} {fence}" if "`" in shown else f"`{shown}`"
