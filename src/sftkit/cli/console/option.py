"""An option of a command, as help and the reference show it."""

from __future__ import annotations

from dataclasses import dataclass

from sftkit.config.aliases import PATH_ALIASES

BOOLEAN = "BOOL"
"""The kind of an option that takes true or false."""

_SHORT_NAMES = {path: alias for alias, path in PATH_ALIASES.items()}


@dataclass(frozen=True)
class Option:
    """An option of a command."""

    name: str
    """Dotted key."""

    help: str

    kind: str
    """What its value is, in capitals."""

    default: str
    """"" if there is none, or if the help says it."""

    panel: str
    """Heading under which it is listed."""

    choices: tuple[str, ...] = ()

    @property
    def shown_name(self) -> str:
        """The name to type, which is shorter than the key of some nested options."""
        return _SHORT_NAMES.get(self.name, self.name)

    @property
    def full_help(self) -> str:
        """The help with the choices and the default.

        Example:
            >>> Option("packing", "How rows share a sequence.", "TEXT", "none", "Rows", ("none", "bfd")).full_help
            'How rows share a sequence. One of none, bfd. Default: none.'
        """
        parts = [self.help]
        if self.shown_name != self.name:
            parts.append(f"Key: {self.name}.")
        if self.choices and self.kind != BOOLEAN:
            parts.append(f"One of {', '.join(self.choices)}.")
        if self.default:
            parts.append(f"Default: {self.default}.")
        return " ".join(filter(None, parts))
