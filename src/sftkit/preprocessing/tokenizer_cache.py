"""The chat tokenizer that every task of a worker process shares."""

from __future__ import annotations

from functools import lru_cache

from sftkit.errors import TokenizerError
from sftkit.tokenization.chat_tokenizer import ChatTokenizer, ChatTokenizerSpec


def tools_like(spec: ChatTokenizerSpec, identity: tuple[str, str | None] | None) -> ChatTokenizer:
    """This process's chat tokenizer of a spec, checked against the identity it had when the run was planned.

    Raises:
        TokenizerError: the tokenizer's files were changed since.
    """
    if identity is not None and tools_of(spec).identity != identity:
        tools_of.cache_clear()  # this process, or the one it was forked from, is older than the plan
        if tools_of(spec).identity != identity:
            raise TokenizerError("the tokenizer's files were changed while the run was going on; run it again")
    return tools_of(spec)


@lru_cache(maxsize=1)
def tools_of(spec: ChatTokenizerSpec) -> ChatTokenizer:
    """This process's chat tokenizer of a spec, whichever tokenizer it has."""
    return ChatTokenizer(spec)
