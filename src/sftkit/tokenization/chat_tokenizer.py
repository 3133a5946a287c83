"""Everything that handlers need of a tokenizer, made once per process from a spec."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from sftkit.core.row_log import RowError
from sftkit.core.rows import LabeledTokens, Ragged, Row
from sftkit.errors import ConfigError, TokenizerError
from sftkit.tokenization.content_screening import KEEP, ContentScreen, SpecialTokenMatcher
from sftkit.tokenization.conversations import Conversation, is_assistant, read_conversation, text_of
from sftkit.tokenization.encoding.chunked_encoder import MAX_CHUNK_CHARACTERS, MIN_CHUNK_CHARACTERS, ChunkedEncoder
from sftkit.tokenization.encoding.fast_encoder import FastEncoder
from sftkit.tokenization.encoding.id_engines import GigatokenEngine, IdEngine, TokenizersEngine
from sftkit.tokenization.encoding.reference_encoder import Encoder, ReferenceEncoder
from sftkit.tokenization.encoding.spans import Span
from sftkit.tokenization.engines import ENCODER, RENDERER, EnginePolicy, UnsupportedByEngineError
from sftkit.tokenization.masking import labels
from sftkit.tokenization.masking.inference_prompts import inference_prompts
from sftkit.tokenization.masking.reasoning import answer_start
from sftkit.tokenization.masking.responses import response_spans
from sftkit.tokenization.masking.supervision import (
    Supervision,
    have_train_flags,
    untrained_messages,
)
from sftkit.tokenization.masking.train_on import ALL
from sftkit.tokenization.masking.turn_finder import TurnFinder
from sftkit.tokenization.probing.content_format import ContentFormatAdapter
from sftkit.tokenization.rendering.minijinja_renderer import MinijinjaRenderer
from sftkit.tokenization.rendering.reference_renderer import ReferenceRenderer, Renderer
from sftkit.tokenization.special_tokens import special_tokens, stop_tokens
from sftkit.tokenization.templates.template_analysis import takes_whole_row
from sftkit.tokenization.tokenizer_loading import (
    TokenizerSpec,
    backend_json,
    chat_template_sha256,
    fingerprint,
    load_tokenizer,
)
from sftkit.tokenization.verification import VerificationSampler, VerifiedEncoder, VerifiedFunction

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

T = TypeVar("T")
MASK_REASONING = "mask"

_FLAG_IN_TEXT = (
    "a message says that it is not trained, which rows of text cannot hold; "
    "use tokenize_and_apply_chat_template_with_masking"
)

_NO_LIMIT = int(1e20)
"""A larger `model_max_length` means that there is no limit, in transformers too."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ChatTokenizerSpec:
    """What a chat tokenizer is made from, in any process.

    train_on: `assistant`, `last_assistant` or `all`; which of the spans that were found carry a loss. reasoning: `keep`
    or `mask`. chat_template_kwargs: what templates are given besides, as JSON text (a spec can be hashed), "" for
    nothing. special_tokens_in_content: `keep`, `escape`, `drop` or `error`.
    """

    tokenizer: TokenizerSpec | None
    train_on: str
    engines: EnginePolicy
    reasoning: str = "keep"
    chat_template_kwargs: str = ""
    special_tokens_in_content: str = KEEP

    def without_engine(self, engine: str) -> ChatTokenizerSpec:
        """The same with one fast engine given up."""
        return replace(self, engines=EnginePolicy(self.engines.reference_only | {engine}, self.engines.verify_fraction))


