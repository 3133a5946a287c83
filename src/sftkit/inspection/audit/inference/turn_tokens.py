"""The tokens of assistant turns at inference: those of the prompt that transformers renders, then those of the turn."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sftkit.core.message_fields import RESERVED_VARIABLES
from sftkit.core.row_log import RowDroppedError, RowError
from sftkit.core.rows import Ids, Row
from sftkit.inspection.audit.inference.piece_encoder import PieceEncoder
from sftkit.sandbox.template_variables import variables_of
from sftkit.tokenization.content_screening import ESCAPE, ContentScreen
from sftkit.tokenization.conversations import Conversation, read_conversation
from sftkit.tokenization.empty_reasoning import no_thinking_switch
from sftkit.tokenization.loading.special_tokens import special_tokens
from sftkit.tokenization.masking.ranges.train_ranges import with_ranges_of_parts
from sftkit.tokenization.probing.content_format import ContentFormatAdapter
from sftkit.tokenization.probing.message_forms import MessageFormAdapter
from sftkit.tokenization.rendering.reference_renderer import ReferenceRenderer
from sftkit.tokenization.special_token_matcher import SpecialTokenMatcher
from sftkit.tokenization.templates.template_analysis import takes_whole_row

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_COLUMNS = ("tools", "documents")
_EMPTY_REASONING = re.compile(
    r"\s*(?:<([\w:]*(?:think|reason|thought)\w*)>\s*</\1>|\[THINK\]\s*\[/THINK\]|<\|START_THINKING\|><\|END_THINKING\|>)\s*"
)
_VARIABLES = "chat_template_kwargs"
_ALWAYS_THERE = RESERVED_VARIABLES | {
    *("raise_exception", "strftime_now", "range", "namespace", "dict", "cycler", "joiner", "lipsum"),
    *("bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token"),
}
"""Variables that a template has without `chat_template_kwargs`."""


@dataclass(frozen=True)
class TurnTokens:
    """The tokens that a model has at the end of a turn."""

    message: int
    """Index of the message."""
    prompt: int
    """Number of tokens of the prompt."""
    ids: Ids
    """The tokens of the prompt, then those of the turn and what the template writes after it, int32, shape (tokens,).
    Where the template writes another text before the turn than the prompt, only those of the prompt."""


@dataclass(frozen=True)
class ConversationTurns:
    """Turns of a conversation."""

    turns: list[TurnTokens] = field(default_factory=list)
    refused: dict[int, str] = field(default_factory=dict)
    """Index of a message -> why the template does not render the conversation before it, or up to it."""


class _Texts(NamedTuple):
    """A turn of a conversation as text."""

    owner: int
    """Index of its conversation."""
    message: int
    conversation: Conversation
    prompt: str
    whole: str
    """The conversation up to and including the turn."""


class TurnTokenizer:
    """Renders with `tokenizer.apply_chat_template`, and encodes with the tokenizer's own call."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        variables: Mapping[str, Any],
        template_date: str | None,
        *,
        escapes: bool,
        skips_reasoning: bool,
    ) -> None:
        """Prepare for the rows of a run.

        Args:
            tokenizer: the tokenizer, with the chat template of the run.
            variables: `chat_template_kwargs` of the run.
            template_date: the day that the template was given, as YYYY-MM-DD; None for today.
            escapes: whether `special_tokens_in_content` was `escape`.
            skips_reasoning: whether `empty_reasoning` was `add`.

        Raises:
            TokenizerError: there is no chat template.
        """
        self._tokenizer = tokenizer
        self._renderer = ReferenceRenderer(tokenizer, template_date)
        self._variables = variables
        sources = [self._renderer.source(with_tools=each) for each in (False, True)]
        self.takes_whole_row = any(map(takes_whole_row, sources))
        """Whether the template takes a whole row as `messages`."""
        used = variables_of(sources[0]) | variables_of(sources[1])
        others = (_VARIABLES,) if used - _ALWAYS_THERE else ()
        self.columns = (*(name for name in _COLUMNS if name in used), *others)
        """The columns that the template takes beside the messages."""
        specials = special_tokens(tokenizer)
        self._encoder = PieceEncoder(tokenizer, (each for each in specials if any(each in text for text in sources)))
        self._contents, self._forms = ContentFormatAdapter(self._renderer), MessageFormAdapter(self._renderer)
        self._switch = no_thinking_switch(self._renderer, sources[0]) if skips_reasoning else None
        self._screen = ContentScreen(SpecialTokenMatcher(specials), ESCAPE) if escapes else None

    def read(self, row: Row, column: str) -> Conversation:
        """Read the conversation of a row in the form that the template takes.

        Raises:
            RowError: there is none.
        """
        conversation = read_conversation(row, column, self._variables)
        if self._screen is not None:
            try:
                row, _ = self._screen.screen_conversation(row, column, conversation)
            except RowDroppedError as reason:
                raise RowError(str(reason)) from None
            conversation = read_conversation(row, column, self._variables)
        return self._forms.adapt(self._contents.adapt(with_ranges_of_parts(conversation)))

    def skipping_reasoning(self, conversation: Conversation) -> Conversation | None:
        """Return a conversation with the prompt that skips reasoning; None if the run used no such prompts."""
        if self._switch is None or self._switch[0] in conversation.variables:
            return None
        return replace(conversation, variables={**conversation.variables, self._switch[0]: self._switch[1]})

    def encode_whole(self, conversation: Conversation) -> Ids:
        """Return the tokens of a whole conversation; raises `RowError` if the template cannot render it."""
        return self._encoder.encode([self._renderer.render(conversation)])[0]

    def decode(self, ids: Ids) -> str:
        """Return the text of tokens, special tokens included."""
        text = self._tokenizer.decode(ids.tolist(), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        assert isinstance(text, str)
        return text

    def encode_turns(self, wanted: Sequence[tuple[Conversation, Sequence[int]]]) -> list[ConversationTurns]:
        """Render and encode turns of some conversations, given by the indices of their messages."""
        found = [ConversationTurns() for _ in wanted]
        texts: list[_Texts] = []
        for owner, (conversation, turns) in enumerate(wanted):
            for message in turns:
                try:
                    prompt = self._renderer.render(conversation.first_messages(message), add_generation_prompt=True)
                    whole = self._renderer.render(conversation.first_messages(message + 1))
                except RowError as reason:
                    found[owner].refused[message] = str(reason)
                else:
                    texts += _forms(_Texts(owner, message, conversation, prompt, whole))
        prompts = self._encoder.encode([each.prompt for each in texts])
        wholes = self._encoder.encode([each.whole for each in texts])
        merged: list[tuple[_Texts, Ids, Ids]] = []
        for each, prompt_ids, ids in zip(texts, prompts, wholes, strict=True):
            if np.array_equal(ids[: len(prompt_ids)], prompt_ids):
                found[each.owner].turns.append(TurnTokens(each.message, len(prompt_ids), ids))
            else:
                merged.append((each, prompt_ids, ids))
        self._add_merged(merged, found)
        return found

    def _add_merged(self, merged: Sequence[tuple[_Texts, Ids, Ids]], found: Sequence[ConversationTurns]) -> None:
        """Add turns whose tokens, encoded with the prompt, do not begin with those of the prompt."""
        answers = [
            each.whole[len(each.prompt) :] if each.whole.startswith(each.prompt) else "" for each, _, _ in merged
        ]
        encoded = self._encoder.encode_continuations(answers)
        for (each, prompt_ids, ids), answer, answer_ids in zip(merged, answers, encoded, strict=True):
            add = found[each.owner].turns.append
            add(TurnTokens(each.message, len(prompt_ids), np.concatenate([prompt_ids, answer_ids])))
            if answer and self._has_no_prompt(each):
                add(TurnTokens(each.message, common_length(prompt_ids, ids), ids))

    def _has_no_prompt(self, texts: _Texts) -> bool:
        """Return whether the template writes no generation prompt, so that nothing says where the turn begins."""
        try:
            return self._renderer.render(texts.conversation.first_messages(texts.message)) == texts.prompt
        except RowError:
            return False


def _forms(texts: _Texts) -> list[_Texts]:
    """Return a turn, and a turn without reasoning also without the empty block that some templates write for it.

    As the last message, Qwen3's template writes such a turn with the block, and later without. Both follow its prompt.
    """
    answer = texts.whole[len(texts.prompt) :] if texts.whole.startswith(texts.prompt) else ""
    empty = _EMPTY_REASONING.match(answer)
    return [texts] if empty is None else [texts, texts._replace(whole=texts.prompt + answer[empty.end() :])]


def common_length(one: Ids, other: Ids) -> int:
    """Return how many tokens at the start of two rows are the same.

    Example:
        >>> common_length(np.array([1, 2, 3]), np.array([1, 2, 4, 5]))
        2
    """
    shared = min(len(one), len(other))
    different = np.flatnonzero(one[:shared] != other[:shared])
    return int(different[0]) if len(different) else shared
