"""What answers, tool calls and whole conversations end with, learned from probes."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from sftkit.audit.expectations.prober import Prober
from sftkit.audit.expectations.probes import ASSISTANT, CALL, REASONED, SAID_CALL, USER, Probe, RenderedProbe, marker


def own_stops(prober: Prober, probe: RenderedProbe) -> Iterator[int]:
    """Special tokens that end answers: at the end of a probe, or with only white space up to the next special token."""
    shape = probe.probe.shape
    answers = [marker(place) for place, role in enumerate(shape) if role in (ASSISTANT, REASONED)]
    for place, token in enumerate(probe.specials):
        content = prober.decode(probe.gaps[place][0])
        if any(word in content for word in answers) and prober.is_settled(probe.gaps[place + 1]):
            yield token


def call_stops(prober: Prober, probe: RenderedProbe) -> Iterator[int]:
    """Special tokens that end a tool call at the end of a probe. They may differ from those of answers."""
    shape = probe.probe.shape
    if shape[-1] not in (CALL, SAID_CALL) or not probe.specials or not prober.is_settled(probe.gaps[-1]):
        return
    held = [place for place, gap in enumerate(probe.gaps) if marker(len(shape) - 1) in prober.decode(gap[0])]
    if held:
        # If the template always writes a prompt, the end of the probe is not the end of the call.
        yield probe.specials[held[-1] if ends_with_prompt(prober, probe) else -1]


def ends_with_stop(prober: Prober, probe: RenderedProbe, stops: Collection[int]) -> bool:
    """Whether a probe ends with a stop token, apart from white space."""
    return bool(probe.specials) and probe.specials[-1] in stops and prober.is_settled(probe.gaps[-1])


def ends_with_prompt(prober: Prober, probe: RenderedProbe) -> bool:
    """Whether a conversation ends with an unrequested prompt: text that is not written if a question follows."""
    followed = prober.text(Probe((*probe.probe.shape, USER), probe.probe.tools), 0)
    return followed is not None and not followed.startswith(probe.texts[0])
