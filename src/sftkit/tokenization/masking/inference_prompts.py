"""The prompts that a model would get at inference for the turns of a conversation, and whether training has others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress

import numpy as np

from sftkit.core.row_log import RowError
from sftkit.tokenization.conversations import Conversation, is_assistant, text_of
from sftkit.tokenization.encoding.boundary.inference_encoder import InferenceEncoder
from sftkit.tokenization.encoding.chunked_encoder import MIN_CHUNK_CHARACTERS
from sftkit.tokenization.masking.supervision import Supervision
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


def differs_from_prompts(
    renderer: Renderer,
    encoder: InferenceEncoder,
    conversation: Conversation,
    supervision: Supervision,
    ends: Sequence[int],
) -> bool:
    """Return whether the text before a trained turn differs from the prompt that the model gets at inference.

    Both the text and its tokens are compared. Long conversations are skipped, since each of their prompts is long.

    Args:
        renderer: renders the prompts.
        encoder: encodes the text and the prompts.
        conversation: the conversation.
        supervision: decides which turns are trained.
        ends: where prompts end in the text that are encoded apart.

    Raises:
        RowError: the template cannot render the conversation, or `train_on` refused.
    """
    if sum(len(text_of(message)) for message in conversation.message_list) > MIN_CHUNK_CHARACTERS:
        return False
    if not any(map(is_assistant, conversation.message_list)):
        return False  # the `{% generation %}` blocks of the template are about other roles
    trained = supervision.trained_turns(conversation.message_list)
    text, prompts = inference_prompts(renderer, conversation, trained)
    ids = encoder.encode_spans([text, *prompts], [[]] * (1 + len(prompts)), [ends, *([()] * len(prompts))]).ids
    whole = ids[0]
    return any(not np.array_equal(whole[: len(ids[index])], ids[index]) for index in range(1, len(ids)))
