"""A family of templates: the templates, and the trained text of conversations rendered with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from template_zoo import conversations
from template_zoo.conversations import Conversation


class Verdict(Enum):
    """Expected instead of trained texts."""

    QUARANTINED = "the row is quarantined"


Quarantined = Verdict.QUARANTINED


@dataclass(frozen=True)
class OrQuarantined:
    """Either exactly these texts are trained, or the row is quarantined."""

    texts: list[str]


Expected = list[str] | OrQuarantined | Verdict


@dataclass(frozen=True)
class Style:
    """A chat template and its properties."""

    name: str
    source: str | None
    """The template; None for the template of `tokenizer`."""
    special: tuple[str, ...] = ()
    """Special tokens of the family's tokenizers."""
    header: str = ""
    """Start of an assistant turn, for contents that look like turns."""
    stop: str = ""
    """End of an assistant turn, for contents that look like turns."""
    content: str = "text"
    """The form of content that the template takes: `text`, `parts` or `both`."""
    reads_row: bool = False
    """Whether its `messages` is the whole row."""
    tokenizer: str = "bpe"

    def conversation(self, name: str) -> Conversation:
        """The conversation of this name; some contain the start or end of the style's turns."""
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
        return conversations.CONVERSATIONS[name]


@dataclass(frozen=True)
class Case:
    """A conversation in a style, and its trained texts."""

    style: Style
    name: str
    conversation: Conversation
    expected: Expected

    def __str__(self) -> str:
        return f"{self.style.name}-{self.name}".replace(" ", "_")


def cases(style: Style, expected: Mapping[str, Expected]) -> Iterator[Case]:
    """The cases of a style, by name of the conversation."""
    for name, texts in expected.items():
        yield Case(style, name, style.conversation(name), texts)
