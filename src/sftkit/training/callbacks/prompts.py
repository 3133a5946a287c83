"""Encode sample prompts for the model, and find the tokens that end its answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sftkit.core.error_text import single_line
from sftkit.errors import TokenizerError, TrainingError
from sftkit.sandbox.chat_templates import apply_chat_template
from sftkit.sandbox.render_limits import render_within_limits
from sftkit.sandbox.template_check import check_template_operations
from sftkit.tokenization.loading.special_tokens import special_tokens, stop_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_ANSWER = "sftkitanswer"


@dataclass(frozen=True)
class Prompt:
    """A prompt, and the token ids that the model is given for it."""

    text: str
    ids: tuple[int, ...]


def encode_prompt(
    text: str, tokenizer: PreTrainedTokenizerBase, template_kwargs: Mapping[str, Any], day: str | None = None
) -> Prompt:
    """Encode a prompt as a conversation of one user message, or as plain text without a chat template.

    Args:
        text: the prompt.
        tokenizer: with the chat template that made the data.
        template_kwargs: extra variables for the chat template (`chat_template_kwargs`).
        day: the date that the template is given, as YYYY-MM-DD; None for today.

    Raises:
        TrainingError: the chat template rejects the prompt, or it has no tokens.
    """
    if tokenizer.chat_template:
        messages = [{"role": "user", "content": text}]
        rendered = _render(tokenizer, messages, {**template_kwargs, "add_generation_prompt": True}, day)
        ids: Any = tokenizer(rendered, add_special_tokens=False)["input_ids"]
    else:
        ids = tokenizer(text)["input_ids"]
    if not ids:
        raise TrainingError(f"sample_prompts: {text!r} has no tokens; remove it from sample_prompts")
    return Prompt(text, tuple(ids))


def stop_ids(tokenizer: PreTrainedTokenizerBase, name: str, template_kwargs: Mapping[str, Any]) -> tuple[int, ...]:
    """Ids of the tokens that end an answer: those named in the model's files, and the turn end of its chat template.

    Files of base models often do not name the latter, but the model learns it from the data.

    Args:
        tokenizer: with the chat template that made the data.
        name: directory or Hub id whose `generation_config.json` is read.
        template_kwargs: extra variables for the chat template.
    """
    found: list[Any] = [tokenizer.convert_tokens_to_ids(token) for token in stop_tokens(tokenizer, name)]
    if tokenizer.chat_template:
        found.append(_turn_end(tokenizer, template_kwargs))
    return tuple(dict.fromkeys(stop for stop in found if isinstance(stop, int)))


def _turn_end(tokenizer: PreTrainedTokenizerBase, template_kwargs: Mapping[str, Any]) -> int | None:
    """The special token that the chat template writes after an answer, with at most white space in between."""
    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _ANSWER}]
    try:
        after = _render(tokenizer, messages, template_kwargs).rpartition(_ANSWER)[2].lstrip()
    except TrainingError:  # some templates reject such a conversation
        return None
    token = next((token for token in special_tokens(tokenizer) if token and after.startswith(token)), None)
    found: Any = None if token is None else tokenizer.convert_tokens_to_ids(token)
    return found if isinstance(found, int) else None


def _render(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Mapping[str, str]],
    template_kwargs: Mapping[str, Any],
    day: str | None = None,
) -> str:
    try:
        check_template_operations(tokenizer.get_chat_template())
        copies = [dict(message) for message in messages]
        return render_within_limits(lambda: apply_chat_template(tokenizer, copies, day, **template_kwargs), copies)
    except TokenizerError:
        raise
    except Exception as error:  # templates can raise anything
        reason = single_line(error)
        raise TrainingError(
            f"sample_prompts: the chat template cannot render a conversation of one user message: {reason}"
        ) from error
