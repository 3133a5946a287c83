"""Everything that handlers need of a tokenizer, made once per process from a spec."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from sftkit.errors import ConfigError, TokenizerError
from sftkit.rows import Ragged, Row, Supervised
from sftkit.tokenization import masks
from sftkit.tokenization.encoding import ReferenceEncoder
from sftkit.tokenization.loading import TokenizerSpec, load_tokenizer
from sftkit.tokenization.masks import Span
from sftkit.tokenization.rendering import ReferenceRenderer, conversation_of
from sftkit.tokenization.responses import response_spans
from sftkit.tokenization.turns import TurnFinder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ALL, LAST_ASSISTANT = "all", "last_assistant"


class Toolbox:
    """Rendering, encoding and masking with one tokenizer.

    train_on: `assistant`, `last_assistant` or `all`; which of the spans that were found carry a loss.
    """

    def __init__(self, spec: TokenizerSpec | None, train_on: str) -> None:
        self._spec = spec
        self._train_on = train_on

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
    def _encoder(self) -> ReferenceEncoder:
        return ReferenceEncoder(self.tokenizer)

    @cached_property
    def _renderer(self) -> ReferenceRenderer:
        return ReferenceRenderer(self.tokenizer)

    @cached_property
    def _turns(self) -> TurnFinder:
        return TurnFinder(self._renderer)

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
        self._renderer.check()

    def render(self, row: Row, column: str | None) -> str:
        """The conversation of a row (in `column`, or the whole row) as text.

        Raises:
            RowError: the row holds none, or the template cannot render it.
        """
        return self._renderer.render(conversation_of(row, column))

    def find_turns(self, row: Row, column: str) -> tuple[str, list[Span]]:
        """The conversation of a row as text, and the spans of it that are trained.

        Raises:
            RowError: the row holds none, the template cannot render it, or the spans cannot be proven.
        """
        text, spans = self._turns.find(conversation_of(row, column))
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
        encoded = self._encoder.encode_with_offsets(texts, add_special_tokens=add_special_tokens)
        if self._train_on == ALL:
            return Supervised(encoded.ids, masks.labels_everywhere(encoded.ids))
        return Supervised(encoded.ids, masks.labels_from_spans(encoded, [len(text) for text in texts], spans))

    def encode_pairs(self, inputs: Sequence[str], texts: Sequence[str]) -> Supervised:
        """Ids of each text, with a loss on what comes after as many tokens as its input alone has."""
        ids = self._encoder.encode(texts)
        if self._train_on == ALL:
            return Supervised(ids, masks.labels_everywhere(ids))
        return Supervised(ids, masks.labels_after_prefix(ids, self._encoder.encode(inputs).lengths))
