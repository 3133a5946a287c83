"""A tokenizer, its chat template and what is known of the run -> the norms of right rows."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from sftkit.audit.norms import END, PAIRS, START, TEXT, Ids, Making, Norms
from sftkit.audit.probes import (
    ANSWERS,
    ASSISTANT,
    CALL,
    REASONED,
    SAID_CALL,
    Probe,
    Prober,
    Shown,
    content_of,
    contents,
    marker,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SEEN_OFTEN = 3  # slots that a token must have been seen in before its surroundings bind
_LEAST_PLAIN = 3  # tokens of a prompt or header without a special token: fewer stand anywhere
_LONGEST = 24  # tokens of a prompt or header that are looked at
_OPTIONS = ("enable_thinking", "thinking")  # of templates, where those of the run are not known
_MARKER = re.compile(r"sftkit(\d+)q")
_REASONING = re.compile("think|thought|reason", re.IGNORECASE)


def learn_norms(tokenizer: PreTrainedTokenizerBase, making: Making, stop_tokens: Sequence[str]) -> Norms:
    """Learn what right rows look like by rendering made-up conversations. What cannot be learnt is left open.

    Args:
        tokenizer: with the chat template in force.
        making: what is known about how the rows were made.
        stop_tokens: texts of the tokens by which the model stops, as far as its files name them.
    """
    added = tokenizer.added_tokens_decoder
    size = max(len(tokenizer), max(added, default=0) + 1)
    specials = frozenset([*(value for value, token in added.items() if token.special), *tokenizer.all_special_ids])
    bos = _one(tokenizer.bos_token_id)
    named = [tokenizer.convert_tokens_to_ids(token) for token in stop_tokens]
    known = Norms(
        making=making,
        vocabulary_size=size,
        holes=tuple(value for value in range(tokenizer.vocab_size, size) if value not in added),
        bos=bos,
        pad=_one(tokenizer.pad_token_id),
        bos_in_text=bos is not None and _adds_first(tokenizer, bos),
        stops=tuple(sorted({value for value in named if isinstance(value, int)})),
        special=tuple(sorted(specials - ({tokenizer.unk_token_id} - {bos, tokenizer.eos_token_id}))),
    )
    prober = Prober(tokenizer, specials, making.variables or {})
    if making.kind == TEXT:
        return replace(known, prompts=_response_prompts(prober, making.response_template), chats_end=making.ends)
    return _Lessons(prober, known, specials).norms() if prober.source else known


def _adds_first(tokenizer: PreTrainedTokenizerBase, token: int) -> bool:
    """Whether the tokenizer itself puts a token before a text."""
    whole, bare = tokenizer("a")["input_ids"], tokenizer("a", add_special_tokens=False)["input_ids"]
    return bool(whole[0] == token != bare[0])


def _response_prompts(prober: Prober, template: str | None) -> tuple[Ids, ...]:
    """What stands before a response, as tokens, whatever the text before it."""
    shown = prober.aligned(Probe((), tools=False), [text + template for text in contents()]) if template else None
    if shown is None:
        return ()
    opening = tight(prober, common_suffix(shown.gaps[-1]))
    return (opening,) if opening and not shown.specials else ()


def tight(prober: Prober, sequence: Ids) -> Ids:
    """An opening without white space before it; nothing, where what is left could stand anywhere."""
    blank = takewhile(lambda value: value not in prober.specials and prober.is_blank((value,)), sequence)
    sequence = sequence[len(list(blank)) :]
    enough = any(value in prober.specials for value in sequence) or len(sequence) >= _LEAST_PLAIN
    return sequence[-_LONGEST:] if enough else ()


@dataclass
class _Lessons:
    """What the probes tell, gathered slot by slot. A slot is a special token at one place of one probe."""

    prober: Prober
    known: Norms
    specials: frozenset[int]
    after: dict[int, set[Ids]] = field(default_factory=lambda: defaultdict(set))
    before: dict[int, set[Ids]] = field(default_factory=lambda: defaultdict(set))
    slots: dict[int, int] = field(default_factory=lambda: defaultdict(int))

    def norms(self) -> Norms:
        """The norms of rows made with the template."""
        making = self.known.making
        # Of pairs it is enough to know those that are written in the form of the template.
        shown = list(self.prober.conversations()) if making.kind != PAIRS else []
        for each in shown:
            self._surroundings(each)
        ends = frozenset(self.known.stops).union(*map(self._own_stops, shown))
        stops = ends.union(*map(self._call_stops, shown))
        questions = list(self.prober.questions(self._variables()))
        prompts = self._prompts(questions, stops)
        headers = {header for each in shown for header in self._headers(each, stops)}
        # What follows a prompt in a turn is the answer's, be it the same for all of them.
        headers = {each for each in headers if not any(each[: len(prompt)] == prompt for prompt in prompts)}
        opening = {value for sequence in (*headers, *prompts) for value in sequence} & self.specials
        openers = opening - stops - {self.known.bos} - self._produced(shown, prompts, stops)
        written = {value for each in (*shown, *questions) for value in each.specials}
        last = [each for each in shown if each.probe.shape[-1] == ASSISTANT]
        return replace(
            self.known,
            bos_in_chats=bool(shown) and self.known.bos is not None and all(map(self._begins, shown)),
            stops=tuple(sorted(stops)),
            prompts=prompts,
            headers=tuple(sorted(headers)),
            openers=tuple(sorted(openers)),
            foreign=tuple(sorted(self._foreign(written))) if shown else (),
            after=_sorted({token: kept for token, kept in self.after.items() if () not in kept and token in ends}),
            before=_sorted({token: kept for token, kept in self.before.items() if self._binds(token, kept, openers)}),
            tails=tuple(sorted({each.gaps[-1][0] for each in shown if each.specials and self._blank(each.gaps[-1])})),
            chats_end=all(self._ends(each, stops) for each in last) if last else making.kind == PAIRS and making.ends,
        )

    # --- slots

    def _surroundings(self, shown: Shown) -> None:
        """Note what stands before and behind each special token, whatever the contents."""
        tokens = shown.specials
        for place, token in enumerate(tokens):
            self.slots[token] += 1
            left, right = shown.gaps[place], shown.gaps[place + 1]
            if self._blank(left):
                self.before[token].add(((tokens[place - 1],) if place else (START,)) + left[0])
            else:
                self.before[token].add(())
            if self._blank(right):
                following = (tokens[place + 1],) if place + 1 < len(tokens) else (END,)
                self.after[token].add(right[0] + following)
            else:
                self.after[token].add(self._beginning(common_prefix(right)))

    def _beginning(self, written: Ids) -> Ids:
        """The first tokens of what the template writes before another content: up to its first word, which may be the
        name of a role.
        """
        signs = takewhile(lambda value: not re.search(r"\w", self.prober.decode((value,))), written)
        return written[: max(1, len(list(signs)))]

    def _binds(self, token: int, sequences: set[Ids], openers: set[int]) -> bool:
        known = token in openers or token == self.known.bos
        return known and () not in sequences and self.slots[token] >= _SEEN_OFTEN

    def _blank(self, gap: Sequence[Ids]) -> bool:
        return len(set(gap)) == 1 and self.prober.is_blank(gap[0])

    def _begins(self, shown: Shown) -> bool:
        return all(not ids for ids in shown.gaps[0]) and shown.specials[:1] == (self.known.bos,)

    # --- stops

    def _own_stops(self, shown: Shown) -> Iterator[int]:
        """Special tokens that end the answers of a probe: at its end, or with nothing but white space up to the next
        special token.
        """
        shape = shown.probe.shape
        answers = [marker(place) for place, role in enumerate(shape) if role in (ASSISTANT, REASONED)]
        for place, token in enumerate(shown.specials):
            content = self.prober.decode(shown.gaps[place][0])
            if any(word in content for word in answers) and self._blank(shown.gaps[place + 1]):
                yield token

    def _call_stops(self, shown: Shown) -> Iterator[int]:
        """Special tokens that end the call of a tool at the end of a probe: others than those of answers, maybe."""
        shape = shown.probe.shape
        if shape[-1] not in (CALL, SAID_CALL) or not shown.specials or not self._blank(shown.gaps[-1]):
            return
        if any(marker(len(shape) - 1) in self.prober.decode(gap[0]) for gap in shown.gaps):
            yield shown.specials[-1]

    def _ends(self, shown: Shown, stops: frozenset[int]) -> bool:
        return bool(shown.specials) and shown.specials[-1] in stops and self._blank(shown.gaps[-1])

    # --- prompts and headers

    def _opening(self, shown: Shown, gap: int, tokens: Ids, stops: frozenset[int]) -> Ids:
        """What opens the message whose content (or end) follows `tokens`, which stand in a gap: back to the stop token,
        the white space or the content before it.
        """
        sequence = tokens
        for place in range(gap - 1, -1, -1):
            token = shown.specials[place]
            if token in stops or token == self.known.bos:
                break
            left = shown.gaps[place]
            sequence = (token, *sequence)
            if len(set(left)) > 1 or self.prober.is_blank(left[0]):
                break
            sequence = (*left[0], *sequence)
        return tight(self.prober, sequence)

    def _headers(self, shown: Shown, stops: frozenset[int]) -> Iterator[Ids]:
        for place, gap in enumerate(shown.gaps):
            if len(set(gap)) > 1 and self._is_asked(shown, place):
                header = self._opening(shown, place, common_prefix(gap), stops)
                if header:
                    yield header

    def _is_asked(self, shown: Shown, place: int) -> bool:
        """Whether the first content in a gap is of a message that no model writes."""
        first = _MARKER.search(self.prober.decode(shown.gaps[place][0]))
        return first is not None and shown.probe.shape[int(first[1])] not in ANSWERS

    def _produced(self, shown: Sequence[Shown], prompts: Sequence[Ids], stops: frozenset[int]) -> set[int]:
        """Special tokens that stand in answers: behind a prompt up to the next stop token; and up to the last content
        of the answer, where a template writes it in several pieces.
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
                if any(
                    _ends_with(tuple(ids[:end]), prompt) for end in range(begin, len(ids) + 1) for prompt in prompts
                ):
                    asked = open_ = True
                for found in _MARKER.finditer(self.prober.decode(gap[0])):
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

    def _prompts(self, questions: Iterable[Shown], stops: frozenset[int]) -> tuple[Ids, ...]:
        """What stands before an answer, by the way it is asked for; () where it cannot be told for one of them."""
        prompts: set[Ids] = set()
        for question in questions:
            asked = self._as_asked(question)
            if asked is None:
                continue
            gap = asked.gaps[-1]
            if len(set(gap)) > 1:
                prompt = tight(self.prober, common_suffix(gap))
            else:
                prompt = self._opening(asked, len(asked.gaps) - 1, gap[0], stops)
            if not prompt:
                return ()
            prompts.add(prompt)
        shortest = [each for each in prompts if not any(each != other and _ends_with(each, other) for other in prompts)]
        return tuple(sorted(shortest))

    def _as_asked(self, question: Shown) -> Shown | None:
        """A question as the model is asked it. Where the template writes no generation prompt, what it writes before
        the content of an answer is added, unless that is white space.
        """
        probe = question.probe
        plain = Probe(probe.shape, probe.tools)
        answered = Probe((*probe.shape, ASSISTANT), probe.tools)
        if self.prober.text(plain, 0) != question.texts[0]:
            return question
        texts = []
        for variant, text in enumerate(question.texts):
            whole = self.prober.text(answered, variant)
            if whole is None or not whole.startswith(text):
                return question
            content = content_of(len(probe.shape), variant)
            place = whole.find(content, len(text))
            if place < 0:
                place = whole.find(content.strip(), len(text))
            header = whole[len(text) : max(place, len(text))]
            texts.append(text + header if header.strip() else text)
        return self.prober.aligned(probe, texts)

    def _variables(self) -> list[Mapping[str, Any]]:
        """Values of a template's options under which answers may be asked for."""
        if self.known.making.variables is not None:
            return [{}]
        named = [name for name in _OPTIONS if name in self.prober.source]
        return [{}, *({name: value} for name in named for value in (True, False))]

    # --- foreign tokens

    def _foreign(self, written: set[int]) -> set[int]:
        """Special tokens that the template never writes: in no probe, not in its source, and not put together there."""
        source = self.prober.source
        tokenizer = self.prober.tokenizer
        used = {
            getattr(tokenizer, f"{name}_id")
            for name in ("bos_token", "eos_token", "pad_token", "unk_token")
            if name in source
        }
        candidates = self.specials - written - used - {tokenizer.unk_token_id}
        surfaces = {value: str(tokenizer.convert_ids_to_tokens([value])[0]) for value in candidates}
        return {
            value
            for value, surface in surfaces.items()
            if surface not in source and not _REASONING.search(surface) and not _put_together(surface, source)
        }


