"""Renders a conversation as the model sees it at each of its turns, and finds the samples of `render: per_turn`.

Models of reasoning have templates that write earlier turns in another form: without reasoning, or without the tool
calls before the last question. A conversation that is rendered once then trains its earlier answers in this form, or
after a prompt that the model never gets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, partial

import numpy as np

from sftkit.core.row_log import RowError
from sftkit.tokenization.conversations import Conversation, Message, is_assistant
from sftkit.tokenization.encoding import encodable
from sftkit.tokenization.loading.special_tokens import special_tokens
from sftkit.tokenization.masking.supervision import AssistantTurn, Supervision
from sftkit.tokenization.masking.turns.turn_finder import TurnFinder
from sftkit.tokenization.samples.sample_flags import FLAG, with_flag
from sftkit.tokenization.samples.turn_samples import RenderedTurns, TurnSamples, group_turns, spans_by_turn
from sftkit.tokenization.templates.recording import Recording
from sftkit.tokenization.tokenizer_engines import TokenizerEngines


class SampleFinder:
    """Finds the samples of conversations."""

    def __init__(
        self,
        engines: TokenizerEngines,
        supervision: Supervision,
        stop_tokens: Sequence[str],
        *,
        encodes_apart: bool = True,
    ) -> None:
        """Prepare for a tokenizer.

        Args:
            engines: render and encode.
            supervision: decides which turns carry a loss.
            stop_tokens: the stop tokens that the model's files name, as text.
            encodes_apart: whether a turn has the tokens of inference where they would merge with those of its prompt.
        """
        self._encodes_apart = encodes_apart
        self._engines, self._supervision, self._stop_tokens = engines, supervision, stop_tokens

    def find(self, conversation: Conversation, most: int | None) -> tuple[TurnSamples, bool]:
        """Find the samples of a conversation in the form that the template takes.

        Args:
            conversation: the conversation.
            most: the most samples that are allowed; None for any number.

        Returns:
            The samples, and whether a turn does not follow the tokens of its prompt at inference.

        Raises:
            RowDroppedError: it has more samples.
            RowError: the template cannot render the conversation up to one of its turns, or the turn cannot be
                verified.
        """
        messages = conversation.message_list
        trained = self._supervision.trained_turns(messages) if any(map(is_assistant, messages)) else []
        differing: list[int] = []

        def render(count: int, turn: int) -> RenderedTurns:
            try:
                rendered = self._render(conversation.first_messages(count), turn)
            except RowError as error:
                if count == len(messages):
                    raise
                raise RowError(f"the conversation up to message {turn}: {error}") from None
            if count == turn + 1 and turn in rendered.spans and self._differs(conversation, rendered):
                differing.append(turn)
            return rendered

        return group_turns(trained, len(messages), render, most), bool(differing)

    def _render(self, conversation: Conversation, turn: int) -> RenderedTurns:
        """Render a conversation of which one turn is trained."""
        messages = conversation.message_list
        recording, turns = self._find_turns(conversation.with_message_list(_train_only(messages, turn)))
        text, spans = recording.text, spans_by_turn(turns)
        own = spans.get(turn, [])
        encodable.check_text(self._engines.reference_encoder, text)
        encodable.check_spans(self._engines.reference_encoder, text, own)
        ends = [start for start, _ in own[:1] if self._encodes_apart]
        ids, trained, _ = self._engines.fast_inference_encoder.encode_spans([text], [own], [ends])
        places = np.flatnonzero(trained)
        first, stop = (int(places[0]), int(places[-1]) + 1) if len(places) else (0, 0)
        return RenderedTurns(len(messages), text, spans, ids.values, turn, first, stop)

    def _differs(self, conversation: Conversation, rendered: RenderedTurns) -> bool:
        """Return whether the trained tokens of a turn do not follow those of its prompt.

        Raises:
            RowError: the reason is that the template writes the flags of messages.
        """
        prompt = self._prompt(conversation.first_messages(rendered.turn), rendered.text) if rendered.turn else None
        if prompt is None:
            return False
        ids = self._engines.fast_encoder.encode([prompt], add_special_tokens=False).values
        if len(ids) <= rendered.first and np.array_equal(rendered.ids[: len(ids)], ids):
            return False
        if self._render_text(conversation.first_messages(rendered.messages)) != rendered.text:
            raise RowError(f"the chat template writes the key {FLAG!r} of messages, which render=per_turn needs itself")
        return True

    @cached_property
    def _find_turns(self) -> Callable[[Conversation], tuple[Recording, list[AssistantTurn]]]:
        stops, specials = self._stop_tokens, special_tokens(self._engines.tokenizer)
        supervision = self._supervision
        return self._engines.verified(lambda renderer: TurnFinder(renderer, supervision, stops, specials).find_turns)

    def _prompt(self, earlier: Conversation, text: str) -> str | None:
        """Render the prompt after some messages; None where `inference_prompts` has none."""
        try:
            prompt = self._render_prompt(earlier)
            is_no_prompt = text.startswith(prompt) and prompt == self._render_text(earlier)
        except RowError:
            return None
        return None if is_no_prompt else prompt

    @cached_property
    def _render_prompt(self) -> Callable[[Conversation], str]:
        return self._engines.fast(lambda renderer: partial(renderer.render, add_generation_prompt=True))

    @cached_property
    def _render_text(self) -> Callable[[Conversation], str]:
        return self._engines.fast(lambda renderer: renderer.render)


def _train_only(messages: Sequence[Message], turn: int) -> list[Message]:
    """Return messages that all say whether they are the one that is trained, so that it is found whose each span is."""
    return [
        with_flag(message, trains=index == turn) if is_assistant(message) else message
        for index, message in enumerate(messages)
    ]
