"""Checks of what a config says about the formats of shards."""

from __future__ import annotations

from sftkit.config.commands import PreprocessConfig
from sftkit.errors import ConfigError
from sftkit.ordering.packing import is_packed, keeps_rows_whole, pack_length_of
from sftkit.shards.formats.output_formats import PADDED_FORMATS, check_output_formats


def check_formats(config: PreprocessConfig) -> None:
    """Check the formats that a config names, and the padding of sequences for them.

    Raises:
        ConfigError: a format cannot be used, or sequences cannot be padded.
    """
    check_output_formats(config.output_format)
    multiple = config.pad_seq_to_multiple
    if multiple == 1:
        return
    length = pack_length_of(config)
    if not set(config.output_format) & set(PADDED_FORMATS):
        raise ConfigError(
            f"pad_seq_to_multiple={multiple}: only {' and '.join(PADDED_FORMATS)} have padded sequences; add one of "
            "them to output_format, or leave it out"
        )
    if not is_packed(config) or not keeps_rows_whole(config.packing):
        raise ConfigError(f"pad_seq_to_multiple={multiple}: needs packs of whole rows; set packing=bfd")
    if length is not None and length % multiple:
        raise ConfigError(
            f"pad_seq_to_multiple={multiple}: a full pack of {length} tokens is no multiple of it; set "
            f"pack_length={-(-length // multiple) * multiple}"
        )
