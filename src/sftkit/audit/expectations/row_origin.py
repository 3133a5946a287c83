"""What the audit needs to know about how the rows of a run were made, from the config of the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sftkit.audit.expectations.expected import RowOrigin
from sftkit.core.row_kinds import RowKind

_ROLES = ["assistant"]


def trains_other_roles(options: Mapping[str, Any]) -> bool:
    """Return whether messages of other roles than the assistant's carry a loss, by the config of a run."""
    return [*options.get("roles_to_train", _ROLES)] != _ROLES


def row_origin(options: Mapping[str, Any], kind: RowKind | None, *, ends_with_stop_token: bool) -> RowOrigin:
    """Describe how the rows of one data set were made.

    Args:
        options: the config of the run (as a manifest holds it).
        kind: what the handlers of the data set make of rows; None if they leave them as they are.
        ends_with_stop_token: whether each of those rows ends with a stop token.
    """
    response_template = options.get("response_template")
    if kind is None:
        kind = RowKind.TEXT if response_template else RowKind.UNKNOWN
    if kind is RowKind.UNKNOWN:
        return RowOrigin()  # the labels come from the data or from other code, whatever the options are
    return RowOrigin(
        kind=kind,
        trains_all=options.get("train_on") == "all",
        parts_masked=kind is RowKind.CONVERSATIONS
        and (
            options.get("reasoning", "keep") != "keep"
            or options.get("tool_calls", "keep") != "keep"
            or options.get("mask_pattern") is not None
            or 0 in (options.get("pattern_weights") or {}).values()
        ),
        other_roles_trained=kind is RowKind.CONVERSATIONS and trains_other_roles(options),
        stops_masked=kind is not RowKind.PAIRS and options.get("train_on_stop", "all") != "all",
        ends=kind is not RowKind.PAIRS or ends_with_stop_token,
        response_template=response_template if kind is RowKind.TEXT else None,
        variables=None  # rows differ in them
        if options.get("empty_reasoning") == "add"
        else dict(options.get("chat_template_kwargs") or {}),
        template_date=options.get("template_date"),
    )


def common_origin(origins: Sequence[RowOrigin]) -> RowOrigin:
    """Describe what the rows of several data sets have in common."""
    if not origins:
        return RowOrigin()
    first = origins[0]
    if all(origin == first for origin in origins):
        return first
    return RowOrigin(
        trains_all=first.trains_all if len({origin.trains_all for origin in origins}) == 1 else None,
        parts_masked=any(origin.parts_masked for origin in origins),
        stops_masked=any(origin.stops_masked for origin in origins),
        other_roles_trained=any(origin.other_roles_trained for origin in origins),
        ends=all(origin.ends for origin in origins),
        variables=first.variables if all(origin.variables == first.variables for origin in origins) else None,
        template_date=first.template_date,
    )
