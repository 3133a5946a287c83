"""Conversations without reasoning, for templates that have a prompt for answers without it (`empty_reasoning`)."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from typing import Any

from sftkit.core.message_fields import NO_THINKING_VALUES
from sftkit.core.row_log import RowDroppedError, RowError
from sftkit.errors import TokenizerError
from sftkit.sandbox.template_variables import variables_of
from sftkit.tokenization.conversations import (
    Conversation,
    Message,
    is_assistant,
    reasoning_texts,
    text_after_reasoning,
    text_of,
)
from sftkit.tokenization.masking.supervision import Supervision
from sftkit.tokenization.rendering.reference_renderer import Renderer
from sftkit.tokenization.tokenizer_engines import TokenizerEngines

KEEP, ADD, DROP = "keep", "add", "drop"
DROP_REASON = "no reasoning"

_QUESTIONS = ("a", [{"type": "text", "text": "a"}])


class EmptyReasoning:
    """Drops conversations without reasoning, or gives them the prompt with the empty block of reasoning."""

    def __init__(self, policy: str, engines: TokenizerEngines, supervision: Supervision) -> None:
        """Prepare for a template.

        Args:
            policy: KEEP, ADD or DROP.
            engines: render.
            supervision: decides which turns carry a loss.
        """
        self._policy, self._engines, self._supervision = policy, engines, supervision

    def check(self) -> None:
        """Check that the template has what the policy needs.

        Raises:
            TokenizerError: it has no prompt without reasoning.
        """
        if self._policy == ADD:
            _ = self._switch

    def apply(self, conversation: Conversation) -> tuple[Conversation, bool]:
        """Apply the policy to a conversation for a template.

        Returns:
            The conversation, and whether it was given the prompt without reasoning.

        Raises:
            RowDroppedError: none of its trained turns has reasoning, and such conversations are dropped.
            RowError: a loss flag is invalid, or `train_on` refused.
            TokenizerError: as `check`.
        """
        if (
            self._policy == KEEP
            or not conversation.has_messages
            or not any(map(is_assistant, conversation.message_list))
        ):
            return conversation, False
        messages = conversation.message_list
        turns = [messages[index] for index in self._supervision.trained_turns(messages)]
        if not turns or any(map(_has_reasoning, turns)):
            return conversation, False
        if self._policy == DROP:
            raise RowDroppedError(DROP_REASON)
        name, value = self._switch
        if name in conversation.variables:  # the row decides
            return conversation, False
        return replace(conversation, variables={**conversation.variables, name: value}), True

    @cached_property
    def _switch(self) -> tuple[str, Any]:
        renderer = self._engines.reference_renderer
        found = no_thinking_switch(renderer, renderer.source(with_tools=False))
        if found is None:
            raise TokenizerError(
                "empty_reasoning=add: the chat template has no prompt with an empty block of reasoning (as Qwen3's has "
                "with enable_thinking=false); leave empty_reasoning out, or set it to drop"
            )
        return found


def no_thinking_switch(renderer: Renderer, source: str) -> tuple[str, Any] | None:
    """Return the variable of a template, and its value, with which the generation prompt skips reasoning; or None.

    The prompts after a question are compared: with this value, the prompt ends with a closing tag of reasoning, and
    with another value, or none, it does not.

    Args:
        renderer: renders the prompts.
        source: the template.
    """
    used = variables_of(source)
    for name, value, other in NO_THINKING_VALUES:
        if name not in used:
            continue
        for content in _QUESTIONS:
            with suppress(RowError):
                without, *others = (
                    renderer.render(
                        Conversation([{"role": "user", "content": content}], variables=variables),
                        template=source,
                        add_generation_prompt=True,
                    )
                    for variables in ({name: value}, {name: other}, {})
                )
                # Nothing follows the closing tag of reasoning: the answer begins there.
                if not text_after_reasoning(without) and any(map(text_after_reasoning, others)):
                    return name, value
    return None


def _has_reasoning(message: Message) -> bool:
    text = text_of(message)
    return bool(reasoning_texts(message)) or text_after_reasoning(text) != text.strip()
