"""Render made-up conversations with a tokenizer's chat template, and separate the template's text from the contents."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from sftkit.audit.expectations.probes import (
    ASSISTANT,
    CALL,
    EDGES,
    REASONED,
    SAID_CALL,
    SHAPES,
    SYSTEM,
    TOOL,
    TOOL_SHAPES,
    USER,
    WORDS,
    Probe,
    RenderedProbe,
    content_of,
    marker,
)
from sftkit.core.message_fields import TEMPLATE_REASONING_FIELDS
from sftkit.errors import TokenizerError
from sftkit.sandbox.chat_templates import apply_chat_template
from sftkit.sandbox.render_limits import render_within_limits
from sftkit.sandbox.template_check import check_template_operations

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Names that template sources compare with but that are not roles.
_NOT_ROLES = frozenset(
    {"role", "content", "messages", "message", "tool_calls", "function", "name", "arguments", "tools", "type", "text"}
    | {"parameters", "properties", "description", "required", "string", "object", "items", "enum", "default"}
    | {"image", "video", "audio", *TEMPLATE_REASONING_FIELDS}
)
_ROLE_LITERAL = re.compile(r"""(?:==|!=|\bin\b)\s*[\[(]?((?:\s*,?\s*['"][A-Za-z_]{2,30}['"])+)""")
_MOST_ROLES = 12
# Some templates change their prompt if the first message contains one of these.
_SWITCHING_WORDS = ("/no_think",)


class Prober:
    """Renders probes with a tokenizer's chat template.

    Args:
        tokenizer: its template is used as `apply_chat_template` uses it.
        specials: ids of its special tokens.
        variables: extra variables of the template.
        template_date: the day that the template is given, as YYYY-MM-DD; None for today.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        specials: frozenset[int],
        variables: Mapping[str, Any],
        template_date: str | None,
    ) -> None:
        self.tokenizer = tokenizer
        self.specials = specials
        self._variables = dict(variables)
        self._template_date = template_date
        self._form = self._working_form()

    @property
    def source(self) -> str:
        """The source of all templates of the tokenizer; "" if there are none."""
        templates: Any = self.tokenizer.chat_template or ""
        return "\n".join(templates.values()) if isinstance(templates, dict) else str(templates)

    def conversations(self) -> Iterator[RenderedProbe]:
        """Conversations of all shapes that the template can render."""
        shapes = [Probe(shape, tools=False) for shape in SHAPES]
        shapes += [Probe(shape, tools=True) for shape in TOOL_SHAPES]
        yield from self._render_probes(shapes)
        for role in self._roles():
            after_all = Probe((USER, role, ASSISTANT, role, ASSISTANT), tools=False)
            # If roles must alternate, the role may still follow an answer.
            yield from list(self._render_probes([after_all])) or self._render_probes(
                [Probe((USER, ASSISTANT, role, ASSISTANT), False)]
            )

    def questions(self, variables: Sequence[Mapping[str, Any]] = ({},)) -> Iterator[RenderedProbe]:
        """Conversations that end with a generation prompt, once for each set of extra variables."""
        shapes = [
            Probe((USER,), tools=False, asks=True),
            Probe((SYSTEM, USER), tools=False, asks=True),
            Probe((USER, ASSISTANT, USER), tools=False, asks=True),
            Probe((USER,), tools=True, asks=True),
            Probe((USER, CALL, TOOL), tools=True, asks=True),
        ]
        for word in (word for word in _SWITCHING_WORDS if word in self.source):
            shapes += [Probe(shape, tools=False, asks=True, word=word) for shape in ((USER,), (SYSTEM, USER))]
        for more in variables:
            yield from self._render_probes(shapes, more)

    def text(self, probe: Probe, variant: int, more: Mapping[str, Any] | None = None) -> str | None:
        """Render a probe with the contents of one variant; None if the template rejects it."""
        messages: Any = [self._message(role, place, variant) for place, role in enumerate(probe.shape)]
        if probe.word:
            messages[0]["content"] += f" {probe.word}"
        return self._rendered(self._form, messages, probe, variant, more or {})

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of texts that contain their special tokens already."""
        if not texts:
            return []
        ids: list[list[int]] = self.tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    def aligned(self, probe: Probe, texts: Sequence[str]) -> RenderedProbe | None:
        """Cut the texts of one probe at their special tokens; None if the texts have too little in common."""
        cut = [self._cut(ids) for ids in self.encode(texts)]
        if not cut:
            return None
        specials, count = Counter(each[0] for each in cut).most_common(1)[0]
        if count < len(EDGES) // 2:
            return None
        gaps = tuple(zip(*(each[1] for each in cut if each[0] == specials), strict=True))
        return RenderedProbe(probe, specials, gaps, tuple(texts))

    def is_blank(self, ids: Sequence[int]) -> bool:
        """Whether there are only white space tokens, or none."""
        return not ids or not str(self.tokenizer.decode(list(ids))).strip()

    def is_settled(self, gap: Sequence[tuple[int, ...]]) -> bool:
        """Whether a gap is empty or white space, and identical for all contents."""
        return len(set(gap)) == 1 and self.is_blank(gap[0])

    def decode(self, ids: Sequence[int]) -> str:
        """Decode tokens."""
        return str(self.tokenizer.decode(list(ids)))

    def _render_probes(self, probes: Sequence[Probe], more: Mapping[str, Any] | None = None) -> Iterator[RenderedProbe]:
        for probe in probes:
            texts = self._texts(probe, more or {})
            shown = self.aligned(probe, texts)
            if shown is not None:
                yield shown

    def _texts(self, probe: Probe, more: Mapping[str, Any]) -> list[str]:
        if self._form is None:
            return []
        texts = []
        for variant in range(len(EDGES)):
            text = self.text(probe, variant, more)
            if text is None:
                break  # a shape that is rejected once is always rejected
            texts.append(text)
        return texts

    def _cut(self, ids: list[int]) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]:
        places = [place for place, value in enumerate(ids) if value in self.specials]
        edges = zip([-1, *places], [*places, len(ids)], strict=True)
        return tuple(ids[place] for place in places), tuple(tuple(ids[left + 1 : right]) for left, right in edges)

    def _message(self, role: str, place: int, variant: int) -> dict[str, Any]:
        text = content_of(place, variant)
        word = WORDS[(variant + place) % len(WORDS)]
        # Nine letters and digits, as some templates require.
        call_id = f"{word}00000000"[:8].replace("_", "0") + word[-1]
        if role == TOOL:
            return {"role": TOOL, "name": word, "tool_call_id": call_id, "content": text}
        if role == REASONED:
            return {"role": ASSISTANT, **dict.fromkeys(TEMPLATE_REASONING_FIELDS, f"{word} so"), "content": text}
        if role in (CALL, SAID_CALL):
            function = {"name": word, "arguments": {word: text}}
            calls = [{"id": call_id, "type": "function", "function": function}]
            return {"role": ASSISTANT, "content": text if role == SAID_CALL else "", "tool_calls": calls}
        return {"role": role, "content": text}

    def _tools(self, variant: int) -> list[Any]:
        word = WORDS[variant % len(WORDS)]
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
            own = self.tokenizer.get_chat_template(None, tools=tools)
            check_template_operations(own)
            if form == "row":
                template = f'{{% set messages = {{"messages": messages}} %}}\n{own}'
            render = partial(
                apply_chat_template,
                self.tokenizer,
                messages,
                self._template_date,
                tools=tools,
                chat_template=template,
                add_generation_prompt=probe.asks,
                **{**self._variables, **more},
            )
            return render_within_limits(render, messages)
        except TokenizerError:
            raise
        except Exception:  # a template may raise anything for conversations it does not expect
            return None

    def _working_form(self) -> str | None:
        """The form of messages that works: plain, with other names, in parts, or as a row; None if none works."""
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
        """Roles that the template names, and the usual ones."""
        named = [name for found in _ROLE_LITERAL.findall(self.source) for name in re.findall(r"\w+", found)]
        others = [name for name in dict.fromkeys(named) if name not in _NOT_ROLES and name not in (USER, ASSISTANT)]
        return list(dict.fromkeys([SYSTEM, TOOL, *others]))[:_MOST_ROLES]
