"""Everything that handlers need of a tokenizer, made once per process from a spec."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from sftkit.errors import ConfigError, TokenizerError
from sftkit.rows import Ragged, Row, Supervised
from sftkit.tokenization import masks
from sftkit.tokenization.bare_ids import BareIds, GigatokenIds, TokenizersIds
from sftkit.tokenization.encoding import Encoder, ReferenceEncoder
from sftkit.tokenization.engines import ENCODER, RENDERER, EngineRefusedError, Engines
from sftkit.tokenization.fast_encoding import FastEncoder
from sftkit.tokenization.fast_rendering import MinijinjaRenderer
from sftkit.tokenization.loading import TokenizerSpec, backend_json, chat_template_sha256, fingerprint, load_tokenizer
from sftkit.tokenization.masks import Span
from sftkit.tokenization.proving import ProvenEncoder, ProvenFunction, Sampler
from sftkit.tokenization.rendering import Conversation, ReferenceRenderer, Renderer, conversation_of
from sftkit.tokenization.responses import response_spans
from sftkit.tokenization.turns import TurnFinder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

T = TypeVar("T")
ALL, LAST_ASSISTANT = "all", "last_assistant"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ToolSpec:
    """What a toolbox is made from, in any process.

    train_on: `assistant`, `last_assistant` or `all`; which of the spans that were found carry a loss.
    """

    tokenizer: TokenizerSpec | None
    train_on: str
    engines: Engines

    def without(self, engine: str) -> ToolSpec:
        """The same with one fast engine given up."""
        return replace(self, engines=Engines(self.engines.reference | {engine}, self.engines.verify))


class Toolbox:
    """Rendering, encoding and masking with one tokenizer."""

    def __init__(self, spec: ToolSpec) -> None:
        self._spec = spec.tokenizer
        self._train_on = spec.train_on
        self._reference_only = spec.engines.reference
        self._samplers = {engine: Sampler(spec.engines.verify) for engine in (ENCODER, RENDERER)}

    def load(self) -> None:
        """Load everything now that is otherwise loaded when it is first needed."""
        if self._spec is not None:
            _ = self.identity, self._fast_encoder, self._fast_renderer

    @cached_property
    def identity(self) -> tuple[str, str | None]:
        """Fingerprint of the tokenizer and sha256 of its chat template: equal for toolboxes that do the same."""
        return fingerprint(self.tokenizer, self._backend_json), chat_template_sha256(self.tokenizer)

    @cached_property
    def _backend_json(self) -> str | None:
        return backend_json(self.tokenizer)

    @property
    def engines(self) -> dict[str, str]:
        """The engines that were used so far, by what they do: `encoder`, `renderer`."""
        used = {}
        if "_encoder" in self.__dict__:
            used[ENCODER] = self._encoder.name
        if "_find_turns" in self.__dict__ or "_render" in self.__dict__:
            used[RENDERER] = (self._fast_renderer or self._reference_renderer).name
        return used

    def begin_unit(self) -> None:
        """Rows of another unit follow."""
        for sampler in self._samplers.values():
            sampler.begin_unit()

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
    def _reference_encoder(self) -> ReferenceEncoder:
        return ReferenceEncoder(self.tokenizer)

    @cached_property
    def _fast_encoder(self) -> FastEncoder | None:
        if ENCODER in self._reference_only or self._backend_json is None:
            return None
        try:
            engine = self._bare_ids()
            fast = FastEncoder(self.tokenizer, engine, self._reference_encoder)
        except EngineRefusedError as reason:
            _log.info("only the reference encodes with this tokenizer: %s", reason)
            return None
        return fast if isinstance(engine, GigatokenIds) or fast.needs_no_offsets else None

    def _bare_ids(self) -> BareIds:
        try:
            return GigatokenIds(self.tokenizer, self._backend_json)
        except EngineRefusedError as reason:
            _log.info("gigatoken cannot be used with this tokenizer: %s", reason)
        return TokenizersIds(self.tokenizer, self._reference_encoder)

    @cached_property
    def _encoder(self) -> Encoder:
        if self._fast_encoder is None:
            return self._reference_encoder
        return ProvenEncoder(self._fast_encoder, self._reference_encoder, self._samplers[ENCODER])

    @cached_property
    def _reference_renderer(self) -> ReferenceRenderer:
        return ReferenceRenderer(self.tokenizer)

    @cached_property
    def _fast_renderer(self) -> MinijinjaRenderer | None:
        if RENDERER not in self._reference_only:
            try:
                return MinijinjaRenderer(self.tokenizer, self._reference_renderer)
            except EngineRefusedError as reason:
                _log.info("minijinja cannot be used with this chat template: %s", reason)
        return None

    def _proven(self, function_of: Callable[[Renderer], Callable[[Conversation], T]]) -> Callable[[Conversation], T]:
        """What `function_of` makes of the renderer, by the fast one where there is one."""
        reference = function_of(self._reference_renderer)
        if self._fast_renderer is None:
            return reference
        return ProvenFunction(function_of(self._fast_renderer), reference, self._samplers[RENDERER])

    @cached_property
    def _find_turns(self) -> Callable[[Conversation], tuple[str, list[Span]]]:
        return self._proven(lambda renderer: TurnFinder(renderer).find)

    @cached_property
    def _render(self) -> Callable[[Conversation], str]:
        return self._proven(lambda renderer: renderer.render)

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
            RowError: the row holds none, or the template cannot render it.
        """
        return self._render(conversation_of(row, column))

    def find_turns(self, row: Row, column: str) -> tuple[str, list[Span]]:
        """The conversation of a row as text, and the spans of it that are trained.

        Raises:
            RowError: the row holds none, the template cannot render it, or the spans cannot be proven.
        """
        text, spans = self._find_turns(conversation_of(row, column))
        if self._train_on == ALL:
            return text, [(0, len(text))]
        return text, spans[-1:] if self._train_on == LAST_ASSISTANT else spans

    def find_responses(self, text: str, response_template: str, instruction_template: str | None) -> list[Span]:
        """The spans of the responses in a text; none when it has no response."""
        eos = self.tokenizer.eos_token
        spans = response_spans(text, response_template, instruction_template, eos if isinstance(eos, str) else None)
        return spans[-1:] if self._train_on == LAST_ASSISTANT else spans

    def encode(self, texts: Sequence[str], *, truncation: bool = False, max_length: int | None = None) -> Ragged:
        """`tokenizer(text)["input_ids"]` of each text; `max_length` in tokens."""
        return self._encoder.encode(texts, truncation=truncation, max_length=max_length)

    def encode_spans(
        self, texts: Sequence[str], spans: Sequence[Sequence[Span]], *, add_special_tokens: bool
    ) -> Supervised:
        """Ids of each text, with a loss on the tokens of its spans."""
        ids, inside = self._encoder.encode_spans(texts, spans, add_special_tokens=add_special_tokens)
        if self._train_on == ALL:
            return Supervised(ids, masks.labels_everywhere(ids))
        return Supervised(ids, masks.with_loss(ids, inside))

    def encode_pairs(self, inputs: Sequence[str], texts: Sequence[str]) -> Supervised:
        """Ids of each text, with a loss on what comes after as many tokens as its input alone has."""
        ids = self._encoder.encode(texts)
        if self._train_on == ALL:
            return Supervised(ids, masks.labels_everywhere(ids))
        return Supervised(ids, masks.labels_after_prefix(ids, self._encoder.encode(inputs).lengths))