def common_prefix(rows: Sequence[Ids]) -> Ids:
    """The ids that all sequences begin with."""
    shortest = min(rows, key=len)
    for place, value in enumerate(shortest):
        if any(row[place] != value for row in rows):
            return shortest[:place]
    return shortest


def common_suffix(rows: Sequence[Ids]) -> Ids:
    """The ids that all sequences end with."""
    return common_prefix([row[::-1] for row in rows])[::-1]


def _ends_with(sequence: Ids, end: Ids) -> bool:
    return sequence[len(sequence) - len(end) :] == end


def _put_together(surface: str, source: str) -> bool:
    """Whether a template may make a token of pieces: `'<|' + role + '|>'`."""
    begin = re.match(r"\W+", surface)
    return begin is not None and re.search(rf"{re.escape(begin[0])}\s*(?:['\"]|\{{\{{|\{{%)", source) is not None


def _sorted(sequences: Mapping[int, set[Ids]]) -> tuple[tuple[int, tuple[Ids, ...]], ...]:
    """By token; of the sequences those first that hold tokens only, for they are the most frequent."""
    return tuple(
        (token, tuple(sorted(kept, key=lambda each: (min(each) < 0, each))))
        for token, kept in sorted(sequences.items())
    )


def _one(value: Any) -> int | None:
    return value if isinstance(value, int) else None
