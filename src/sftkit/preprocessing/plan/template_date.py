"""The day that chat templates are given, where the user chooses none: a run that continues keeps the day it began with.

It is in the manifest of a finished data set, and until then beside the staged units.
"""

from __future__ import annotations

import hashlib
from typing import Any

from sftkit.preprocessing.plan.plan import Plan
from sftkit.shards.output.base_output import Output


def keep_template_date(plan: Plan, output: Output[Any]) -> Plan:
    """Return the plan with the day that its output directory, or its staged units, were begun with.

    Raises:
        OutputError: the manifest in the output directory cannot be read.
    """
    if not plan.has_default_date:
        return plan
    manifest = output.manifest()
    finished_with = manifest.config.get("template_date") if manifest is not None else None
    if manifest is not None and isinstance(finished_with, str):
        finished = plan.on_day(finished_with)
        if finished.fingerprint == manifest.fingerprint:
            return finished
    begun_with = output.units.template_date(_tokenizer_id(plan))
    return plan if begun_with is None else plan.on_day(begun_with)


def record_template_date(plan: Plan, output: Output[Any]) -> None:
    """Record the day of a run beside its staged units, before there are any."""
    if plan.has_default_date and plan.config.template_date is not None:
        output.units.keep_template_date(_tokenizer_id(plan), plan.config.template_date)


def _tokenizer_id(plan: Plan) -> str:
    return hashlib.sha256(repr(plan.pipeline.chat_tokenizer.identity).encode()).hexdigest()[:32]
