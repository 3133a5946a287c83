"""Renders plain conversations, of which there are many with the same roles, by programs."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from sftkit.core.message_fields import USUAL_ROLES
from sftkit.core.row_log import require_valid_text
from sftkit.sandbox.render_limits import MAX_OUTPUT_CHARACTERS, TemplateLimitError, render_within_limits
from sftkit.tokenization.conversations import Conversation
from sftkit.tokenization.rendering.reference_renderer import ReferenceRenderer
from sftkit.tokenization.templates.recording import Program, Recording
from sftkit.tokenization.tracing.program_cache import ProgramCache
from sftkit.tokenization.tracing.trace import UntraceableError

if TYPE_CHECKING:
    from sftkit.tokenization.tracing.prompt_plans import PromptPlan
    from sftkit.tokenization.tracing.tracer import Tracer

_log = logging.getLogger(__name__)

_MOST_BEGINNINGS, _MOST_SHAPES = 4, 1024
"""Programs of the beginnings of conversations with the same roles, and sequences of roles that have some."""
_MOST_MESSAGES = 200
_MOST_CHARACTERS = 1_000_000
"""Longer conversations are rendered within limits."""


class ProgramRenderer:
    """Renders conversations whose messages have a role and a content, which are texts, and nothing else.

    A shape of conversations, which is the sequence of their roles with the variables of the template, is traced when it
    has been seen several times. The first text of a new program must be that of the reference.
    """

    def __init__(self, reference: ReferenceRenderer, special_tokens: Mapping[str, Any]) -> None:
        """Prepare for the chat template of a tokenizer."""
        self._reference = reference
        self._special_tokens = special_tokens
        self._cache = ProgramCache()
        self._beginnings: dict[object, list[Program]] = {}
        self._plans: WeakKeyDictionary[Program, PromptPlan | None] = WeakKeyDictionary()
        self._is_off = False
        self.rendered = 0
        """How often a program has rendered so far."""

    def record(self, conversation: Conversation) -> Recording | None:
        """Render a conversation and record which message is written where; None if no program can.

        Raises:
            RowError: the text has lone surrogates.
        """
        if conversation.tools is not None or conversation.documents is not None or conversation.plain is None:
            return None
        roles, contents = conversation.plain
        characters = sum(map(len, contents))
        if len(contents) > _MOST_MESSAGES or characters > _MOST_CHARACTERS or self._is_off:
            return None
        found = self._cache.run(_shape(conversation, roles), contents, lambda: self._make(conversation, contents))
        if found is None:
            return None
        program, pieces = found
        if characters * len(pieces) > MAX_OUTPUT_CHARACTERS:
            return None  # the text may be too long; there are limits for that elsewhere
        self.rendered += 1
        return Recording(require_valid_text("".join(pieces)), pieces, program.marks, program)

    def prompt_ends(self, conversation: Conversation, recording: Recording) -> list[int] | None:
        """Return where the prompts of the assistant turns end in a text that a program rendered.

        Each turn is then written as at the end of the conversation up to it, except for an empty block of reasoning.

        Returns:
            In characters of the text; None if the text does not begin with the prompts, or that is not known.
        """
        program, plain = recording.program, conversation.plain
        if program is None or plain is None:
            return None
        if program not in self._plans:
            self._plans[program] = self._plan(program, conversation)
        plan = self._plans[program]
        return None if plan is None else plan.find(recording.pieces, plain.contents)

    def _plan(self, program: Program, conversation: Conversation) -> PromptPlan | None:
        from sftkit.tokenization.tracing.prompt_plans import TurnPrograms, plan_prompts

        turns = [index for index, role in enumerate(conversation.shape.roles) if role == "assistant"]
        if not turns or not turns[0]:
            return None
        planned: list[TurnPrograms] = []
        last = len(conversation.message_list) - 1
        for turn in turns:
            prompt = self._beginning(conversation.first_messages(turn), add_generation_prompt=True)
            alone = None if turn == last else self._beginning(conversation.first_messages(turn + 1))
            if prompt is None or (alone is None and turn < last):
                return None
            planned.append(TurnPrograms(turn, prompt, alone))
        return plan_prompts(program, planned, last + 1, {"tojson": self._tracer.tojson})

    def _beginning(self, earlier: Conversation, *, add_generation_prompt: bool = False) -> Program | None:
        """Return a program of the beginning of a conversation, for contents that meet the same conditions."""
        assert earlier.plain is not None
        roles, contents = earlier.plain
        shape = _shape(earlier, roles)
        known = self._beginnings.setdefault((add_generation_prompt, *shape), [])
        found = next((program for program in known if program.run(contents) is not None), None)
        if found is None and not add_generation_prompt:
            found = self._cache.find(shape, contents)
        if found is None and len(known) < _MOST_BEGINNINGS and len(self._beginnings) < _MOST_SHAPES:
            found = self._make(earlier, contents, add_generation_prompt=add_generation_prompt)
            known += [found] if found is not None else []
        return found

    def _make(
        self, conversation: Conversation, contents: list[str], *, add_generation_prompt: bool = False
    ) -> Program | None:
        """Trace the template; None if that is not possible."""
        programs: list[Program] = []
        if not all(role in USUAL_ROLES for role in conversation.shape.roles):
            return None  # a role may be long, and stands in the program

        def trace() -> str:
            unset = {"tools": None, "documents": None, "add_generation_prompt": add_generation_prompt}
            values = {**self._special_tokens, **conversation.variables, **unset}
            programs.append(self._tracer.trace(conversation.message_list, values))
            return "".join(programs[-1].run(contents) or ())

        try:
            text = render_within_limits(trace, conversation.messages)
            if text == self._reference.render(conversation, add_generation_prompt=add_generation_prompt):
                return programs[-1]
            _log.warning("a program for the chat template gives another text than the reference; it is not used")
        except TemplateLimitError as reason:
            _log.info("chat templates are not traced in this run: %s", reason)
            self._is_off = True
        except (Exception, UntraceableError) as reason:  # a template may raise anything
            _log.info("a chat template cannot be traced: %s", reason)
        return None

    @cached_property
    def _tracer(self) -> Tracer:
        from sftkit.tokenization.tracing.tracer import Tracer

        return Tracer(self._reference.source(with_tools=False), self._reference.template_date)


def _shape(conversation: Conversation, roles: Sequence[str]) -> tuple[str, ...]:
    """Return what the programs of a conversation depend on, apart from its contents."""
    # `repr` tells 1, True and 1.0 apart, which are equal.
    return (repr(conversation.variables) if conversation.variables else "", *roles)
