"""Special tokens that the model itself generates."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from sftkit.audit.expectations.expected import TokenIds
from sftkit.audit.expectations.id_sequences import ends_with
from sftkit.audit.expectations.prober import Prober
from sftkit.audit.expectations.probes import ANSWERS, MARKER, RenderedProbe


def produced_tokens(
    prober: Prober, shown: Iterable[RenderedProbe], prompts: Sequence[TokenIds], stops: Collection[int]
) -> set[int]:
    """Special tokens inside answers.

    These are the ones after a prompt, up to the next stop token, and up to the last content of the answer if the
    template writes it in several pieces.
    """
    produced: set[int] = set()
    for each in shown:
        ids: list[int] = []
        current, asked, open_ = -1, False, False
        passed: set[int] = set()  # since the last content
        answered: set[int] = set()  # of these, since a prompt
        for gap, token in zip(each.gaps, each.specials, strict=False):
            begin = len(ids)
            ids += gap[0]
            # A prompt may end with the special token before the gap.
            if any(ends_with(tuple(ids[:end]), prompt) for end in range(begin, len(ids) + 1) for prompt in prompts):
                asked = open_ = True
            for found in MARKER.finditer(prober.decode(gap[0])):
                message = int(found[1])
                if each.probe.shape[message] in ANSWERS:
                    produced |= passed if message == current else answered
                current, asked, passed, answered = message, False, set(), set()
            if open_:
                produced.add(token)
                open_ = token not in stops
            passed.add(token)
            answered |= {token} if asked else set()
            ids.append(token)
    return produced
