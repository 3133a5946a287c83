"""What correct rows look like, in token ids: all that the checks know about a tokenizer, its template and the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sftkit.core.row_kinds import RowKind

START, END = -1, -2
"""Stand for the start and the end of the row in sequences of ids."""

TokenIds = tuple[int, ...]


@dataclass(frozen=True)
class RowOrigin:
    """How rows were made, as far as that is known."""

    kind: RowKind = RowKind.UNKNOWN
    """CONVERSATIONS (rendered by the chat template), PAIRS (input, output, eos), TEXT (tokenized as a whole, responses
    found in it), RENDERED (the same for text that the chat template rendered) or UNKNOWN."""
    trains_all: bool | None = None
    """Every token carries a loss; None if unknown."""
    parts_masked: bool = False
    """Some answers carry a loss only in part: without their reasoning or their tool calls."""
    stops_masked: bool = False
    """Some stop tokens of trained answers carry no loss."""
    other_roles_trained: bool = False
    """Messages of other roles than the assistant's carry a loss."""
    ends: bool = True
    """Rows that are not conversations end with a stop token."""
    response_template: str | None = None
    """The text before each response, for TEXT."""
    variables: Mapping[str, Any] | None = field(default=None, hash=False)
    """Extra variables of the chat template (`chat_template_kwargs`); None if unknown."""
    template_date: str | None = None
    """The day that the chat template was given, as YYYY-MM-DD; None if unknown."""


@dataclass(frozen=True)
class Expectations:
    """What holds for every correct row. What is unknown is empty or None, and is not checked."""

    origin: RowOrigin = RowOrigin()
    """How the rows were made."""
    vocabulary_size: int | None = None
    """All ids are below it."""
    holes: TokenIds = ()
    """Ids below `vocabulary_size` that are no tokens."""
    bos: int | None = None
    """The BOS token."""
    pad: int | None = None
    """The padding token, which may surround a row."""
    bos_in_chats: bool = False
    """Conversations begin with `bos`."""
    bos_in_text: bool = False
    """Other rows begin with `bos`."""
    stops: TokenIds = ()
    """Stop tokens, which end answers."""
    prompts: tuple[TokenIds, ...] = ()
    """What directly precedes an answer, one of these: the generation prompt, or the header of an answer if the template
    has no generation prompt."""
    headers: tuple[TokenIds, ...] = ()
    """What opens messages of other roles."""
    roles: tuple[str, ...] = ()
    """The role of each of the headers."""
    openers: TokenIds = ()
    """The special tokens in prompts and headers."""
    foreign: TokenIds = ()
    """Special tokens that the template never writes."""
    after: tuple[tuple[int, tuple[TokenIds, ...]], ...] = ()
    """For some special tokens, the sequences of which one must follow it."""
    before: tuple[tuple[int, tuple[TokenIds, ...]], ...] = ()
    """For some special tokens, the sequences of which one must precede it."""
    tails: tuple[TokenIds, ...] = ()
    """What may follow the last stop token of a conversation."""
    chats_end: bool = False
    """Conversations end with a stop token (and a tail)."""
    special: TokenIds = ()
    """All special tokens."""
