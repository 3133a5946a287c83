"""What directly precedes and follows special tokens in a template's conversations, whatever the contents are."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from itertools import takewhile

from sftkit.audit.expectations.expected import END, START, TokenIds
from sftkit.audit.expectations.id_sequences import common_prefix
from sftkit.audit.expectations.prober import Prober
from sftkit.audit.expectations.probes import RenderedProbe

_LEAST_OCCURRENCES = 3  # occurrences of a token in probes before its neighbours become a rule

Bound = tuple[tuple[int, tuple[TokenIds, ...]], ...]
"""For each token, the sequences of which one must be next to it."""


class Neighbours:
    """Collects the neighbours of special tokens, one slot at a time: a special token at one place of one probe.

    Args:
        prober: decodes tokens.
    """

    def __init__(self, prober: Prober) -> None:
        self._prober = prober
        self._after: dict[int, set[TokenIds]] = defaultdict(set)
        self._before: dict[int, set[TokenIds]] = defaultdict(set)
        self._slots: dict[int, int] = defaultdict(int)

    def note(self, shown: RenderedProbe) -> None:
        """Record what precedes and follows each special token, whatever the contents."""
        tokens = shown.specials
        for place, token in enumerate(tokens):
            self._slots[token] += 1
            left, right = shown.gaps[place], shown.gaps[place + 1]
            if self._prober.is_settled(left):
                self._before[token].add(((tokens[place - 1],) if place else (START,)) + left[0])
            else:
                self._before[token].add(())
            if self._prober.is_settled(right):
                following = (tokens[place + 1],) if place + 1 < len(tokens) else (END,)
                self._after[token].add(right[0] + following)
            else:
                self._after[token].add(self._beginning(common_prefix(right)))

    def _beginning(self, written: TokenIds) -> TokenIds:
        """The first tokens that the template writes before other content, up to the first word (maybe a role)."""
        signs = takewhile(lambda value: not re.search(r"\w", self._prober.decode((value,))), written)
        return written[: max(1, len(list(signs)))]

    def never_follows_content(self, token: int) -> bool:
        """Whether a token occurred, and never directly after content."""
        return token in self._before and () not in self._before[token]

    def after(self, tokens: Collection[int]) -> Bound:
        """What may follow some tokens, if content never follows them.

        Any white space that occurred after a token may be combined with anything that occurred after white space: no
        probe has every turn before every other turn.
        """
        return _sorted(
            {
                token: {
                    (*blank, *rest)
                    for blank, _ in map(self._split_white_space, kept)
                    for _, rest in map(self._split_white_space, kept)
                }
                for token, kept in self._after.items()
                if () not in kept and token in tokens
            }
        )

    def _split_white_space(self, sequence: TokenIds) -> tuple[TokenIds, TokenIds]:
        """Split a sequence into its leading white space and the rest."""
        blank = tuple(takewhile(lambda value: value >= 0 and self._prober.is_blank((value,)), sequence))
        return blank, sequence[len(blank) :]

    def before(self, tokens: Collection[int]) -> Bound:
        """What may precede some tokens, if they occurred often and never follow content."""
        often = (token for token in tokens if self._slots[token] >= _LEAST_OCCURRENCES)
        return _sorted({token: self._before[token] for token in often if () not in self._before[token]})


def _sorted(sequences: Mapping[int, set[TokenIds]]) -> Bound:
    """Sort by token. Sequences without START or END come first: they are the most frequent."""
    return tuple(
        (token, tuple(sorted(kept, key=lambda each: (min(each) < 0, each))))
        for token, kept in sorted(sequences.items())
    )
