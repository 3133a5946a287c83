"""Whether a conversation that is rendered once trains each of its turns as the model sees it at inference."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from sftkit.core.row_log import RowError
from sftkit.tokenization.conversations import Conversation, is_assistant
from sftkit.tokenization.encoding.spans import Span
from sftkit.tokenization.loading.special_tokens import closing_tokens
from sftkit.tokenization.masking.supervision import Supervision
from sftkit.tokenization.samples.prompt_renderer import PromptRenderer
from sftkit.tokenization.templates.recording import Recording, without_empty_reasoning
from sftkit.tokenization.tokenizer_engines import TokenizerEngines


class WholeCheck:
    """Decides which conversations `render: auto` leaves as they are.

    Each trained turn must follow the text of its prompt, and be written as at the end of the conversation up to it. It
    need not have the empty block of reasoning that some templates write there for a turn without reasoning. It must end
    with a special token, unless it is the last message: otherwise its last token may cover the start of what follows.
    """

    def __init__(self, engines: TokenizerEngines, supervision: Supervision, prompts: PromptRenderer) -> None:
        """Prepare.

        Args:
            engines: render.
            supervision: decides which turns carry a loss.
            prompts: renders prompts.
        """
        self._engines, self._supervision, self._prompts = engines, supervision, prompts

    def is_exact(self, conversation: Conversation, recording: Recording, trained: Sequence[Span]) -> bool:
        """Return whether a rendering trains each turn as at inference; False if that is not easy to tell.

        Args:
            conversation: the conversation.
            recording: its rendering.
            trained: what of it is trained; each span must be a whole turn, or False is returned.

        Raises:
            RowError: a loss flag is invalid, or `train_on` refused.
        """
        messages = conversation.message_list
        if recording.program is not None and self._supervision.trains_all_turns(conversation.shape.keys):
            programs = self._engines.programs
            ends = None if programs is None else programs.prompt_ends(conversation, recording)
            if ends is not None and ends == [start for start, _ in trained]:
                return self._are_closed(recording.text, trained[:-1] if is_assistant(messages[-1]) else trained)
        if not any(map(is_assistant, messages)):
            return not trained
        turns = self._supervision.trained_turns(messages)
        return len(turns) == len(trained) and all(
            self._is_exact_turn(conversation, turn, recording.text, span)
            for turn, span in zip(turns, trained, strict=True)
        )

    def _is_exact_turn(self, conversation: Conversation, turn: int, text: str, span: Span) -> bool:
        start, end = span
        if not self._prompts.follows(conversation.first_messages(turn), text, start):
            return False
        if turn == len(conversation.message_list) - 1:
            return True
        if not self._are_closed(text, [span]):
            return False
        try:
            alone = self._prompts.render(conversation.first_messages(turn + 1))
        except RowError:
            return False
        written = text[start:end]
        if alone.startswith(written, start):
            return alone.startswith(text[:start])
        if not alone.startswith(text[:start]):
            return False
        return any(each.startswith(written) for each in without_empty_reasoning(alone[start:]))

    def _are_closed(self, text: str, spans: Sequence[Span]) -> bool:
        """Return whether each span ends with a special token, so that its tokens do not depend on what follows."""
        return all(text.endswith(self._closing, start, end) for start, end in spans)

    @cached_property
    def _closing(self) -> tuple[str, ...]:
        return closing_tokens(self._engines.tokenizer)
