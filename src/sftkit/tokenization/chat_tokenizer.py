"""Renders, encodes and masks conversations with one tokenizer: the interface of this package to data handlers."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from sftkit.config.schema.option_values import FMS
from sftkit.core.rows import Ids, LabeledTokens, Mask, Ragged, Row
from sftkit.tokenization.chat_tokenizer_spec import ChatTokenizerSpec
from sftkit.tokenization.conversation_preparer import ConversationPreparer
from sftkit.tokenization.conversation_reader import ConversationReader
from sftkit.tokenization.encoding import encodable
from sftkit.tokenization.encoding.spans import Span
from sftkit.tokenization.loading.special_tokens import eos_token, length_limit
from sftkit.tokenization.loading.tokenizer_identity import TokenizerIdentity, chat_template_sha256, fingerprint
from sftkit.tokenization.masking.labels import labels_everywhere, labels_from_mask
from sftkit.tokenization.masking.pairs import encode_pairs, truncate_pairs
from sftkit.tokenization.masking.parts.kind_marker import KindMarker
from sftkit.tokenization.masking.prepared_conversation import PreparedConversation
from sftkit.tokenization.masking.responses import mask_responses, response_spans
from sftkit.tokenization.masking.segment_labels import Segment, encode_segments
from sftkit.tokenization.masking.train_on import ALL
from sftkit.tokenization.masking.turn_parts import fill_spans
from sftkit.tokenization.probing.written_forms import WrittenForms
from sftkit.tokenization.tokenizer_engines import TokenizerEngines

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class ChatTokenizer:
    """Renders, encodes and masks with one tokenizer.

    A row passes through these steps:

    1. `conversations.prepare` searches the conversation for special tokens in its contents, renders it, finds the
       characters that carry a loss (`TurnFinder`), and what the template left out (`OmissionFinder`).
       `conversations.render` and `find_responses` do the same for handlers that make text.
    2. `encode_prepared` encodes the text once, and marks the tokens with a character in a trained span.

    Rendering and encoding use a fast engine where one is supported, and compare a sample of its results with the
    reference (`TokenizerEngines`). The tokenizer is loaded when it is first needed, so a `ChatTokenizer` is cheap to
    make. It is not thread-safe; each process makes its own from a `ChatTokenizerSpec`.

    Methods that process rows raise `RowError` for rows that cannot be used, and `EngineDifferenceError` when a fast
    engine differs from the reference.
    """

    def __init__(self, spec: ChatTokenizerSpec) -> None:
        """Prepare for a spec.

        Raises:
            ConfigError: `train_on` names a plugin that cannot be loaded.
        """
        self._spec = spec.tokenizer
        self._supervision = spec.supervision()
        self._trains_all = spec.train_on == ALL
        self.follows_fms = spec.compat == FMS
        self._engines = TokenizerEngines(
            spec.tokenizer, spec.engines, spec.template_date, keeps_second_bos=self.follows_fms
        )
        self._reader = ConversationReader(self._engines, json.loads(spec.chat_template_kwargs or "{}"))
        self.template_date = spec.template_date
        self.conversations = ConversationPreparer(spec, self._engines, self._reader, self._supervision)

    def load(self) -> None:
        """Load the tokenizer and the engines now, not when they are first used."""
        if self._spec is not None:
            self._engines.load()
            _ = self.identity

    def start_unit(self) -> None:
        """Prepare for the rows of the next work unit."""
        self._engines.start_unit()
        self.conversations.start_unit()

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The transformers tokenizer.

        Raises:
            ConfigError: the config names no tokenizer.
            TokenizerError: it cannot be loaded.
        """
        return self._engines.tokenizer

    @cached_property
    def identity(self) -> TokenizerIdentity:
        """Equal for two that do the same, even if they were loaded at different times."""
        return TokenizerIdentity(
            fingerprint(self.tokenizer, self._engines.backend_json),
            chat_template_sha256(self.tokenizer),
            self.stop_tokens,
        )

    @property
    def engines_used(self) -> dict[str, str]:
        """The names of the engines used so far, by task: `encoder`, `renderer`."""
        return self._engines.used

    @property
    def rows_by_programs(self) -> int:
        """The number of conversations so far whose text is from a program (`tracing`)."""
        return self._engines.rows_by_programs

    @property
    def stop_tokens(self) -> tuple[str, ...]:
        """The stop tokens that the model's files name, as text."""
        return self.conversations.stop_tokens

    @property
    def kind_marker(self) -> KindMarker | None:
        """Finds the kinds of trained tokens; None if the config does not ask for them."""
        return self.conversations.kind_marker

    @property
    def eos_token(self) -> str:
        """The eos token as text.

        Raises:
            TokenizerError: the tokenizer has none.
        """
        return eos_token(self.tokenizer)

    @cached_property
    def special_token_variables(self) -> Mapping[str, str]:
        """The special tokens as text, by the names that templates have for them (`eos_token`); none without a
        tokenizer.
        """
        if self._spec is None:
            return {}
        return {name: token for name, token in self.tokenizer.special_tokens_map.items() if isinstance(token, str)}

    @cached_property
    def vocabulary_size(self) -> int | None:
        """Number of tokens that the tokenizer knows; None if the config names no tokenizer."""
        return None if self._spec is None else len(self.tokenizer)

    @property
    def max_length(self) -> int | None:
        """The most tokens that the tokenizer's model takes; None if it sets no limit."""
        return length_limit(self.tokenizer)

    @cached_property
    def has_chat_template(self) -> bool:
        """Whether the tokenizer has a chat template, or the config gives it one.

        Raises:
            ConfigError, TokenizerError: as `tokenizer`.
        """
        tokenizer = self.tokenizer
        try:
            tokenizer.get_chat_template()
        except ValueError:
            return False
        return True

    def check_chat_template(self) -> None:
        """Check that there is a chat template, and that it is valid Jinja.

        Raises:
            TokenizerError: it is missing or invalid.
        """
        self._engines.reference_renderer.check()
        self.conversations.empty_reasoning.check()

    def find_conversation_column(self, row: Row) -> str | None:
        """Return the column that holds the messages of a row; None if the template takes the whole row.

        Raises:
            RowError: the row has no conversation.
        """
        return self._reader.find_column(row)

    def template_columns(self, column: str | None) -> Collection[str] | None:
        """Return what of a row the chat template takes, besides `column`; see `ConversationReader.template_columns`."""
        return self._reader.template_columns(column)

    def found_template_columns(self) -> Collection[str] | None:
        """Return what of a row is taken where `find_conversation_column` finds the conversation."""
        return self._reader.found_template_columns()

    def written_forms(self, *, with_tools: bool) -> WrittenForms | None:
        """Return which forms of messages the chat template writes, for conversations with or without tools.

        Returns:
            None if the template takes whole rows as `messages`.

        Raises:
            TokenizerError: there is no template.
            ConfigError: the config names no tokenizer.
        """
        return self._reader.written_forms(with_tools=with_tools)

    def screen_text(self, text: str) -> str:
        """Apply `special_tokens_in_content` to a text; raises as `screen`."""
        return self.conversations.screen.screen_text(text)

    def is_empty_answer(self, *answers: str) -> bool:
        """Return whether one of some answers is empty, apart from a stop token; raises as `has_empty_answer`."""
        return self.conversations.empty_answers.check_texts(answers, self.stop_tokens)

    def check_encodable(self, text: str) -> str:
        """Return the text if it is short enough to be encoded.

        Raises:
            RowError: encoding it would need too much memory.
        """
        encodable.check_text(self._engines.reference_encoder, text)
        return text

    def check_spans(self, text: str, spans: list[Span]) -> list[Span]:
        """Return the spans of a text if the tokens in them can be found; those of fast tokenizers always can.

        Raises:
            RowError: they cannot be found.
        """
        encodable.check_spans(self._engines.reference_encoder, text, spans)
        return spans

    def find_responses(self, text: str, response_template: str, instruction_template: str | None) -> list[Span]:
        """Find the spans of the trained responses in a text; an empty list if it has none.

        Raises:
            RowError: `train_on` refused, or the tokens of the responses cannot be found.
        """
        eos = self.tokenizer.eos_token if isinstance(self.tokenizer.eos_token, str) else None
        spans = response_spans(text, response_template, instruction_template, eos)
        spans = self._supervision.trained_responses(text, spans)
        return self.check_spans(text, mask_responses(text, spans, eos, self._supervision.masks))

    def encode(self, texts: Sequence[str], *, add_special_tokens: bool = True, limit: int | None = None) -> Ragged:
        """Encode texts as the tokenizer's own call does, truncated to `limit` tokens."""
        return self._engines.encoder.encode(texts, add_special_tokens=add_special_tokens, limit=limit)

    def decode(self, ids: Ids) -> str:
        """Return the text of tokens, without special tokens."""
        text = self.tokenizer.decode(ids.tolist(), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        assert isinstance(text, str)
        return text

    def encode_spans(self, texts: Sequence[str], spans: Sequence[Sequence[Span]]) -> LabeledTokens:
        """Encode texts as the tokenizer's own call does, and train the tokens in their spans."""
        ids, inside = self._engines.encoder.encode_spans(texts, spans, add_special_tokens=True)
        return LabeledTokens(ids, labels_everywhere(ids) if self._trains_all else labels_from_mask(ids, inside))

    def encode_conversations(
        self, texts: Sequence[str], spans: Sequence[Sequence[Span]], prompt_ends: Sequence[Sequence[int]] = ()
    ) -> LabeledTokens:
        """Encode rendered conversations, which contain their special tokens, and train the tokens in their spans.

        Args:
            texts: the conversations.
            spans: for each of them what carries a loss.
            prompt_ends: for each of them where prompts end whose tokens must be those of inference; () for none.
        """
        made = self._engines.inference_encoder.encode_spans(texts, spans, prompt_ends or [()] * len(texts))
        return LabeledTokens(made.ids, labels_from_mask(made.ids, made.inside), inexact=made.inexact)

    def encode_prepared(self, prepared: Sequence[PreparedConversation]) -> LabeledTokens:
        """Encode conversations, train the tokens in their spans, and tell their kinds and weights if these are wanted.

        There are weights if a message has one, and kinds if the config asks for them.
        """
        texts, ends = [each.text for each in prepared], [each.prompt_ends for each in prepared]
        if self.kind_marker is None and not any(each.in_parts for each in prepared):
            return self.encode_conversations(texts, [each.trained for each in prepared], ends)
        parts = [each.trained if each.in_parts else fill_spans(each.trained, ()) for each in prepared]
        encoded = self.conversations.parts.encode_parts(texts, parts, ends)
        return encoded if self.kind_marker is not None else replace(encoded, kinds=None)

    def encode_pairs(
        self, inputs: Sequence[str], texts: Sequence[str], *, add_special_tokens: bool = True
    ) -> tuple[LabeledTokens, Mask]:
        """Encode texts that begin with their inputs, and train what follows the input.

        Returns:
            The tokens, and which rows have a token over the boundary, shape (rows,); none if everything is trained.
        """
        encoder = self._engines.encoder
        if self._trains_all:
            ids = encoder.encode(texts, add_special_tokens=add_special_tokens)
            return LabeledTokens(ids, labels_everywhere(ids)), np.zeros(len(ids), np.bool_)
        return encode_pairs(
            encoder, inputs, texts, trains_boundary=not self.follows_fms, add_special_tokens=add_special_tokens
        )

    def truncate_pairs(
        self,
        encoded: LabeledTokens,
        inputs: Sequence[str],
        texts: Sequence[str],
        limit: int,
        *,
        add_special_tokens: bool,
    ) -> LabeledTokens:
        """Truncate pairs to `limit` tokens as the tokenizer's own call does."""
        cut = truncate_pairs(self._engines.encoder, encoded, inputs, texts, limit, add_special_tokens)
        return LabeledTokens(cut.input_ids, labels_everywhere(cut.input_ids)) if self._trains_all else cut

    def encode_segments(self, rows: Sequence[Sequence[tuple[str, bool]]]) -> LabeledTokens:
        """Encode rows in segments, each a text and whether it is trained, as `encode_segments` does."""
        return encode_segments(
            self._engines.encoder,
            [[Segment(text, trained or self._trains_all) for text, trained in row] for row in rows],
        )
