"""Brings the conversation of a row to the text that is encoded, and finds what of it carries a loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

from sftkit.config.schema.option_values import INFERENCE, JOINT, ONCE, PER_TURN
from sftkit.core.accounting.row_notes import (
    EMPTY_ANSWER,
    LOSS_FLAG_UNUSED,
    PROMPT_MISMATCH,
    SPECIAL_TOKEN_IN_CONTENT,
    RowNotes,
)
from sftkit.core.row_log import RowError
from sftkit.core.rows import Row
from sftkit.tokenization.chat_tokenizer_spec import ChatTokenizerSpec
from sftkit.tokenization.content_screening import KEEP, ContentScreen
from sftkit.tokenization.conversation_reader import ConversationReader, messages_of
from sftkit.tokenization.conversations import Conversation
from sftkit.tokenization.empty_answers import EmptyAnswers
from sftkit.tokenization.empty_reasoning import EmptyReasoning
from sftkit.tokenization.encoding import encodable
from sftkit.tokenization.encoding.spans import Span
from sftkit.tokenization.loading.special_tokens import special_tokens, stop_tokens
from sftkit.tokenization.masking.inference_prompts import differs_from_prompts
from sftkit.tokenization.masking.message_flags import check_flags_for_text, have_weights
from sftkit.tokenization.masking.parts.kind_marker import KindMarker
from sftkit.tokenization.masking.prepared_conversation import PreparedConversation, ReadConversation
from sftkit.tokenization.masking.ranges.train_ranges import check_same_contents, with_ranges_of_parts
from sftkit.tokenization.masking.supervision import Supervision
from sftkit.tokenization.masking.train_on import ALL
from sftkit.tokenization.masking.turns.turn_finder import TurnFinder
from sftkit.tokenization.omissions.omission_finder import OmissionFinder
from sftkit.tokenization.rendering.reference_renderer import record_if_possible
from sftkit.tokenization.sample_preparer import SamplePreparer
from sftkit.tokenization.samples.row_samples import RowSamples
from sftkit.tokenization.samples.sample_flags import history_length
from sftkit.tokenization.special_token_matcher import SpecialTokenMatcher
from sftkit.tokenization.templates.recording import Recording
from sftkit.tokenization.tokenizer_engines import TokenizerEngines
from sftkit.tokenization.verification import VerificationSampler

_NOT_EMPTY = (
    "empty_reasoning=add: a turn does not begin with the empty block of reasoning of its prompt, because the chat "
    "template writes it without; set render=auto for conversations with several turns"
)


class ConversationPreparer:
    """Does everything with conversations that comes before their text is encoded.

    The tokenizer is loaded when the first conversation is prepared.
    """

    def __init__(
        self, spec: ChatTokenizerSpec, engines: TokenizerEngines, reader: ConversationReader, supervision: Supervision
    ) -> None:
        """Prepare for a spec.

        Args:
            spec: says what happens to special tokens in contents and to empty answers, and whether kinds are found.
            engines: render and encode.
            reader: reads conversations for the template of these engines.
            supervision: decides which turns carry a loss.
        """
        self._spec, self._engines, self._reader, self._supervision = spec, engines, reader, supervision
        self.empty_answers = EmptyAnswers(supervision, drops=spec.drop_empty_answers)
        self.empty_reasoning = EmptyReasoning(spec.empty_reasoning, engines, supervision)
        self._prompt_sampler = VerificationSampler(spec.engines.verify_fraction)

    def start_unit(self) -> None:
        """Prepare for the rows of the next work unit."""
        self._prompt_sampler.start_unit()
        if "_omissions" in self.__dict__:
            self._omissions.start_unit()

    @cached_property
    def screen(self) -> ContentScreen:
        """Applies `special_tokens_in_content`."""
        return ContentScreen(
            SpecialTokenMatcher(special_tokens(self._engines.tokenizer)), self._spec.special_tokens_in_content
        )

    def find_trained_spans(self, row: Row, column: str | None) -> tuple[str, list[Span]]:
        """Render the conversation of a row, and find the spans of the text that carry a loss.

        Raises:
            RowError: the row has no conversation, the template cannot render it, the text is too long, or a span
                cannot be verified.
        """
        text, spans, _ = self.find_with_prompts(row, column)
        return text, spans

    def find_with_prompts(self, row: Row, column: str | None) -> tuple[str, list[Span], list[int]]:
        """Find as `find_trained_spans`, and return where prompts end that are encoded apart, too."""
        recording, spans, ends = self._find_spans(self._reader.read_for_template(row, column))
        return recording.text, spans, self._encoded_apart(ends)

    def render(self, row: Row, column: str | None) -> str:
        """Render the conversation of a row, in `column` or the whole row, as text.

        Raises:
            RowDroppedError, RowError: the policy on special tokens drops or quarantines the row; the template cannot
                render it; or a message excludes itself from the loss, or has an unknown role and is not rendered.
        """
        return self.render_checked(row, column)[0]

    def render_checked(self, row: Row, column: str | None) -> tuple[str, RowNotes]:
        """Render as `render`, and return what the template left out, too."""
        if self._spec.special_tokens_in_content != KEEP:
            row, _ = self.screen.screen_row(row, column)
        conversation = self._reader.read(row, column)
        check_flags_for_text(messages_of(with_ranges_of_parts(conversation)))
        conversation = self._reader.adapt(conversation)
        recording = self._render(conversation)
        return recording.text, self._omissions.find(conversation, recording)

    def prepare(self, row: Row, column: str | None, *, is_sample: bool = False) -> PreparedConversation:
        """Do everything with the conversation of a row that comes before its text is encoded, and note what is odd.

        Args:
            row: the row.
            column: the column of its messages; None if the template takes the whole row.
            is_sample: whether another row trains the turns before the first trained one.

        Raises:
            RowDroppedError: as `screen`; or all answers are empty, and the config drops such rows.
            RowError: as `screen` and `find_trained_spans`; or a message of an unknown role is not rendered.
        """
        read = self._read_applied(row, column)
        return self._prepare(read, self._history(read[1], is_sample=is_sample))[1]

    def _prepare(self, read: ReadConversation, history: int) -> tuple[Recording, PreparedConversation]:
        """Prepare a conversation that was read, whose first messages are only the history of what is trained."""
        row, conversation, skips_reasoning, has_special = read
        in_parts = self._needs_parts(conversation)
        recording, trained, ends = (self.parts.find_parts if in_parts else self._find_spans)(conversation)
        ends = self._encoded_apart(ends)
        if skips_reasoning and self._differs_from_prompts(conversation, ends):
            raise RowError(_NOT_EMPTY)
        notes = self._omissions.find(conversation, recording, history)
        rules = [SPECIAL_TOKEN_IN_CONTENT] if has_special else []
        if self.empty_answers.check(conversation):
            rules.append(EMPTY_ANSWER)
        if conversation.plain is None and self._supervision.has_unused_flag(messages_of(conversation)):
            rules.append(LOSS_FLAG_UNUSED)
        if self._has_prompt_mismatch(conversation, ends):
            rules.append(PROMPT_MISMATCH)
        if rules:
            notes = RowNotes((*notes.rules, *rules), notes.not_rendered)
        return recording, PreparedConversation(row, recording.text, trained, notes, in_parts, ends)

    def _encoded_apart(self, ends: list[int]) -> list[int]:
        """Return those of the ends of prompts at which prompt and answer are encoded apart."""
        return ends if self._spec.boundary == INFERENCE else []

    def _needs_parts(self, conversation: Conversation) -> bool:
        """Return whether parts of trained spans are wanted: for kinds, for weights, or for tokens at their edges."""
        if self._spec.token_kinds:
            return True
        messages = [] if conversation.plain is not None else messages_of(conversation)
        return have_weights(messages) or self._supervision.needs_parts(messages)

    def _history(self, conversation: Conversation, *, is_sample: bool) -> int:
        """Return how many messages are only the history of what is trained."""
        if not (is_sample or self._spec.render == PER_TURN) or not conversation.has_messages:
            return 0
        return history_length(conversation.message_list, self._supervision)

    def samples(
        self, row: Row, column: str | None, most: int | None, *, compares_all_tokens: bool = False
    ) -> RowSamples:
        """Return the rows that the conversation of a row becomes with `render: per_turn`, or with `auto`.

        Args:
            row: the row.
            column: the column of its messages; None if the template takes the whole row.
            most: the most of them that are allowed; None for any number.
            compares_all_tokens: as in `SampleFinder.find`.

        Raises:
            RowDroppedError: as `screen`; or there are more than `most` of them.
            RowError: as `screen` and `SampleFinder.find`; with `auto` only as `prepare`.
        """
        return self._sample_preparer.find(
            self._read_applied(row, column), row, column, most, compares_all_tokens=compares_all_tokens
        )

    def _read_applied(self, row: Row, column: str | None) -> ReadConversation:
        """Read as `_read_screened`, and apply `empty_reasoning`; raises as both."""
        row, conversation, has_special = self._read_screened(row, column)
        return ReadConversation(row, *self.empty_reasoning.apply(conversation), has_special)

    def _read_screened(self, row: Row, column: str | None) -> tuple[Row, Conversation, bool]:
        """Apply `special_tokens_in_content`, and read the conversation of a row for the template.

        Returns:
            The row, the conversation, and whether it contains special tokens.

        Raises:
            RowDroppedError, RowError: as `screen`, or the row has no conversation.
        """
        conversation = self._reader.read(row, column)
        screened, has_special = self.screen.screen_conversation(row, column, conversation)
        if screened is not row:
            given, row, conversation = conversation, screened, self._reader.read(screened, column)
            check_same_contents(given, conversation)
        return row, self._reader.for_template(conversation, row, column), has_special

    @cached_property
    def _sample_preparer(self) -> SamplePreparer:
        return SamplePreparer(self._spec, self._engines, self._supervision, self.stop_tokens, self._prepare)

    @cached_property
    def parts(self) -> KindMarker:
        """Finds and encodes the parts of trained spans, where their kinds are wanted or their weights differ."""
        return KindMarker(self._engines, self._supervision, self.stop_tokens)

    @property
    def kind_marker(self) -> KindMarker | None:
        """Finds the kinds of trained tokens; None if the config does not ask for them."""
        return self.parts if self._spec.token_kinds else None

    @cached_property
    def stop_tokens(self) -> tuple[str, ...]:
        """The stop tokens that the model's files name, as text."""
        tokenizer = self._spec.tokenizer
        return () if tokenizer is None else stop_tokens(self._engines.tokenizer, tokenizer.name)

    @cached_property
    def _find_spans(self) -> Callable[[Conversation], tuple[Recording, list[Span], list[int]]]:
        encoder = self._engines.reference_encoder
        stops, specials = self.stop_tokens, special_tokens(self._engines.tokenizer)
        find = self._engines.verified(
            lambda renderer: TurnFinder(renderer, self._supervision, stops, specials).find_with_prompts
        )

        def find_encodable(conversation: Conversation) -> tuple[Recording, list[Span], list[int]]:
            recording, spans, ends = find(conversation)
            encodable.check_text(encoder, recording.text)
            encodable.check_spans(encoder, recording.text, spans)
            return recording, spans, ends

        return find_encodable

    def _has_prompt_mismatch(self, conversation: Conversation, ends: Sequence[int]) -> bool:
        """Return whether the text before a trained turn differs from the prompt that the model gets at inference.

        Both the text and its tokens are compared. Only a sample of the rows is checked: the first rows of each unit and
        a fraction of the others. Long rows are skipped, since each of their prompts is long.
        """
        if self._spec.render != ONCE and self._spec.boundary != JOINT:
            return False  # the prompts of all turns are compared
        if self._spec.train_on == ALL or not self._prompt_sampler.take_next():
            return False
        return self._differs_from_prompts(conversation, ends)

    def _differs_from_prompts(self, conversation: Conversation, ends: Sequence[int]) -> bool:
        encoder, supervision = self._engines.fast_inference_encoder, self._supervision
        differs = self._engines.fast(
            lambda renderer: lambda each: differs_from_prompts(renderer, encoder, each, supervision, ends)
        )
        return differs(conversation)

    @cached_property
    def _omissions(self) -> OmissionFinder:
        return OmissionFinder(self._engines.fast(lambda renderer: renderer.render))

    @cached_property
    def _render(self) -> Callable[[Conversation], Recording]:
        return self._engines.verified(
            lambda renderer: lambda conversation: record_if_possible(renderer, conversation),
        )
