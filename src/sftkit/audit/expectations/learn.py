"""Learn what correct rows look like from a tokenizer, its chat template and what is known about the run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from sftkit.audit.expectations.expected import Expectations, RowOrigin, TokenIds
from sftkit.audit.expectations.id_sequences import begins_with, common_suffix
from sftkit.audit.expectations.message_endings import call_stops, ends_with_stop, own_stops
from sftkit.audit.expectations.message_headers import REASONING, MessageHeaders, trimmed_header
from sftkit.audit.expectations.neighbours import Neighbours
from sftkit.audit.expectations.prober import Prober
from sftkit.audit.expectations.probes import ASSISTANT, Probe, RenderedProbe, contents
from sftkit.audit.expectations.produced_tokens import produced_tokens
from sftkit.core.message_fields import THINKING_SWITCHES
from sftkit.core.row_kinds import RowKind

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def learn_expectations(
    tokenizer: PreTrainedTokenizerBase, origin: RowOrigin, stop_tokens: Sequence[str]
) -> Expectations:
    """Learn what correct rows look like by rendering made-up conversations. What cannot be learned stays unknown.

    Args:
        tokenizer: with the chat template in use.
        origin: what is known about how the rows were made.
        stop_tokens: texts of the stop tokens that the model's files name.
    """
    added = tokenizer.added_tokens_decoder
    size = max(len(tokenizer), max(added, default=0) + 1)
    specials = frozenset([*(value for value, token in added.items() if token.special), *tokenizer.all_special_ids])
    bos = _single_id(tokenizer.bos_token_id)
    named = [tokenizer.convert_tokens_to_ids(token) for token in stop_tokens]
    known = Expectations(
        origin=origin,
        vocabulary_size=size,
        holes=tuple(value for value in range(tokenizer.vocab_size, size) if value not in added),
        bos=bos,
        pad=_single_id(tokenizer.pad_token_id),
        bos_in_text=bos is not None and _adds_first(tokenizer, bos),
        stops=tuple(sorted({value for value in named if isinstance(value, int)})),
        special=tuple(sorted(specials - ({tokenizer.unk_token_id} - {bos, tokenizer.eos_token_id}))),
    )
    prober = Prober(tokenizer, specials, origin.variables or {}, origin.template_date)
    if origin.kind == RowKind.TEXT:
        return replace(known, prompts=_response_prompts(prober, origin.response_template), chats_end=origin.ends)
    return _learn_from_template(prober, known) if prober.source else known


def _learn_from_template(prober: Prober, known: Expectations) -> Expectations:
    """Add what the renderings of the template show."""
    origin, bos = known.origin, known.bos
    # For pairs, the prompts are enough: some pairs are written in the format of the template.
    shown = list(prober.conversations()) if origin.kind != RowKind.PAIRS else []
    neighbours = Neighbours(prober)
    for each in shown:
        neighbours.note(each)
    ends = frozenset(known.stops).union(*(own_stops(prober, each) for each in shown))
    stops = ends.union(*(call_stops(prober, each) for each in shown))
    questions = list(prober.questions(_variables(prober, origin)))
    headers_finder = MessageHeaders(prober, neighbours, stops, bos)
    prompts = headers_finder.prompts(questions)
    # What follows a prompt in a turn belongs to the answer, even if it is the same in all of them.
    headers = {
        header: role
        for header, role in sorted(headers_finder.headers(shown).items())
        if not any(begins_with(header, prompt) for prompt in prompts)
    }
    opening = {value for sequence in (*headers, *prompts) for value in sequence} & prober.specials
    openers = opening - stops - {bos} - produced_tokens(prober, shown, prompts, stops)
    written = {value for each in (*shown, *questions) for value in each.specials}
    last = [each for each in shown if each.probe.shape[-1] == ASSISTANT]
    closed = all(ends_with_stop(prober, each, stops) for each in last)
    settled = [each for each in shown if each.specials and prober.is_settled(each.gaps[-1])]
    return replace(
        known,
        bos_in_chats=bool(shown) and bos is not None and all(map(partial(_begins_with, bos), shown)),
        stops=tuple(sorted(stops)),
        prompts=prompts,
        headers=tuple(headers),
        roles=tuple(headers.values()),
        openers=tuple(sorted(openers)),
        foreign=tuple(sorted(_foreign(prober, written))) if shown else (),
        after=neighbours.after(ends),
        before=neighbours.before(openers | ({bos} if bos is not None else set())),
        tails=tuple(sorted({each.gaps[-1][0] for each in settled})),
        chats_end=closed if last else origin.kind == RowKind.PAIRS and origin.ends,
    )


def _adds_first(tokenizer: PreTrainedTokenizerBase, token: int) -> bool:
    """Whether the tokenizer itself adds a token before a text."""
    whole, bare = tokenizer("a")["input_ids"], tokenizer("a", add_special_tokens=False)["input_ids"]
    return bool(whole[0] == token != bare[0])


def _response_prompts(prober: Prober, template: str | None) -> tuple[TokenIds, ...]:
    """The tokens of the response template, if they do not depend on the text before it."""
    shown = prober.aligned(Probe((), tools=False), [text + template for text in contents()]) if template else None
    if shown is None:
        return ()
    opening = trimmed_header(prober, common_suffix(shown.gaps[-1]))
    return (opening,) if opening and not shown.specials else ()


def _begins_with(bos: int | None, shown: RenderedProbe) -> bool:
    """Whether a probe begins with the BOS."""
    return all(not ids for ids in shown.gaps[0]) and shown.specials[:1] == (bos,)


def _variables(prober: Prober, origin: RowOrigin) -> list[Mapping[str, Any]]:
    """Values of the template's options under which inference may ask for answers."""
    if origin.variables is not None:
        return [{}]
    named = [name for name in THINKING_SWITCHES if name in prober.source]
    return [{}, *({name: value} for name in named for value in (True, False))]


def _foreign(prober: Prober, written: set[int]) -> set[int]:
    """Special tokens that the template never writes: in no probe, not in its source, and not composed there."""
    source = prober.source
    tokenizer = prober.tokenizer
    used = {
        getattr(tokenizer, f"{name}_id")
        for name in ("bos_token", "eos_token", "pad_token", "unk_token")
        if name in source
    }
    candidates = prober.specials - written - used - {tokenizer.unk_token_id}
    surfaces = {value: str(tokenizer.convert_ids_to_tokens([value])[0]) for value in candidates}
    return {
        value
        for value, surface in surfaces.items()
        if surface not in source and not REASONING.search(surface) and not _may_be_composed(surface, source)
    }


def _may_be_composed(surface: str, source: str) -> bool:
    """Whether a template may compose a token from pieces: `'<|' + role + '|>'`."""
    begin = re.match(r"\W+", surface)
    return begin is not None and re.search(rf"{re.escape(begin[0])}\s*(?:['\"]|\{{\{{|\{{%)", source) is not None


def _single_id(value: Any) -> int | None:
    return value if isinstance(value, int) else None
