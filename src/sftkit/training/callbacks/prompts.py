"""Sample prompts as the model is shown them, and the tokens that end its answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sftkit.errors import TokenizerError, TrainingError
from sftkit.sandbox.render_limits import render_within_limits
from sftkit.sandbox.template_check import check_template_operations
from sftkit.tokenization.special_tokens import special_tokens, stop_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_ANSWER = "sftkitanswer"


@dataclass(frozen=True)
class Prompt:
    """A prompt as it was given, and its token ids as the model is shown it."""

    text: str
    ids: tuple[int, ...]


def encode_prompt(text: str, tokenizer: PreTrainedTokenizerBase, template_kwargs: Mapping[str, Any]) -> Prompt:
    """A prompt as a conversation of one user message, or as it stands where the tokenizer has no chat template.

    Args:
        text: the prompt.
        tokenizer: with the chat template the data was made with.
        template_kwargs: what the chat template is given besides (`chat_template_kwargs`).

    Raises:
        TrainingError: the chat template refuses it, or nothing is left of it.
    """
    if tokenizer.chat_template:
        messages = [{"role": "user", "content": text}]
        rendered = _rendered(tokenizer, messages, {**template_kwargs, "add_generation_prompt": True})
        ids: Any = tokenizer(rendered, add_special_tokens=False)["input_ids"]
    else:
        ids = tokenizer(text)["input_ids"]
    if not ids:
        raise TrainingError(f"sample_prompts: {text!r} has no tokens")
    return Prompt(text, tuple(ids))


def stop_ids(tokenizer: PreTrainedTokenizerBase, name: str, template_kwargs: Mapping[str, Any]) -> tuple[int, ...]:
    """Ids of the tokens that end an answer: those the model's files name, and the one its chat template writes.

    Base models often lack the latter in their files, and learn it from the data all the same.

    Args:
        tokenizer: with the chat template the data was made with.
        name: directory or Hub id whose `generation_config.json` is read.
        template_kwargs: what the chat template is given besides.
    """
    found: list[Any] = [tokenizer.convert_tokens_to_ids(token) for token in stop_tokens(tokenizer, name)]
    if tokenizer.chat_template:
        found.append(_end_of_turn(tokenizer, template_kwargs))
    return tuple(dict.fromkeys(stop for stop in found if isinstance(stop, int)))


def _end_of_turn(tokenizer: PreTrainedTokenizerBase, template_kwargs: Mapping[str, Any]) -> int | None:
    """The special token that the chat template writes behind an answer, with nothing but white space before it."""
    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _ANSWER}]
    try:
        behind = _rendered(tokenizer, messages, template_kwargs).rpartition(_ANSWER)[2].lstrip()
    except TrainingError:  # there are templates that take no answer of this form
        return None
    token = next((token for token in special_tokens(tokenizer) if token and behind.startswith(token)), None)
    found: Any = None if token is None else tokenizer.convert_tokens_to_ids(token)
    return found if isinstance(found, int) else None


def _rendered(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, str]], template_kwargs: Mapping[str, Any]
) -> str:
    render: Any = tokenizer.apply_chat_template
    try:
        check_template_operations(tokenizer.get_chat_template())
        copies = [dict(message) for message in messages]
        return str(render_within_limits(lambda: render(copies, tokenize=False, **template_kwargs), copies))
    except TokenizerError:
        raise
    except Exception as error:  # templates raise what they like
        reason = " ".join(str(error).split())
        raise TrainingError(
            f"sample_prompts: the chat template takes no conversation of one user message: {reason}"
        ) from error
