"""What is noticed about a row while it is rendered and tokenized."""

from __future__ import annotations

from typing import NamedTuple

SPECIAL_TOKEN_IN_CONTENT, PROMPT_MISMATCH = "special_token_in_content", "prompt_mismatch"
BOUNDARY_MERGED, LOSS_FLAG_UNUSED, EMPTY_ANSWER = "boundary_merged", "loss_flag_unused", "empty_answer"
MESSAGE_NOT_RENDERED, FIELD_NOT_RENDERED = "message_not_rendered", "field_not_rendered"
"""Audit rules that can only be checked while a row is tokenized; see `RowLog.flag`."""

ROLE_PREFIX = "role: "
"""Begins a key that stands for whole messages of a role, among keys that were not rendered."""


class RowNotes(NamedTuple):
    """What was noticed about a row while it was rendered and tokenized."""

    rules: tuple[str, ...] = ()
    """Rules of the audit that it breaks."""
    not_rendered: tuple[str, ...] = ()
    """Keys that the chat template did not render: of messages (`role: tool` for whole messages of a role), and
    of the row (`tools`)."""
