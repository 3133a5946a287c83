"""What a family of templates says: its templates, and the trained texts of conversations rendered with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from template_zoo import conversations
from template_zoo.conversations import Talk


class Verdict(Enum):
    """What is expected where there are no trained texts."""

    REFUSED = "the row is put aside"


Refused = Verdict.REFUSED


@dataclass(frozen=True)
class OrRefused:
    """These texts, or the row is put aside: right or not at all."""

    texts: list[str]


Expected = list[str] | OrRefused | Verdict


@dataclass(frozen=True)
class Style:
    """A chat template.

    source: None for the own template of `tokenizer`. special: the tokens that the family's tokenizers know as one
    piece. header, stop: what opens and ends an assistant turn, for contents that look like turns. content: what the
    template takes, `text`, `parts`, or `both`. reads_row: its `messages` is the whole row.
    """

    name: str
    source: str | None
    special: tuple[str, ...] = ()
    header: str = ""
    stop: str = ""
    content: str = "text"
    reads_row: bool = False
    tokenizer: str = "bpe"

    def talk(self, name: str) -> Talk:
        """The conversation of this name; some are made from what opens and ends the style's own turns."""
        match name:
            case "lookalike":
                return conversations.lookalike(self.header, self.stop)
            case "mimic":
                return conversations.mimic(self.header, self.stop)
            case "trailing stop":
                return conversations.trailing_stop(self.stop)
            case "thought and stop":
                return conversations.thought_and_stop(self.stop)
            case "stop in reasoning":
                return conversations.stop_in_reasoning(self.stop)
        return conversations.TALKS[name]


@dataclass(frozen=True)
class Case:
    """A conversation in a style and what of it must be trained."""

    style: Style
    name: str
    talk: Talk
    expected: Expected

    def __str__(self) -> str:
        return f"{self.style.name}-{self.name}".replace(" ", "_")


def cases(style: Style, expected: Mapping[str, Expected]) -> Iterator[Case]:
    """The cases of a style, by the names of conversations."""
    for name, texts in expected.items():
        yield Case(style, name, style.talk(name), texts)
