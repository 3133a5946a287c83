"""What stands right before and behind the special tokens of a template's conversations, whatever their contents are."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from itertools import takewhile

from sftkit.audit.expectations.expected import END, START, TokenIds
from sftkit.audit.expectations.id_sequences import common_prefix
from sftkit.audit.expectations.prober import Prober
from sftkit.audit.expectations.probes import RenderedProbe

_SEEN_OFTEN = 3  # slots that a token must have been seen in before its surroundings bind

Bound = tuple[tuple[int, tuple[TokenIds, ...]], ...]
"""By token, the sequences of which one must stand beside it."""


class Neighbours:
    """Gathered slot by slot; a slot is a special token at one place of one probe.

    Args:
        prober: knows what is white space.
    """

    def __init__(self, prober: Prober) -> None:
        self._prober = prober
        self._after: dict[int, set[TokenIds]] = defaultdict(set)
        self._before: dict[int, set[TokenIds]] = defaultdict(set)
        self._slots: dict[int, int] = defaultdict(int)

    def note(self, shown: RenderedProbe) -> None:
        """Note what stands before and behind each special token, whatever the contents."""
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
        """The first tokens of what the template writes before another content: up to its first word, which may be the
        name of a role.
        """
        signs = takewhile(lambda value: not re.search(r"\w", self._prober.decode((value,))), written)
        return written[: max(1, len(list(signs)))]

    def never_follows_content(self, token: int) -> bool:
        """Whether a token was seen, and never right behind a content."""
        return token in self._before and () not in self._before[token]

    def after(self, tokens: Collection[int]) -> Bound:
        """What may follow some tokens, for those that no content follows: any white space seen behind them, and
        whatever was seen after that. No probe has every turn before every other.
        """
        return _sorted(
            {
                token: {(*blank, *rest) for blank, _ in map(self._parted, kept) for _, rest in map(self._parted, kept)}
                for token, kept in self._after.items()
                if () not in kept and token in tokens
            }
        )

    def _parted(self, sequence: TokenIds) -> tuple[TokenIds, TokenIds]:
        """The white space that a sequence begins with, and the rest."""
        blank = tuple(takewhile(lambda value: value >= 0 and self._prober.is_blank((value,)), sequence))
        return blank, sequence[len(blank) :]

    def before(self, tokens: Collection[int]) -> Bound:
        """What may precede some tokens, for those that were seen often and follow no content."""
        often = (token for token in tokens if self._slots[token] >= _SEEN_OFTEN)
        return _sorted({token: self._before[token] for token in often if () not in self._before[token]})


def _sorted(sequences: Mapping[int, set[TokenIds]]) -> Bound:
    """By token; of the sequences those first that hold tokens only, for they are the most frequent."""
    return tuple(
        (token, tuple(sorted(kept, key=lambda each: (min(each) < 0, each))))
        for token, kept in sorted(sequences.items())
    )
