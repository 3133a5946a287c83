"""The prompts that a model would get at inference for the turns of a conversation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress

from sftkit.core.row_log import RowError
from sftkit.tokenization.conversations import Conversation
from sftkit.tokenization.rendering.reference_renderer import Renderer

_MAX_RENDERED_CHARACTERS = 16_000_000
_CHARACTERS_PER_MESSAGE = 200
"""Cost of a message for a template, in characters of text that cost as much."""


def inference_prompts(renderer: Renderer, conversation: Conversation, indices: Sequence[int]) -> tuple[str, list[str]]:
    """Render a conversation, and the prompts of the assistant turns at some indices.

    Of a long conversation, only some of the prompts are rendered: those of the last turn and of turns at equal
    distances before it. Left out are the first message, prompts that the template refuses to render, and, for
    templates without a generation prompt, a text that the conversation starts with: it may end inside of a token.

    Raises:
        RowError: the template cannot render the whole conversation.
    """
    text = renderer.render(conversation)
    prompts = []
    after_others = [index for index in indices if index]
    cost = len(text) + _CHARACTERS_PER_MESSAGE * len(conversation.message_list)
    step = math.ceil(len(after_others) * cost / _MAX_RENDERED_CHARACTERS)
    for index in after_others[:: -max(step, 1)]:
        earlier = conversation.first_messages(index)
        with suppress(RowError):
            prompt = renderer.render(earlier, add_generation_prompt=True)
            if not text.startswith(prompt) or prompt != renderer.render(earlier):
                prompts.append(prompt)
    return text, prompts
