"""The form in which texts are compared: without differences in case or white space, if these do not matter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TextForm:
    """Which differences between texts do not matter.

    Example:
        >>> TextForm(ignores_case=True, ignores_white_space=True).of("  Where\\n is it? ")
        'where is it?'
    """

    ignores_case: bool
    ignores_white_space: bool

    @property
    def is_exact(self) -> bool:
        """Whether every difference matters."""
        return not self.ignores_case and not self.ignores_white_space

    def of(self, text: str) -> str:
        """Return a text in this form: `str.casefold`, and single spaces between words."""
        if self.ignores_case:
            text = text.casefold()
        return " ".join(text.split()) if self.ignores_white_space else text

    def of_value(self, value: Any) -> Any:
        """Return a value, as JSON has them, with every text in it in this form; keys of mappings stay."""
        if isinstance(value, str):
            return self.of(value)
        if isinstance(value, Mapping):
            return {str(key): self.of_value(each) for key, each in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.of_value(each) for each in value]
        return value
