"""The section `dataprocessor.decontaminate`: the evaluation sets whose questions must not be in the data."""

from __future__ import annotations

from dataclasses import dataclass

from sftkit.config.fields import option


@dataclass(frozen=True, kw_only=True)
class DecontaminateConfig:
    """Which evaluation sets rows are compared with, and how many words they may have in common."""

    paths: tuple[str, ...] = option(
        location=True,
        short_form=True,
        help="Evaluation sets: files (JSONL, JSON, Parquet, Arrow, CSV, or .txt with a question a line), directories, "
        "globs, fsspec URLs or Hub ids.",
    )
    columns: tuple[str, ...] = option(
        (), help="Columns with the questions. Default: those with usual names, such as question, prompt and messages."
    )
    ngrams: tuple[int, ...] = option(
        (8, 13),
        help="Lengths of runs of words that a row and a question may not share. One of the largest length is enough; "
        "those of the others must make up `min_share` of the question, or the whole text.",
    )
    min_share: float = option(
        0.5, minimum=0, maximum=1, help="Share of a question that runs of the smaller lengths have to make up."
    )
