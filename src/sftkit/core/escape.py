"""Escape text from data, so that nothing in it can move the cursor, change colors or stay invisible."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

# Control characters except tab and line feed, and invisible characters: direction overrides, zero-width spaces, soft
# hyphens, tags. Joiners (U+200C, U+200D) stay: some scripts and emoji need them.
_INVISIBLE = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f"
)
_INVISIBLE_CHARACTER = re.compile(f"[{_INVISIBLE}]")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
_WHITESPACE = {" ": "·", "\t": "→", "\n": "⏎\n"}


@dataclass(frozen=True)
class TextPart:
    """A part of an escaped text."""

    text: str
    """The text to print."""
    altered: bool
    """Whether it replaces other characters; such parts may be styled differently."""


def visible_parts(text: str, *, whitespace: bool = False, reserved: str = "") -> Iterator[TextPart]:
    r"""Split a text into parts in which every character is visible and harmless to a terminal.

    Control and invisible characters become `\x1b` or `\u202e`, as Python writes them.

    Args:
        text: any text.
        whitespace: show spaces as `·`, tabs as `→`, and `⏎` before every line end.
        reserved: further characters to escape, because they have a meaning in the output.
    """
    class_ = _INVISIBLE + re.escape(reserved) + (" \t\n" if whitespace else "")
    start = 0
    for match in re.finditer(f"[{class_}]", text):
        if match.start() > start:
            yield TextPart(text[start : match.start()], False)
        character = match[0]
        yield TextPart(_WHITESPACE[character] if character in _WHITESPACE else escape_character(character), True)
        start = match.end()
    if start < len(text):
        yield TextPart(text[start:], False)


def escape_to_one_line(text: str, *, reserved: str = "") -> str:
    r"""Escape a name or path from data and put it on one line; `reserved` characters are escaped, too.

    Example:
        >>> escape_to_one_line("a\x1bb\nc")
        'a\\x1bb\\nc'
    """
    return (
        "".join(part.text for part in visible_parts(text, reserved=reserved)).replace("\n", "\\n").replace("\t", "\\t")
    )


def escape_unprintable(text: str) -> str:
    r"""Escape what Python does not count as printable, line ends and all spaces but the common one included.

    Stricter than `escape_to_one_line`, which leaves what some scripts need.

    Example:
        >>> print(escape_unprintable("a\x1b \u200d\n"))
        a\x1b \u200d\n
    """
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def terminal_safe_json(document: str) -> str:
    r"""Write invisible characters of a JSON document as `\uXXXX`. The document keeps its meaning."""
    return _INVISIBLE_CHARACTER.sub(lambda match: _json_escape(match[0]), document)


def ascii_json(document: str) -> str:
    r"""Write every character of a JSON document that is not ASCII as `\uXXXX`. The document keeps its meaning."""
    return _NOT_ASCII.sub(lambda match: _json_escape(match[0]), document)


def escape_character(character: str) -> str:
    r"""A character as Python escapes it: `\x1b`, `\u202e`, `\U000e0041`."""
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _json_escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i] << 8 | units[i + 1]:04x}" for i in range(0, len(units), 2))
