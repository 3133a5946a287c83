"""What a template does with the texts of a conversation, in the order in which it does it."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

from sftkit.tokenization.templates.recording import Part, Variable


class UntraceableError(BaseException):
    """A template does something with a text that a trace cannot record.

    It is not an `Exception`, because some tests of Jinja catch those and give a result.
    """


@dataclass
class Trace:
    """The steps of a template: computed values and tested conditions, as Python source."""

    sentinel: str = field(default_factory=lambda: f"\x0e{secrets.token_hex(16)}\x0f")
    """The characters that a traced text holds for code that does not ask it. No data can contain them."""
    steps: list[tuple[str | None, str]] = field(default_factory=list)
    """Name and source of a value; or None and the source of a condition that must hold."""

    def compute(self, source: str) -> str:
        """Add a value; return its name. The same source gives the same value."""
        known = next((name for name, computed in self.steps if name is not None and computed == source), None)
        if known is not None:
            return known
        name = f"v{len(self.steps)}"
        self.steps.append((name, source))
        return name

    def require(self, condition: str) -> None:
        """Add a condition on which everything after it depends."""
        if (None, condition) not in self.steps:
            self.steps.append((None, condition))

    def source_of(self, parts: Sequence[Part]) -> str:
        """Return the source of a text that consists of some parts."""
        sources = [part.name if isinstance(part, Variable) else repr(part) for part in parts]
        return sources[0] if len(sources) == 1 else self.compute(f"''.join(({', '.join(sources)},))")