class ChatTokenizer:
    """Rendering, encoding and masking with one tokenizer."""

    def __init__(self, spec: ChatTokenizerSpec) -> None:
        self._spec = spec.tokenizer
        self._train_on = spec.train_on
        self._supervision = Supervision(spec.train_on, spec.reasoning == MASK_REASONING)
        self._variables: Mapping[str, Any] = json.loads(spec.chat_template_kwargs or "{}")
        self._whole_row: dict[str, bool] = {}
        self._policy = spec.special_tokens_in_content
        self._audited = VerificationSampler(spec.engines.verify_fraction)
        self._reference_only = spec.engines.reference_only
        self._samplers = {engine: VerificationSampler(spec.engines.verify_fraction) for engine in (ENCODER, RENDERER)}

    def load(self) -> None:
        """Load everything now that is otherwise loaded when it is first needed."""
        if self._spec is not None:
            _ = self.identity, self._fast_encoder, self._fast_renderer

    @cached_property
    def identity(self) -> tuple[str, str | None]:
        """Fingerprint of the tokenizer and sha256 of its chat template: equal for chat tokenizers that do the same."""
        return fingerprint(self.tokenizer, self._backend_json), chat_template_sha256(self.tokenizer)

    @cached_property
    def _backend_json(self) -> str | None:
        return backend_json(self.tokenizer)

    @property
    def engines_used(self) -> dict[str, str]:
        """The engines that were used so far, by what they do: `encoder`, `renderer`."""
        used = {}
        if "_encoder" in self.__dict__:
            used[ENCODER] = self._encoder.name
        if "_find_trained_spans" in self.__dict__ or "_render" in self.__dict__:
            used[RENDERER] = (self._fast_renderer or self._reference_renderer).name
        return used

    def start_unit(self) -> None:
        """Rows of another unit follow."""
        for sampler in (*self._samplers.values(), self._audited):
            sampler.start_unit()

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer, loaded when it is first needed.

        Raises:
            ConfigError: the config names none.
            TokenizerError: it cannot be loaded.
        """
        if self._spec is None:
            raise ConfigError("a tokenizer is needed here: give model_name_or_path or tokenizer_name_or_path")
        return load_tokenizer(self._spec)

    @cached_property
    def _reference_encoder(self) -> Encoder:
        whole = ReferenceEncoder(self.tokenizer)
        try:
            return ChunkedEncoder(self.tokenizer, whole)
        except UnsupportedByEngineError as reason:
            _log.info("long texts are not cut for this tokenizer: %s", reason)
        return whole

    @cached_property
    def _fast_encoder(self) -> FastEncoder | None:
        if ENCODER in self._reference_only or self._backend_json is None:
            return None
        try:
            engine = self._bare_ids()
            fast = FastEncoder(self.tokenizer, engine, self._reference_encoder)
        except UnsupportedByEngineError as reason:
            _log.info("only the reference encodes with this tokenizer: %s", reason)
            return None
        return fast if isinstance(engine, GigatokenEngine) or fast.locates_spans_by_count else None

    def _bare_ids(self) -> IdEngine:
        try:
            return GigatokenEngine(self.tokenizer, self._backend_json)
        except UnsupportedByEngineError as reason:
            _log.info("gigatoken cannot be used with this tokenizer: %s", reason)
        return TokenizersEngine(self.tokenizer, self._reference_encoder)

    @cached_property
    def _encoder(self) -> Encoder:
        if self._fast_encoder is None:
            return self._reference_encoder
        return VerifiedEncoder(self._fast_encoder, self._reference_encoder, self._samplers[ENCODER])

    @cached_property
    def _reference_renderer(self) -> ReferenceRenderer:
        return ReferenceRenderer(self.tokenizer)

    @cached_property
    def _fast_renderer(self) -> MinijinjaRenderer | None:
        if RENDERER not in self._reference_only:
            try:
                return MinijinjaRenderer(self.tokenizer, self._reference_renderer)
            except UnsupportedByEngineError as reason:
                _log.info("minijinja cannot be used with this chat template: %s", reason)
        return None

    def _proven(self, function_of: Callable[[Renderer], Callable[[Conversation], T]]) -> Callable[[Conversation], T]:
        """What `function_of` makes of the renderer, by the fast one where there is one."""
        reference = function_of(self._reference_renderer)
        if self._fast_renderer is None:
            return reference
        return VerifiedFunction(function_of(self._fast_renderer), reference, self._samplers[RENDERER])

    @cached_property
    def _find_trained_spans(self) -> Callable[[Conversation], tuple[str, list[Span]]]:
        stops, specials = self.stop_tokens, special_tokens(self.tokenizer)
        return self._proven(lambda renderer: TurnFinder(renderer, self._supervision, stops, specials).find)

    @cached_property
    def _render(self) -> Callable[[Conversation], str]:
        return self._proven(lambda renderer: renderer.render)

    @cached_property
    def _screen(self) -> ContentScreen:
        return ContentScreen(SpecialTokenMatcher(special_tokens(self.tokenizer)), self._policy)

    def screen(self, row: Row, column: str | None) -> tuple[Row, bool]:
        """A row as the policy for special tokens in content lets it go on, and whether such tokens are left in it.

        Raises:
            RowDroppedError: the row is to be dropped.
            RowError: the row is to be quarantined, or holds no conversation.
        """
        return self._screen.screen_row(row, column)

    def screen_text(self, text: str) -> str:
        """A text as the policy for special tokens in content lets it go on; raises as `screen`."""
        return self._screen.screen_text(text)

    @cached_property
    def _content_forms(self) -> ContentFormatAdapter:
        return ContentFormatAdapter(self._reference_renderer)

    @cached_property
    def stop_tokens(self) -> tuple[str, ...]:
        """The tokens by which the model stops, as text, as far as its files name them."""
        return () if self._spec is None else stop_tokens(self.tokenizer, self._spec.name)

    @property
    def eos_token(self) -> str:
        """The end-of-sequence token as text.

        Raises:
            TokenizerError: the tokenizer has none.
        """
        eos = self.tokenizer.eos_token
        if not isinstance(eos, str):
            raise TokenizerError(f"tokenizer {self.tokenizer.name_or_path!r} has no eos token, and one is asked for")
        return eos

    @cached_property
    def vocabulary_size(self) -> int | None:
        """How many tokens the tokenizer knows; None when the config names no tokenizer."""
        return None if self._spec is None else len(self.tokenizer)

    def check_chat_template(self) -> None:
        """Raise `TokenizerError` when there is no chat template, or one that is not valid Jinja."""
        self._reference_renderer.check()

    def render(self, row: Row, column: str | None) -> str:
        """The conversation of a row (in `column`, or the whole row) as text.

        Raises:
            RowDroppedError, RowError: as `screen`; the template cannot render it, or a message says that it is not
                trained, which a text cannot hold.
        """
        if self._policy != KEEP:
            row, _ = self._screen.screen_row(row, column)
        conversation = read_conversation(row, column, self._variables)
        messages = conversation.messages
        if not isinstance(messages, Mapping) and have_train_flags(messages) and untrained_messages(messages):
            raise RowError(_FLAG_IN_TEXT)
        return self._render(self._content_forms.adapt(conversation))

    def find_trained_spans(self, row: Row, column: str | None) -> tuple[str, list[Span]]:
        """The conversation of a row as text, and the spans of it that are trained.

        A template that takes a whole row as `messages` gets it, `column` or not.

        Raises:
            RowError: the row holds none, the template cannot render it, or the spans cannot be proven.
        """
        text, spans = self._find_trained_spans(self._conversation(row, column))
        return self.check_encodable(text), spans

    def check_encodable(self, text: str) -> str:
        """A text that is to be encoded.

        Raises:
            RowError: it is too long for the memory that this would take.
        """
        if len(text) > MAX_CHUNK_CHARACTERS:
            encoder = self._reference_encoder
            longest = encoder.longest_chunk(text) if isinstance(encoder, ChunkedEncoder) else len(text)
            if longest > MAX_CHUNK_CHARACTERS:
                raise RowError(
                    f"a text of {len(text):,} characters, of which {longest:,} must be encoded at once; "
                    f"the limit is {MAX_CHUNK_CHARACTERS:,}: split the row"
                )
        return text

    def has_prompt_mismatch(self, row: Row, column: str | None) -> bool:
        """Whether anything before a trained turn is other text, or other tokens, than the model is given at that place
        at inference. Only a sample of rows is looked at: the first of each unit, and as many as are verified; long
        ones are not, for every prompt of theirs is as long.
        """
        if self._train_on == ALL or not self._audited.take_next():
            return False
        conversation = self._conversation(row, column)
        if sum(len(text_of(turn)) for turn in conversation.message_list) > MIN_CHUNK_CHARACTERS:
            return False
        if not any(map(is_assistant, conversation.message_list)):
            return False  # the template marked something else
        trained = self._supervision.trained_turns(conversation.message_list)
        text, prompts = inference_prompts(self._reference_renderer, conversation, trained)
        ids = self._reference_encoder.encode([text, *prompts], add_special_tokens=False)
        whole = ids[0]
        return any(not np.array_equal(whole[: len(ids[place])], ids[place]) for place in range(1, len(ids)))

    def _conversation(self, row: Row, column: str | None) -> Conversation:
        conversation = read_conversation(row, column, self._variables)
        if column is not None and self._wants_whole_row(conversation):
            conversation = read_conversation(row, None, self._variables)
        return self._content_forms.adapt(conversation)

    def _wants_whole_row(self, conversation: Conversation) -> bool:
        source = self._reference_renderer.source(with_tools=conversation.tools is not None)
        if source not in self._whole_row:
            self._whole_row[source] = takes_whole_row(source)
        return self._whole_row[source]

    def find_responses(self, text: str, response_template: str, instruction_template: str | None) -> list[Span]:
        """The spans of the responses in a text; none when it has no response."""
        eos = self.tokenizer.eos_token
        spans = response_spans(text, response_template, instruction_template, eos if isinstance(eos, str) else None)
        spans = self._supervision.trained_responses(text, spans)
        if self._supervision.reasoning_masked:
            return list(self._answers(text, spans))
        return spans

    def _answers(self, text: str, spans: Sequence[Span]) -> Iterator[Span]:
        """What of responses follows their reasoning; one whose reasoning is not closed could hold anything, and is left
        out."""
        for start, end in spans:
            with suppress(RowError):
                yield answer_start(text, start, end, {}), end

    @property
    def max_length(self) -> int | None:
        """The most tokens that the tokenizer's model takes; None if it sets no limit."""
        limit: int = self.tokenizer.model_max_length
        return limit if limit <= _NO_LIMIT else None

    def encode(self, texts: Sequence[str], *, limit: int | None = None) -> Ragged:
        """`tokenizer(text)["input_ids"]` of each text, cut to `limit` tokens."""
        return self._encoder.encode(texts, limit=limit)

    def encode_spans(self, texts: Sequence[str], spans: Sequence[Sequence[Span]]) -> LabeledTokens:
        """Ids of each text as the tokenizer's call gives them, with a loss on the tokens of its spans."""
        ids, inside = self._encoder.encode_spans(texts, spans, add_special_tokens=True)
        if self._train_on == ALL:
            return LabeledTokens(ids, labels.labels_everywhere(ids))
        return LabeledTokens(ids, labels.labels_from_mask(ids, inside))

    def encode_conversations(self, texts: Sequence[str], spans: Sequence[Sequence[Span]]) -> LabeledTokens:
        """Ids of rendered conversations, which bring their special tokens, with a loss on the tokens of their spans."""
        ids, inside = self._encoder.encode_spans(texts, spans, add_special_tokens=False)
        return LabeledTokens(ids, labels.labels_from_mask(ids, inside))

    def encode_pairs(self, inputs: Sequence[str], texts: Sequence[str]) -> LabeledTokens:
        """Ids of each text, with a loss on what comes after as many tokens as its input alone has."""
        ids = self._encoder.encode(texts)
        if self._train_on == ALL:
            return LabeledTokens(ids, labels.labels_everywhere(ids))
        return LabeledTokens(ids, labels.labels_after_prefix(ids, self._encoder.encode(inputs).lengths))
