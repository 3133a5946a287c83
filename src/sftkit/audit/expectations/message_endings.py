"""What answers, calls and whole conversations end with, as the probes show it."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from sftkit.audit.expectations.prober import Prober
from sftkit.audit.expectations.probes import ASSISTANT, CALL, REASONED, SAID_CALL, USER, Probe, RenderedProbe, marker


def own_stops(prober: Prober, shown: RenderedProbe) -> Iterator[int]:
    """Special tokens that end the answers of a probe: at its end, or with nothing but white space up to the next
    special token.
    """
    shape = shown.probe.shape
    answers = [marker(place) for place, role in enumerate(shape) if role in (ASSISTANT, REASONED)]
    for place, token in enumerate(shown.specials):
        content = prober.decode(shown.gaps[place][0])
        if any(word in content for word in answers) and prober.is_settled(shown.gaps[place + 1]):
            yield token


def call_stops(prober: Prober, shown: RenderedProbe) -> Iterator[int]:
    """Special tokens that end the call of a tool at the end of a probe: others than those of answers, maybe."""
    shape = shown.probe.shape
    if shape[-1] not in (CALL, SAID_CALL) or not shown.specials or not prober.is_settled(shown.gaps[-1]):
        return
    held = [place for place, gap in enumerate(shown.gaps) if marker(len(shape) - 1) in prober.decode(gap[0])]
    if held:
        # Where a prompt is always written, the end of the probe is not the end of the call.
        yield shown.specials[held[-1] if ends_with_prompt(prober, shown) else -1]


def ends_with_stop(prober: Prober, shown: RenderedProbe, stops: Collection[int]) -> bool:
    """Whether a probe ends with a stop token, but for white space."""
    return bool(shown.specials) and shown.specials[-1] in stops and prober.is_settled(shown.gaps[-1])


def ends_with_prompt(prober: Prober, shown: RenderedProbe) -> bool:
    """Whether a conversation ends with what stands before answers, though none is asked for: with something that is
    not written when a question follows.
    """
    followed = prober.text(Probe((*shown.probe.shape, USER), shown.probe.tools), 0)
    return followed is not None and not followed.startswith(shown.texts[0])
