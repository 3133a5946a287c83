"""Made-up conversations that show what a chat template writes around contents, whatever the contents are."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

USER, SYSTEM, ASSISTANT, TOOL = "user", "system", "assistant", "tool"
CALL, SAID_CALL, REASONED = "call", "said and call", "reasoned"
ANSWERS = frozenset(
    {ASSISTANT, CALL, SAID_CALL, REASONED, "assistant_tool_call", "function_call", "model", "gpt", "ai"}
)
"""What may stand in a shape for a message that the model writes."""

# What contents begin and end with: all that may merge with the text around them.
_EDGES = (
    ("", ""),
    ("\n", "."),
    (" ", " "),
    ("(", ")"),
    ("你好", "。"),
    ("\n\n", "\n"),
    ("## ", ":"),
    ("7", "```\n\n"),
    ('"', "9"),
)
_WORDS = ("alpha", "get_x", "Zoo", "b1", "run", "my_tool", "Q", "list", "ask")

_SHAPES: tuple[tuple[str, ...], ...] = (
    (USER, ASSISTANT),
    (SYSTEM, USER, ASSISTANT),
    (USER, ASSISTANT, USER, ASSISTANT),
    (SYSTEM, USER, ASSISTANT, USER, ASSISTANT, USER, ASSISTANT),
    (USER, REASONED),
    (USER, REASONED, USER, REASONED),
    (USER, ASSISTANT, ASSISTANT),
    (USER, USER, ASSISTANT),
)
_TOOL_SHAPES: tuple[tuple[str, ...], ...] = (
    (USER, CALL, TOOL, ASSISTANT),
    (SYSTEM, USER, SAID_CALL, TOOL, TOOL, ASSISTANT, USER, ASSISTANT),
    (USER, CALL, TOOL, CALL, TOOL, SAID_CALL),
    (USER, CALL),
)
# Names that template sources compare with and that are no roles.
_NO_ROLES = frozenset(
    {"role", "content", "messages", "message", "tool_calls", "function", "name", "arguments", "tools", "type", "text"}
    | {"parameters", "properties", "description", "required", "string", "object", "items", "enum", "default"}
    | {"image", "video", "audio", "reasoning_content", "thinking"}
)
_ROLE_LITERAL = re.compile(r"""(?:==|!=|\bin\b)\s*[\[(]?((?:\s*,?\s*['"][A-Za-z_]{2,30}['"])+)""")
_MOST_ROLES = 12


def marker(place: int) -> str:
    """A word in the content of the message at a place that is nowhere else."""
    return f"sftkit{place}q"


def content_of(place: int, variant: int) -> str:
    """The content of the message at a place in one variant of a probe."""
    begin, end = _EDGES[(variant + place) % len(_EDGES)]
    return f"{begin}{marker(place)}{end}"


def contents() -> list[str]:
    """The contents of the first message in all variants."""
    return [content_of(0, variant) for variant in range(len(_EDGES))]


@dataclass(frozen=True)
class Probe:
    """One shape of a conversation.

    shape: roles, or kinds of assistant messages. tools: whether there are any. asks: ends with a generation prompt.
    """

    shape: tuple[str, ...]
    tools: bool
    asks: bool = False


@dataclass(frozen=True)
class Shown:
    """What the template and the tokenizer make of one probe, over many contents.

    specials: the special tokens in order, the same for all contents. gaps: for each stretch before, between and behind
    them its ids, one tuple for each of the contents. texts: the renderings.
    """

    probe: Probe
    specials: tuple[int, ...]
    gaps: tuple[tuple[tuple[int, ...], ...], ...]
    texts: tuple[str, ...]

    @property
    def ids(self) -> tuple[int, ...]:
        """All tokens, with the first of the contents."""
        pieces = [(*gap[0], token) for gap, token in zip(self.gaps, self.specials, strict=False)]
        return (*chain.from_iterable(pieces), *self.gaps[-1][0])


class Prober:
    """Renders probes with a tokenizer's chat template.

    Args:
        tokenizer: its template is used as `apply_chat_template` uses it.
        specials: ids of its special tokens.
        variables: what the template is given besides.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, specials: frozenset[int], variables: Mapping[str, Any]
    ) -> None:
        self.tokenizer = tokenizer
        self.specials = specials
        self._variables = dict(variables)
        self._form = self._working_form()

    @property
    def source(self) -> str:
        """The text of all templates of the tokenizer, "" where there are none."""
        templates: Any = self.tokenizer.chat_template or ""
        return "\n".join(templates.values()) if isinstance(templates, dict) else str(templates)

    def conversations(self) -> Iterator[Shown]:
        """Conversations of all shapes that the template can render."""
        shapes = [Probe(shape, tools=False) for shape in _SHAPES]
        shapes += [Probe(shape, tools=True) for shape in _TOOL_SHAPES]
        yield from self._shown(shapes)
        for role in self._roles():
            after_all = Probe((USER, role, ASSISTANT, role, ASSISTANT), tools=False)
            # Where roles must alternate, it may still come after an answer.
            yield from list(self._shown([after_all])) or self._shown([Probe((USER, ASSISTANT, role, ASSISTANT), False)])

    def questions(self, variables: Sequence[Mapping[str, Any]] = ({},)) -> Iterator[Shown]:
        """Conversations that ask for an answer, with a generation prompt, under each of some variables besides."""
        shapes = [
            Probe((USER,), tools=False, asks=True),
            Probe((SYSTEM, USER), tools=False, asks=True),
            Probe((USER, ASSISTANT, USER), tools=False, asks=True),
            Probe((USER,), tools=True, asks=True),
            Probe((USER, CALL, TOOL), tools=True, asks=True),
        ]
        for more in variables:
            yield from self._shown(shapes, more)

    def text(self, probe: Probe, variant: int, more: Mapping[str, Any] | None = None) -> str | None:
        """The rendering of a probe with the contents of one variant, None where the template refuses it."""
        messages: Any = [self._message(role, place, variant) for place, role in enumerate(probe.shape)]
        return self._rendered(self._form, messages, probe, variant, more or {})

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of texts that bring their special tokens."""
        if not texts:
            return []
        ids: list[list[int]] = self.tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    def aligned(self, probe: Probe, texts: Sequence[str]) -> Shown | None:
        """Texts of one probe over contents, cut at their special tokens; None where they have too little in common."""
        cut = [self._cut(ids) for ids in self.encode(texts)]
        if not cut:
            return None
        specials, count = Counter(each[0] for each in cut).most_common(1)[0]
        if count < len(_EDGES) // 2:
            return None
        gaps = tuple(zip(*(each[1] for each in cut if each[0] == specials), strict=True))
        return Shown(probe, specials, gaps, tuple(texts))

    def is_blank(self, ids: Sequence[int]) -> bool:
        """Whether tokens are white space, or none at all."""
        return not ids or not str(self.tokenizer.decode(list(ids))).strip()

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some tokens."""
        return str(self.tokenizer.decode(list(ids)))

    def _shown(self, probes: Sequence[Probe], more: Mapping[str, Any] | None = None) -> Iterator[Shown]:
        for probe in probes:
            texts = self._texts(probe, more or {})
            shown = self.aligned(probe, texts)
            if shown is not None:
                yield shown

    def _texts(self, probe: Probe, more: Mapping[str, Any]) -> list[str]:
        if self._form is None:
            return []
        texts = []
        for variant in range(len(_EDGES)):
            text = self.text(probe, variant, more)
            if text is None:
                break  # a shape that is refused once is refused always
            texts.append(text)
        return texts

    def _cut(self, ids: list[int]) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]:
        places = [place for place, value in enumerate(ids) if value in self.specials]
        edges = zip([-1, *places], [*places, len(ids)], strict=True)
        return tuple(ids[place] for place in places), tuple(tuple(ids[left + 1 : right]) for left, right in edges)

    def _message(self, role: str, place: int, variant: int) -> dict[str, Any]:
        text = content_of(place, variant)
        word = _WORDS[(variant + place) % len(_WORDS)]
        call_id = f"{word}000000000"[:9].replace("_", "0")
        if role == TOOL:
            return {"role": TOOL, "name": word, "tool_call_id": call_id, "content": text}
        if role == REASONED:
            return {"role": ASSISTANT, "reasoning_content": f"{word} so", "thinking": f"{word} so", "content": text}
        if role in (CALL, SAID_CALL):
            function = {"name": word, "arguments": {word: text}}
            calls = [{"id": call_id, "type": "function", "function": function}]
            return {"role": ASSISTANT, "content": text if role == SAID_CALL else "", "tool_calls": calls}
        return {"role": role, "content": text}

    def _tools(self, variant: int) -> list[Any]:
        word = _WORDS[variant % len(_WORDS)]
        parameters = {"type": "object", "properties": {word: {"type": "string", "description": f"{word} it"}}}
        function = {"name": word, "description": f"{word} now", "parameters": parameters}
        return [{"type": "function", "function": function}]

    def _rendered(
        self, form: str | None, messages: list[dict[str, Any]], probe: Probe, variant: int, more: Mapping[str, Any]
    ) -> str | None:
        template = None
        if form == "names":
            names = {USER: "human", ASSISTANT: "gpt"}
            messages = [{"from": names.get(m["role"], m["role"]), "value": m["content"]} for m in messages]
        elif form == "parts":
            messages = [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in messages]
        tools = self._tools(variant) if probe.tools else None
        try:
            if form == "row":
                own = self.tokenizer.get_chat_template(None, tools=tools)
                template = f'{{% set messages = {{"messages": messages}} %}}\n{own}'
            return str(
                self.tokenizer.apply_chat_template(
                    messages,
                    tools=tools,
                    chat_template=template,
                    add_generation_prompt=probe.asks,
                    tokenize=False,
                    **{**self._variables, **more},
                )
            )
        except Exception:  # a template may raise anything on conversations that it was not written for
            return None

    def _working_form(self) -> str | None:
        """How messages must be given: as they are, with other names, in parts, in a row; None where nothing works."""
        if not self.source:
            return None
        probe = Probe((USER, ASSISTANT), tools=False)
        messages = [self._message(role, place, 0) for place, role in enumerate(probe.shape)]
        for form in ("plain", "names", "parts", "row"):
            text = self._rendered(form, messages, probe, 0, {})
            if text is not None and all(marker(place) in text for place in range(2)):
                return form
        return None

    def _roles(self) -> list[str]:
        """Roles that the template names, and those of the field."""
        named = [name for found in _ROLE_LITERAL.findall(self.source) for name in re.findall(r"\w+", found)]
        others = [name for name in dict.fromkeys(named) if name not in _NO_ROLES and name not in (USER, ASSISTANT)]
        return list(dict.fromkeys([SYSTEM, TOOL, *others]))[:_MOST_ROLES]
