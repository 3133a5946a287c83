"""Finds what a conversation becomes with `render: auto` and `per_turn`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sftkit.config.schema.option_values import AUTO, INFERENCE
from sftkit.core.row_log import RowError
from sftkit.core.rows import Row
from sftkit.tokenization.chat_tokenizer_spec import ChatTokenizerSpec
from sftkit.tokenization.conversations import Conversation
from sftkit.tokenization.encoding.spans import merged
from sftkit.tokenization.masking.prepared_conversation import PreparedConversation, ReadConversation
from sftkit.tokenization.masking.supervision import Supervision
from sftkit.tokenization.samples.prompt_renderer import PromptRenderer
from sftkit.tokenization.samples.row_samples import RowSamples, samples_as_rows
from sftkit.tokenization.samples.sample_finder import SampleFinder
from sftkit.tokenization.samples.whole_conversation import WholeCheck
from sftkit.tokenization.templates.recording import Recording
from sftkit.tokenization.tokenizer_engines import TokenizerEngines


class SamplePreparer:
    """Decides which conversations stay whole, and finds the samples of the others."""

    def __init__(
        self,
        spec: ChatTokenizerSpec,
        engines: TokenizerEngines,
        supervision: Supervision,
        stop_tokens: Sequence[str],
        prepare: Callable[[ReadConversation, int], tuple[Recording, PreparedConversation]],
    ) -> None:
        """Prepare for a spec.

        Args:
            spec: says how conversations are rendered, and whether prompts are encoded apart.
            engines: render and encode.
            supervision: decides which turns carry a loss.
            stop_tokens: the stop tokens that the model's files name, as text.
            prepare: prepares a whole conversation, given how many of its messages are only history.
        """
        self._renders_whole = spec.render == AUTO
        self._supervision, self._prepare = supervision, prepare
        self._prompts = PromptRenderer(engines)
        self._whole_check = WholeCheck(engines, supervision, self._prompts)
        self._sample_finder = SampleFinder(
            engines, supervision, stop_tokens, self._prompts, encodes_apart=spec.boundary == INFERENCE
        )

    def find(
        self, read: ReadConversation, row: Row, column: str | None, most: int | None, *, compares_all_tokens: bool
    ) -> RowSamples:
        """Return the rows that a conversation becomes.

        Args:
            read: the conversation.
            row: its row.
            column: the column of its messages; None if the template takes the whole row.
            most: the most of them that are allowed; None for any number.
            compares_all_tokens: as in `SampleFinder.find`.

        Raises:
            RowDroppedError, RowError: as `ConversationPreparer.samples`.
        """
        whole = self._prepare_whole(read) if self._renders_whole else None
        conversation = read.conversation
        if whole is not None and not compares_all_tokens and self._stands_as_at_inference(conversation, *whole):
            return RowSamples([row], whole=whole[1])
        try:
            found = self._sample_finder.find(conversation, most, compares_all_tokens=compares_all_tokens)
            rows = samples_as_rows(row, column, conversation, found.samples, self._supervision)
        except RowError:
            if whole is None:
                raise
            return RowSamples([row], unknown=1, whole=whole[1])
        if found.samples.is_whole:
            return RowSamples(rows, found.differing, found.unknown, whole=whole[1] if whole is not None else None)
        once = self._prompts.render(conversation) if whole is None else whole[1].text
        return RowSamples(rows, found.differing, found.unknown, text_once=once)

    def _prepare_whole(self, read: ReadConversation) -> tuple[Recording, PreparedConversation] | None:
        """Prepare a conversation as `render: once` does.

        Returns:
            None if its turns lack the empty blocks of reasoning that samples of them may have.

        Raises:
            RowDroppedError, RowError: as `prepare`.
        """
        try:
            return self._prepare(read, 0)
        except RowError:
            if read.skips_reasoning:
                return None
            raise

    def _stands_as_at_inference(
        self, conversation: Conversation, recording: Recording, whole: PreparedConversation
    ) -> bool:
        spans = merged((start, end) for start, end, *_ in whole.trained) if whole.in_parts else whole.trained
        return conversation.has_messages and self._whole_check.is_exact(conversation, recording, spans)
