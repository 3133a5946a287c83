"""What opens messages, as tokens: prompts before answers, and headers of other roles."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import takewhile

from sftkit.audit.expectations.expected import TokenIds
from sftkit.audit.expectations.id_sequences import common_prefix, common_suffix, ends_with
from sftkit.audit.expectations.message_endings import ends_with_prompt
from sftkit.audit.expectations.neighbours import Neighbours
from sftkit.audit.expectations.prober import Prober
from sftkit.audit.expectations.probes import (
    ANSWERS,
    ASSISTANT,
    MARKER,
    SYSTEM,
    TOOL,
    USER,
    Probe,
    RenderedProbe,
    content_of,
)
from sftkit.core.message_fields import REASONING_TAG_WORDS

REASONING = re.compile(REASONING_TAG_WORDS, re.IGNORECASE)
"""Matches the tokens that open and close reasoning."""

_REASONING_TAGS = re.compile(  # at the end of the text before an answer, with the white space between
    rf"(?:(?:<[^<>\s]*(?:{REASONING_TAG_WORDS})[^<>\s]*>|\[/?(?:THINK|REASONING)\])\s*)+\Z", re.IGNORECASE
)
_LEAST_PLAIN = 3  # tokens of a prompt or header without a special token: shorter ones may occur anywhere
LONGEST = 24
"""Tokens of a prompt or header that are compared: the last ones of a longer one, which has a default system prompt."""


class MessageHeaders:
    """Finds prompts and headers in what a template writes.

    Args:
        prober: renders more conversations if needed.
        neighbours: the neighbours of special tokens.
        stops: stop tokens; neither these nor `bos` are part of a header.
        bos: the BOS token; None if there is none.
    """

    def __init__(self, prober: Prober, neighbours: Neighbours, stops: Collection[int], bos: int | None) -> None:
        self._prober = prober
        self._neighbours = neighbours
        self._stops = stops
        self._bos = bos

    def headers(self, shown: Sequence[RenderedProbe]) -> dict[TokenIds, str]:
        """The headers of messages that the model does not write -> their role; the most usual one of several."""
        roles: dict[TokenIds, str] = {}
        for each in shown:
            for header, role in self._headers_in(each):
                roles[header] = min(role, roles.get(header, role), key=_plainness)
        return roles

    def prompts(self, questions: Iterable[RenderedProbe]) -> tuple[TokenIds, ...]:
        """What directly precedes answers, for each way to ask for one; () if it is unknown for one of them."""
        prompts: set[TokenIds] = set()
        for question in questions:
            asked = self._as_asked(question)
            if asked is None:
                continue
            gap = asked.gaps[-1]
            if len(set(gap)) > 1:
                prompt = trimmed_header(self._prober, common_suffix(gap))
            else:
                prompt = self._opening(asked, len(asked.gaps) - 1, gap[0])
            if not prompt:
                return ()
            prompts.add(prompt)
        shortest = [each for each in prompts if not any(each != other and ends_with(each, other) for other in prompts)]
        return tuple(sorted(shortest))

    def _opening(self, shown: RenderedProbe, gap: int, tokens: TokenIds) -> TokenIds:
        """The header of the message whose content (or end) follows `tokens` in a gap.

        It begins after the stop token, the white space or the content before it.
        """
        sequence = tokens
        for place in range(gap - 1, -1, -1):
            token = shown.specials[place]
            if token in self._stops or token == self._bos:
                break
            left = shown.gaps[place]
            sequence = (token, *sequence)
            if len(set(left)) > 1 or (self._prober.is_blank(left[0]) and not self._includes_previous(shown, place)):
                break
            sequence = (*left[0], *sequence)
        return trimmed_header(self._prober, sequence)

    def _includes_previous(self, shown: RenderedProbe, place: int) -> bool:
        """Whether a header that begins with the special token at a place includes the special token before that.

        A token that opens reasoning is never a header alone, and a token that never follows content closes none.
        """
        if not place or shown.gaps[place][0]:
            return False
        token, before = shown.specials[place], shown.specials[place - 1]
        opens_reasoning = REASONING.search(self._prober.decode((token,))) is not None
        return opens_reasoning or self._neighbours.never_follows_content(before)

    def _headers_in(self, shown: RenderedProbe) -> Iterator[tuple[TokenIds, str]]:
        for place, gap in enumerate(shown.gaps):
            if len(set(gap)) > 1:
                asked = self._asked_in(shown, place)
                header = self._opening(shown, place, common_prefix(gap)) if asked else ()
                if header:
                    yield header, "+".join(dict.fromkeys(asked))

    def _asked_in(self, shown: RenderedProbe, place: int) -> list[str]:
        """The roles of the messages that a gap begins with, up to the first one that the model writes."""
        contents = MARKER.finditer(self._prober.decode(shown.gaps[place][0]))
        roles = (shown.probe.shape[int(found[1])] for found in contents)
        return list(takewhile(lambda role: role not in ANSWERS, roles))

    def _as_asked(self, question: RenderedProbe) -> RenderedProbe | None:
        """A question with the prompt that the model gets.

        If the template writes no generation prompt, this is what it writes before the content of an answer, except for
        white space and reasoning, which the model writes.
        """
        probe = question.probe
        plain = Probe(probe.shape, probe.tools)
        answered = Probe((*probe.shape, ASSISTANT), probe.tools)
        if self._prober.text(plain, 0) != question.texts[0] or ends_with_prompt(self._prober, question):
            return question
        texts = []
        for variant, text in enumerate(question.texts):
            whole = self._prober.text(answered, variant)
            if whole is None or not whole.startswith(text):
                return question
            content = content_of(len(probe.shape), variant)
            place = whole.find(content, len(text))
            if place < 0:
                place = whole.find(content.strip(), len(text))
            header = _REASONING_TAGS.sub("", whole[len(text) : max(place, len(text))])
            texts.append(text + header if header.strip() else text)
        return self._prober.aligned(probe, texts)


def trimmed_header(prober: Prober, sequence: TokenIds) -> TokenIds:
    """A header without the white space before it; () if what is left could occur anywhere."""
    blank = takewhile(lambda value: value not in prober.specials and prober.is_blank((value,)), sequence)
    sequence = sequence[len(list(blank)) :]
    enough = any(value in prober.specials for value in sequence) or len(sequence) >= _LEAST_PLAIN
    return sequence[-LONGEST:] if enough else ()


def _plainness(role: str) -> tuple[int, int, str]:
    """Sort key for the roles of one header: single roles first, then the usual ones."""
    usual = (USER, SYSTEM, TOOL)
    return role.count("+"), usual.index(role) if role in usual else len(usual), role
