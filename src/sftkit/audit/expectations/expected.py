"""What right rows look like, in token ids: all that the checks know of a tokenizer, its template and the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sftkit.core.row_kinds import RowKind

CONVERSATIONS, PAIRS, RENDERED, TEXT, UNKNOWN = RowKind

START, END = -1, -2
"""In sequences of ids: the beginning and the end of the row."""

TokenIds = tuple[int, ...]


@dataclass(frozen=True)
class RowOrigin:
    """How rows were made, as far as that is known.

    kind: CONVERSATIONS (rendered by the chat template), PAIRS (input, output, eos), TEXT (tokenized as a whole,
    responses found in it), RENDERED (the same of text that the chat template made) or UNKNOWN. trains_all: every token
    carries a loss; None when unknown. reasoning_masked: the reasoning of answers carries none. ends: rows that are no
    conversations end with a stop token. response_template: of TEXT. variables: what the chat template was given
    besides (`chat_template_kwargs`), None when unknown.
    """

    kind: RowKind = UNKNOWN
    trains_all: bool | None = None
    reasoning_masked: bool = False
    ends: bool = True
    response_template: str | None = None
    variables: Mapping[str, Any] | None = field(default=None, hash=False)


@dataclass(frozen=True)
class Expectations:
    """What holds for every right row; what is not known is empty or None, and is not checked.

    vocabulary_size: ids are below it, and none of `holes`. pad: may stand around a row. bos_in_chats, bos_in_text:
    rows begin with `bos`. stops: what answers end with. prompts: how a right row goes on before an answer, one of
    these (the generation prompt, or what stands before the answer where a template has none). headers: what opens
    messages of other roles. roles: whose, for each of the headers. openers: the special tokens in prompts and headers.
    foreign: special tokens that the template never writes. after: what may follow a special token, one of these.
    before: what may precede it. tails: what may follow the last stop token of a conversation. chats_end: conversations
    end with a stop token (and a tail). special: all special tokens.
    """

    origin: RowOrigin = RowOrigin()
    vocabulary_size: int | None = None
    holes: TokenIds = ()
    bos: int | None = None
    pad: int | None = None
    bos_in_chats: bool = False
    bos_in_text: bool = False
    stops: TokenIds = ()
    prompts: tuple[TokenIds, ...] = ()
    headers: tuple[TokenIds, ...] = ()
    roles: tuple[str, ...] = ()
    openers: TokenIds = ()
    foreign: TokenIds = ()
    after: tuple[tuple[int, tuple[TokenIds, ...]], ...] = ()
    before: tuple[tuple[int, tuple[TokenIds, ...]], ...] = ()
    tails: tuple[TokenIds, ...] = ()
    chats_end: bool = False
    special: TokenIds = ()
