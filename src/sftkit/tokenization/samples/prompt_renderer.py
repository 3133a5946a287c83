"""Renders the prompts that a model gets at inference for the turns of conversations."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial

from sftkit.core.row_log import RowError
from sftkit.tokenization.conversations import Conversation
from sftkit.tokenization.tokenizer_engines import TokenizerEngines


class PromptRenderer:
    """Renders prompts with the fast renderer, or the reference where that cannot."""

    def __init__(self, engines: TokenizerEngines) -> None:
        """Prepare for the chat template of some engines."""
        self._engines = engines

    def follows(self, earlier: Conversation, text: str, start: int) -> bool | None:
        """Return whether a turn follows the text of its prompt at inference.

        Args:
            earlier: the messages before the turn.
            text: a rendered conversation.
            start: where what the model produces of the turn starts in it.

        Returns:
            None if it is not known: the turn is the first message, or the template refuses to write its prompt.
        """
        if not earlier.message_list:
            return None
        try:
            prompt = self._render_prompt(earlier)
            return text.startswith(prompt) and (len(prompt) <= start or prompt == self.render(earlier))
        except RowError:
            return None

    @cached_property
    def _render_prompt(self) -> Callable[[Conversation], str]:
        return self._engines.fast(lambda renderer: partial(renderer.render, add_generation_prompt=True))

    @cached_property
    def render(self) -> Callable[[Conversation], str]:
        """Renders a conversation without a prompt."""
        return self._engines.fast(lambda renderer: renderer.render)
