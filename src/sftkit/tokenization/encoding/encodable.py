"""Whether the reference encoder can encode a text, and find the tokens in spans of it."""

from __future__ import annotations

from collections.abc import Sequence

from sftkit.core.row_log import RowError
from sftkit.tokenization.encoding.chunked_encoder import MAX_CHUNK_CHARACTERS, ChunkedEncoder
from sftkit.tokenization.encoding.reference_encoder import Encoder
from sftkit.tokenization.encoding.slow_encoder import SlowEncoder
from sftkit.tokenization.encoding.spans import Span


def check_text(encoder: Encoder, text: str) -> None:
    """Check that a text is short enough to be encoded.

    Raises:
        RowError: encoding it would need too much memory.
    """
    if len(text) > MAX_CHUNK_CHARACTERS:
        longest = encoder.longest_chunk(text) if isinstance(encoder, ChunkedEncoder) else len(text)
        if longest > MAX_CHUNK_CHARACTERS:
            raise RowError(
                f"a text of {len(text):,} characters, of which {longest:,} must be encoded at once; "
                f"the limit is {MAX_CHUNK_CHARACTERS:,}: split the row"
            )


def check_spans(encoder: Encoder, text: str, spans: Sequence[Span]) -> None:
    """Check that the tokens in spans of a text can be found; those of fast tokenizers always can.

    Raises:
        RowError: they cannot be found.
    """
    if spans and isinstance(encoder, SlowEncoder):
        encoder.check(text, spans)
