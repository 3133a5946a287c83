"""Panics of packages written in Rust, such as tokenizers, which `except Exception` does not catch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sftkit.core.error_text import first_line
from sftkit.errors import TokenizerError


@contextmanager
def panics_as_errors() -> Iterator[None]:
    """Turn a panic into an error; only files of a tokenizer that nobody tried can cause one.

    Examples are a regular expression that takes too many steps, and a normalizer that the library does not expect.

    Raises:
        TokenizerError: there was a panic.
    """
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise TokenizerError(f"the tokenizer cannot be used: {first_line(error)}; choose another one") from None
