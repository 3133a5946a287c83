"""Finds and encodes conversations with the kind and loss weight of every trained token, where these are wanted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

from sftkit.core.row_log import RowError
from sftkit.core.rows import LabeledTokens, Ragged
from sftkit.core.token_kinds import TokenKind, kinds_by_stop_ids
from sftkit.tokenization.conversations import Conversation
from sftkit.tokenization.encoding import encodable
from sftkit.tokenization.loading.special_tokens import special_tokens
from sftkit.tokenization.masking.parts.part_finder import PartFinder
from sftkit.tokenization.masking.parts.parts_apart import encode_parts_apart
from sftkit.tokenization.masking.supervision import Supervision
from sftkit.tokenization.masking.turn_parts import Part, fill_spans, weigh_parts
from sftkit.tokenization.masking.turns.turn_finder import TurnFinder
from sftkit.tokenization.templates.recording import Recording
from sftkit.tokenization.tokenizer_engines import TokenizerEngines


class KindMarker:
    """Does for parts of turns what `ChatTokenizer` does for trained spans."""

    def __init__(
        self,
        engines: TokenizerEngines,
        supervision: Supervision,
        stop_tokens: Sequence[str],
    ) -> None:
        """Prepare for a tokenizer.

        Args:
            engines: encode and render.
            supervision: selects what carries a loss.
            stop_tokens: the stop tokens that the model's files name, as text; () without a tokenizer.
        """
        self._engines = engines
        self._supervision = supervision
        self._stop_tokens = tuple(stop_tokens)

    def find_parts(self, conversation: Conversation) -> tuple[Recording, list[Part], list[int]]:
        """Render a conversation, and find the trained parts of the text, and where the prompts of trained turns end.

        Raises:
            RowError: as `ConversationPreparer.find_trained_spans`.
        """
        recording, parts, ends = self._find(conversation)
        text = recording.text
        encoder = self._engines.reference_encoder
        encodable.check_text(encoder, text)
        spans = [(part.start, part.end) for part in parts]
        try:
            encodable.check_spans(encoder, text, spans)
        except RowError:  # without kinds
            weights = [(part.start, part.end, part.weight) for part in parts if part.weight not in (0, 1)]
            untrained = [part for part in parts if part.kind == TokenKind.UNTRAINED]
            trained = [(part.start, part.end) for part in parts if part.kind != TokenKind.UNTRAINED]
            parts = sorted([*weigh_parts(fill_spans(trained, ()), weights), *untrained])
            encodable.check_spans(encoder, text, [(part.start, part.end) for part in parts])
        return recording, parts, ends

    def encode_parts(
        self, texts: Sequence[str], parts: Sequence[Sequence[Part]], ends: Sequence[Sequence[int]]
    ) -> LabeledTokens:
        """Encode rendered conversations, train the tokens in their parts, and tell the kind and weight of each.

        Args:
            texts: the conversations.
            parts: for each of them the trained parts.
            ends: for each of them where prompts end whose tokens must be those of inference.
        """
        return encode_parts_apart(
            self._engines.encoder,
            self._engines.inference_encoder,
            texts,
            parts,
            ends,
            lowest_weight=not self._supervision.trains_range_edges,
        )

    def kinds_of(self, ids: Ragged, labels: Ragged) -> Ragged:
        """Tell the kinds of other tokens than those of conversations: stop tokens, and content before them."""
        return kinds_by_stop_ids(ids, labels, self._stop_ids)

    @cached_property
    def _stop_ids(self) -> list[int]:
        ids = [self._engines.tokenizer.convert_tokens_to_ids(token) for token in self._stop_tokens]
        return [value for value in ids if isinstance(value, int)]

    @cached_property
    def _find(self) -> Callable[[Conversation], tuple[Recording, list[Part], list[int]]]:
        stops, specials = self._stop_tokens, special_tokens(self._engines.tokenizer)
        supervision = self._supervision
        return self._engines.verified(
            lambda renderer: PartFinder(TurnFinder(renderer, supervision, stops, specials), supervision).find
        )
