"""A search in the text of rows, in packs sequence by sequence."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from sftkit.audit.packs import Packing
from sftkit.inspection.columns import Layout, row_groups, texts_of, tokens_of
from sftkit.inspection.decoding import Decoder
from sftkit.rows import Ragged

_SEARCHED_AT_ONCE = 256  # rows whose tokens are in memory as arrays


def hits_in(
    layout: Layout, group: int, first: int, wanted: str, decoder: Decoder | None
) -> Iterator[tuple[int, tuple[int, ...] | None]]:
    """The rows of a row group, from `first` on, that contain a text, and the sequences that do where rows are packs:
    what stands at the end of one and at the beginning of the next is no text.
    """
    table = next(row_groups(layout, group))
    for start in range(first, table.num_rows, _SEARCHED_AT_ONCE):
        rows = table.slice(start, _SEARCHED_AT_ONCE)
        if not layout.tokens:
            yield from ((start + row, None) for row, text in enumerate(texts_of(rows, layout)) if wanted in text)
            continue
        assert decoder is not None, "a search in tokens needs a tokenizer"
        tokens = tokens_of(rows, layout)
        packs = tokens.packs(Packing())
        if packs is None:
            yield from ((start + row, None) for row, text in enumerate(decoder.texts(tokens.ids)) if wanted in text)
            continue
        texts = zip(packs.rows.tolist(), decoder.texts(Ragged(tokens.ids.values, packs.offsets)), strict=True)
        for row, some in groupby(texts, key=lambda item: item[0]):
            hits = tuple(number for number, (_, text) in enumerate(some) if wanted in text)
            if hits:
                yield start + row, hits
