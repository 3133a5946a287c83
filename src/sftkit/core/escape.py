"""Text from data made safe and plain to see: nothing in it may move the cursor, change colours or hide."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

# Control characters but for tab and line feed, and characters that cannot be seen: direction overrides, zero-width
# spaces, soft hyphens, tags. Joiners (U+200C, U+200D) stay: scripts and emoji are spelled with them.
_UNSEEN = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f"
)
_UNSEEN_CHARACTER = re.compile(f"[{_UNSEEN}]")
_WHITESPACE = {" ": "·", "\t": "→", "\n": "⏎\n"}


@dataclass(frozen=True)
class TextPart:
    """A stretch of text to print. altered: it stands for something else, and may be styled so."""

    text: str
    altered: bool


def visible_parts(text: str, *, whitespace: bool = False, reserved: str = "") -> Iterator[TextPart]:
    r"""Make every character of a text visible and harmless to a terminal.

    Control and invisible characters become `\x1b` or `\u202e`, as Python writes them.

    Args:
        text: from data, with anything in it.
        whitespace: spaces become `·`, tabs `→`, and `⏎` stands before every line end.
        reserved: characters that mean something on this page, and so are escaped too.
    """
    class_ = _UNSEEN + re.escape(reserved) + (" \t\n" if whitespace else "")
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
    """A name or path from data, escaped, on one line; `reserved` characters are escaped too."""
    return (
        "".join(part.text for part in visible_parts(text, reserved=reserved)).replace("\n", "\\n").replace("\t", "\\t")
    )


def terminal_safe_json(document: str) -> str:
    r"""JSON text with invisible characters written as `\uXXXX`; it still reads as the same document."""
    return _UNSEEN_CHARACTER.sub(lambda match: _json_escape(match[0]), document)


def escape_character(character: str) -> str:
    r"""One character as Python writes it: `\x1b`, `\u202e`, `\U000e0041`."""
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _json_escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i] << 8 | units[i + 1]:04x}" for i in range(0, len(units), 2))
