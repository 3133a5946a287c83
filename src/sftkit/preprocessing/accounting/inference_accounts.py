"""What the manifest says about how rows compare with what a model sees at inference."""

from __future__ import annotations

from collections.abc import Sequence

from sftkit.config.schema.option_values import JOINT
from sftkit.core.accounting.inference_counts import InferenceCounts
from sftkit.ordering.packing import keeps_rows_whole
from sftkit.preprocessing.plan.plan import Plan
from sftkit.shards.staging.staged_unit import StagedUnit

_CUTS_START = "truncate_left"


def inference_counts(staged: Sequence[StagedUnit]) -> InferenceCounts | None:
    """Add up the counts of some units; None if no row was compared."""
    counts = sum((unit.inference for unit in staged), InferenceCounts())
    return counts if counts.rows else None


def is_inference_exact(plan: Plan, staged: Sequence[StagedUnit], rows_cut: int) -> bool | None:
    """Return whether every trained token of all rows stands as at inference.

    Args:
        plan: the plan of the run.
        staged: its units.
        rows_cut: how many rows a limit on the length cut.

    Returns:
        None if that was not established for all rows, and none is known to be another.
    """
    counts = inference_counts(staged)
    if counts is None:
        return None
    lacks_starts = plan.config.overflow == _CUTS_START and rows_cut > 0
    if counts.inexact_rows or lacks_starts or not keeps_rows_whole(getattr(plan.config, "packing", None)):
        return False
    if plan.config.boundary == JOINT:
        return None  # tokens were only compared for a sample of the rows
    return True if all(unit.inference.rows or not unit.rows for unit in staged) else None
