"""The bundled sample: data, a tokenizer and a tiny model's config, reached by paths that begin with `sample:`."""

from __future__ import annotations

from pathlib import Path

SAMPLE_SCHEME = "sample:"


def sample_path(location: str) -> str | Path:
    """Return the path of a file or folder of the bundled sample.

    Args:
        location: `sample:NAME`; anything else is returned unchanged.

    Example:
        >>> from sftkit import sample_path
        >>> sample_path("sample:pairs.jsonl").is_file(), sample_path("pairs.jsonl")
        (True, 'pairs.jsonl')
    """
    if not location.startswith(SAMPLE_SCHEME):
        return location
    return Path(__file__).parent / location.removeprefix(SAMPLE_SCHEME)
