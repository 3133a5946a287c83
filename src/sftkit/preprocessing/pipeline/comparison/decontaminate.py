"""The step that drops rows which overlap with evaluation questions, before any handler runs."""

from __future__ import annotations

import numpy as np

from sftkit.core.row_log import RowLog
from sftkit.core.rows import Batch
from sftkit.decontamination.question_index import Overlap, QuestionIndex
from sftkit.handlers.base import Step
from sftkit.preprocessing.pipeline.comparison.all_texts import texts_in

DECONTAMINATE = "decontaminate"
"""Name of this step in row counts and times."""


def drop_overlapping(questions: QuestionIndex) -> Step:
    """Return the step. All texts of a row are compared, those of every column and of every message."""

    def step(batch: Batch, log: RowLog) -> Batch:
        rows = [list(texts_in(row)) for row in batch.rows]
        found = iter(questions.find([text for texts in rows for text in texts]))
        overlaps = [next(filter(None, [next(found) for _ in texts]), None) for texts in rows]
        keep = np.array([overlap is None for overlap in overlaps], np.bool_)
        for number, row, overlap in zip(batch.numbers.tolist(), batch.rows, overlaps, strict=True):
            if overlap is not None:
                log.drop(_reason(overlap), [number], [row], [_details(overlap)])
        return batch.filter(keep)

    return step


def _reason(overlap: Overlap) -> str:
    path = overlap.question.place.rpartition(":")[0]
    return f"has words of the evaluation set {path}"


def _details(overlap: Overlap) -> str:
    row = overlap.question.place.rpartition(":")[2]
    return f" (row {row}): {' '.join(overlap.words)}"
