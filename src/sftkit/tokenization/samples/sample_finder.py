"""Renders a conversation as the model sees it at each of its turns, and finds the samples of `render: per_turn`.

Models of reasoning have templates that write earlier turns in another form: without reasoning, or without the tool
calls before the last question. A conversation that is rendered once then trains its earlier answers in this form, or
after a prompt that the model never gets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np

from sftkit.core.row_log import RowError
from sftkit.core.rows import Ids
from sftkit.tokenization.conversations import Conversation, Message, is_assistant
from sftkit.tokenization.encoding import encodable
from sftkit.tokenization.encoding.spans import Span
from sftkit.tokenization.loading.special_tokens import closing_tokens, special_tokens
from sftkit.tokenization.masking.supervision import AssistantTurn, Supervision
from sftkit.tokenization.masking.turns.turn_finder import TurnFinder
from sftkit.tokenization.samples.prompt_renderer import PromptRenderer
from sftkit.tokenization.samples.sample_flags import FLAG, with_flag
from sftkit.tokenization.samples.turn_samples import RenderedTurns, TurnSamples, group_turns, spans_by_turn
from sftkit.tokenization.templates.recording import Recording
from sftkit.tokenization.templates.template_analysis import has_generation_blocks
from sftkit.tokenization.tokenizer_engines import TokenizerEngines


class FoundSamples(NamedTuple):
    """The samples of a conversation, and how its turns compare with their prompts."""

    samples: TurnSamples
    differing: int
    """Number of trained turns that do not follow the text of their prompt."""
    unknown: int
    """Number of trained turns whose prompt is not known."""


class SampleFinder:
    """Finds the samples of conversations."""

    def __init__(
        self,
        engines: TokenizerEngines,
        supervision: Supervision,
        stop_tokens: Sequence[str],
        prompts: PromptRenderer,
        *,
        encodes_apart: bool = True,
    ) -> None:
        """Prepare for a tokenizer.

        Args:
            engines: render and encode.
            supervision: decides which turns carry a loss.
            stop_tokens: the stop tokens that the model's files name, as text.
            prompts: renders prompts.
            encodes_apart: whether a turn has the tokens of inference where they would merge with those of its prompt.
        """
        self._encodes_apart = encodes_apart
        self._engines, self._supervision, self._stop_tokens = engines, supervision, stop_tokens
        self._prompts = prompts
        self._has_generation_blocks = lru_cache(maxsize=8)(has_generation_blocks)

    def find(self, conversation: Conversation, most: int | None, *, compares_all_tokens: bool = False) -> FoundSamples:
        """Find the samples of a conversation in the form that the template takes.

        Args:
            conversation: the conversation.
            most: the most samples that are allowed; None for any number.
            compares_all_tokens: whether tokens are compared even where turns end with special tokens. The tokens of
                earlier turns then differ only if they are encoded apart from their prompts.

        Raises:
            RowDroppedError: it has more samples.
            RowError: the template cannot render the conversation up to one of its turns, or the turn cannot be
                verified.
        """
        messages = conversation.message_list
        trained = self._supervision.trained_turns(messages) if any(map(is_assistant, messages)) else []
        verdicts: list[bool | None] = []

        def render(count: int, turn: int) -> RenderedTurns:
            try:
                rendered = self._render(conversation.first_messages(count), turn, compares_all_tokens)
            except RowError as error:
                if count == len(messages):
                    raise
                raise RowError(f"the conversation up to message {turn}: {error}") from None
            if count == turn + 1 and turn in rendered.spans:
                verdicts.append(self._differs(conversation, rendered))
            return rendered

        found = group_turns(trained, len(messages), render, most)
        return FoundSamples(found, verdicts.count(True), verdicts.count(None))

    def _render(self, conversation: Conversation, turn: int, compares_all_tokens: bool) -> RenderedTurns:
        """Render a conversation of which one turn is trained."""
        messages = conversation.message_list
        recording, turns = self._turns(conversation, turn)
        text, spans = recording.text, spans_by_turn(turns)
        own = spans.get(turn, [])
        encodable.check_text(self._engines.reference_encoder, text)
        encodable.check_spans(self._engines.reference_encoder, text, own)
        is_closed = not compares_all_tokens and bool(own) and text.endswith(self._closing, 0, own[-1][1])
        return RenderedTurns(len(messages), text, spans, turn, is_closed, self._encode)

    def _turns(self, conversation: Conversation, turn: int) -> tuple[Recording, list[AssistantTurn]]:
        """Return the text of a conversation and its turns.

        Flags of messages show whose each `{% generation %}` block is, and that other turns need not be verified.
        """
        source = self._engines.reference_renderer.source(with_tools=conversation.tools is not None)
        if not self._has_generation_blocks(source):
            try:
                return self._find_turns(conversation)
            except RowError:
                pass  # maybe for another turn
        return self._find_turns(conversation.with_message_list(_train_only(conversation.message_list, turn)))

    def _encode(self, text: str, own: Sequence[Span]) -> tuple[Ids, int]:
        ends = [start for start, _ in own[:1] if self._encodes_apart]
        ids, trained, _ = self._engines.fast_inference_encoder.encode_spans([text], [own], [ends])
        places = np.flatnonzero(trained)
        return ids.values, int(places[-1]) + 1 if len(places) else 0

    def _differs(self, conversation: Conversation, rendered: RenderedTurns) -> bool | None:
        """Return whether a turn does not follow the text of its prompt; None if its prompt is unknown.

        Raises:
            RowError: the reason is that the template writes the flags of messages.
        """
        start = rendered.spans[rendered.turn][0][0]
        found = self._prompts.follows(conversation.first_messages(rendered.turn), rendered.text, start)
        if found is not False:
            return None if found is None else False
        if self._prompts.render(conversation.first_messages(rendered.messages)) != rendered.text:
            raise RowError(f"the chat template writes the key {FLAG!r} of messages, which render=per_turn needs itself")
        return True

    @cached_property
    def _closing(self) -> tuple[str, ...]:
        return closing_tokens(self._engines.tokenizer)

    @cached_property
    def _find_turns(self) -> Callable[[Conversation], tuple[Recording, list[AssistantTurn]]]:
        stops, specials = self._stop_tokens, special_tokens(self._engines.tokenizer)
        supervision = self._supervision
        return self._engines.verified(lambda renderer: TurnFinder(renderer, supervision, stops, specials).find_turns)


def _train_only(messages: Sequence[Message], turn: int) -> list[Message]:
    """Return messages that all say whether they are the one that is trained, so that it is found whose each span is."""
    return [
        with_flag(message, trains=index == turn) if is_assistant(message) else message
        for index, message in enumerate(messages)
    ]
