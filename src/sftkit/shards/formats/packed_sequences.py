"""Sequences of packs as the packed readers of Megatron and NeMo expect them.

These readers shift: of a sequence of n tokens, the inputs are the first n - 1 tokens and the labels the last n - 1.
They read a loss mask that belongs to the labels, so its entry at a position says whether the next token carries a loss.
Source: `fill_packing_strategy` and `GPTSFTPackedDataset.collate_fn` of Megatron-Bridge 0.3.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from sftkit.core.rows import IGNORE_INDEX, INPUT_IDS, LABELS, SEQ_LENGTHS, Ids, Mask, Offsets, lengths_to_offsets
from sftkit.core.weights.loss_weight_column import LOSS_WEIGHTS
from sftkit.shards.arrow_arrays import numpy_view
from sftkit.shards.writing.row_gatherer import GatheredRows, SequenceSelection
from sftkit.shards.writing.shard_format import FormatOptions, WrittenSplit
from sftkit.shards.writing.shard_layout import ShardLayout

HELD_COLUMNS = frozenset({INPUT_IDS, LABELS, SEQ_LENGTHS})
"""The columns that tokens, a loss mask and the starts of sequences hold."""


def problem_with_tokens(layout: ShardLayout, options: FormatOptions) -> str | None:
    """Say why rows of a layout cannot be tokens with a loss mask, padded as the options say; None if they can."""
    if options.pad_seq_to_multiple != 1 and options.eos_token_id is None:
        return "pads sequences with the eos token, and there is none; set a tokenizer, or leave pad_seq_to_multiple out"
    if layout.text_column is not None:
        return f"holds tokens, and the rows are text ({layout.text_column!r}); use handlers that tokenize"
    if LOSS_WEIGHTS in layout.token_columns:
        return "holds a loss mask, and the rows have loss weights other than 0 and 1; leave them out"
    if layout.padding is not None:
        return "is padded by its readers; leave pad_pack_to_multiple_of out, or set pad_seq_to_multiple"
    return None


@dataclass(frozen=True)
class PackedSequences:
    """Some rows of a shard, as sequences one after the other. A row that is no pack is one sequence."""

    ids: Ids
    """Tokens of all sequences, shape (tokens,)."""
    trained: Mask
    """Whether each token carries a loss, shape (tokens,); the first one of a sequence never does."""
    starts: Offsets
    """The first token of each sequence, and the end of the last one, shape (sequences + 1,)."""
    rows: Offsets
    """The first sequence of each row, and the end of the last one, shape (rows + 1,)."""

    @classmethod
    def of(cls, part: GatheredRows) -> PackedSequences:
        """Divide the rows of a shard into their sequences."""
        ids_column = part.table[INPUT_IDS].combine_chunks()
        row_starts = numpy_view(ids_column.offsets, np.int32).astype(np.int64)
        ids = numpy_view(ids_column.values, np.int32)
        trained = np.ones(len(ids), np.bool_)
        if LABELS in part.table.column_names:
            trained = numpy_view(part.table[LABELS].combine_chunks().values, np.int32) != IGNORE_INDEX
        starts, rows = row_starts, np.arange(len(row_starts), dtype=np.int64)
        if SEQ_LENGTHS in part.table.column_names:
            lengths = part.table[SEQ_LENGTHS].combine_chunks()
            starts = lengths_to_offsets(numpy_view(lengths.values, np.int32).astype(np.int64))
            rows = numpy_view(lengths.offsets, np.int32).astype(np.int64)
        trained[starts[:-1][np.diff(starts) > 0]] = False  # nothing before it could predict it
        return cls(ids, trained, starts, rows)

    @property
    def predicts_trained(self) -> Mask:
        """Whether the token after each one carries a loss, shape (tokens,): the loss mask of shifted labels."""
        return np.append(self.trained[1:], False)

    @property
    def token_rows(self) -> Offsets:
        """The first token of each row, and the end of the last one, shape (rows + 1,)."""
        return self.starts[self.rows]

    @property
    def starts_in_rows(self) -> Offsets:
        """The first token of each sequence within its row, shape (sequences,)."""
        return self.starts[:-1] - np.repeat(self.token_rows[:-1], np.diff(self.rows))

    def padded(self, multiple: int, token: int) -> PackedSequences:
        """Pad each sequence so that its labels, one less than its tokens, are a multiple of `multiple`.

        Example:
            >>> trained = np.array([0, 1, 0, 1, 1], np.bool_)
            >>> pack = PackedSequences(np.arange(5), trained, np.array([0, 2, 5]), np.array([0, 2]))
            >>> padded = pack.padded(4, token=9)
            >>> padded.ids.tolist()
            [0, 1, 9, 9, 9, 2, 3, 4, 9, 9]
            >>> padded.predicts_trained.astype(int).tolist()
            [1, 0, 0, 0, 0, 1, 1, 0, 0, 0]
        """
        if multiple == 1:
            return self
        starts = lengths_to_offsets(padded_lengths(np.diff(self.starts), multiple))
        places = np.arange(len(self.ids)) + np.repeat(starts[:-1] - self.starts[:-1], np.diff(self.starts))
        ids, trained = np.full(starts[-1], token, self.ids.dtype), np.zeros(starts[-1], np.bool_)
        ids[places], trained[places] = self.ids, self.trained
        return replace(self, ids=ids, trained=trained, starts=starts)


def padded_lengths(lengths: Offsets, multiple: int) -> Offsets:
    """The lengths of sequences whose labels, one less than the tokens, are padded to a multiple.

    Example:
        >>> padded_lengths(np.array([1, 2, 5, 6]), 4).tolist()
        [1, 5, 5, 9]
    """
    return np.where(lengths > 0, -(-(lengths - 1) // multiple) * multiple + 1, 0)


def packing_metadata(splits: Mapping[str, SequenceSelection], multiple: int, pack_length: int | None) -> Sequence[Any]:
    """What a reader has to know of all packs of each split, to give every batch the same shape (`pad_cu_seqlens`).

    Lengths are those of labels, one less than the tokens of a sequence.
    """
    found = []
    for sequences in splits.values():
        lengths: npt.NDArray[np.int64] = padded_lengths(sequences.sizes.astype(np.int64), multiple) - 1
        packs = np.arange(len(lengths) + 1) if sequences.pack_offsets is None else sequences.pack_offsets
        sums = np.diff(lengths_to_offsets(lengths)[packs])
        size = int(sums.max()) if pack_length is None else pack_length
        found.append(
            {
                "dataset_max_seqlen": int(lengths.max()),
                "max_samples_per_bin": int(np.diff(packs).max()),
                "packing_factor": round(len(lengths) / len(sums), 2),
                "packing_efficiency": round(float(sums.mean()) / size * 100, 2) if size else 0.0,
                "pack_size": size,
                "min_packed_seqlen": int(sums.min()),
            }
        )
    return found


def pad(sequences: PackedSequences, options: FormatOptions) -> PackedSequences:
    """Pad sequences as the options of a run say."""
    if options.pad_seq_to_multiple == 1:
        return sequences
    assert options.eos_token_id is not None, "checked before anything is written"
    return sequences.padded(options.pad_seq_to_multiple, options.eos_token_id)


def metadata_of(splits: Mapping[str, WrittenSplit], options: FormatOptions) -> bytes:
    """Return the JSON of `packing_metadata`."""
    sequences = {name: split.sequences for name, split in splits.items()}
    return json.dumps(packing_metadata(sequences, options.pad_seq_to_multiple, options.pack_length)).encode()
