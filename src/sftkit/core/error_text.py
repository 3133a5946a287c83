"""Messages of exceptions that other libraries raise, for use in messages of this package."""

from __future__ import annotations


def first_line(error: BaseException) -> str:
    r"""Return the first line of an exception's message, or the name of its type if the message is empty.

    Example:
        >>> first_line(ValueError("bad value\nin this file")), first_line(KeyError())
        ('bad value', 'KeyError')
    """
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def single_line(error: BaseException) -> str:
    r"""Return the whole message of an exception on one line, or the name of its type if the message is empty.

    Example:
        >>> single_line(ValueError("bad value\n  in this file"))
        'bad value in this file'
    """
    return " ".join(str(error).split()) or type(error).__name__
