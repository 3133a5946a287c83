"""How a config field is declared: one place gives its default, help, aliases and reading rules."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

TRUE_WORDS = ("true", "yes", "on", "1")
FALSE_WORDS = ("false", "no", "off", "0")
"""How YAML files and shells say true and false, in lower case."""

_HELP = "help"
_CHOICES = "choices"
_LITERAL = "literal"
_PANEL = "panel"
_PLUGINS = "plugins"
_REQUIRED = "required"
_WORDS = "words"


def option(
    default: Any = dataclasses.MISSING,
    *,
    help: str,
    factory: Any = dataclasses.MISSING,
    choices: Sequence[str] = (),
    plugins: str = "",
    words: Mapping[str, str] = MappingProxyType({}),
    literal: bool = False,
    panel: str = "Options",
) -> Any:
    """Declare a config field.

    Args:
        default: value when nothing is said; leave out (and `factory` too) for a key that must be given.
        help: one sentence for `--help` and the docs.
        factory: makes the default, for containers.
        choices: the allowed values of a string field.
        plugins: entry point group (without `sftkit.`) whose names are allowed besides `choices`.
        words: other words, in lower case, for some of them (`false` for none).
        literal: the text is a template; `${...}` in it is text, not an OmegaConf interpolation.
        panel: heading under which `--help` lists the option.
    """
    metadata: dict[str, Any] = {
        _HELP: help,
        _CHOICES: tuple(choices),
        _PLUGINS: plugins,
        _WORDS: words,
        _LITERAL: literal,
        _PANEL: panel,
    }
    if factory is not dataclasses.MISSING:
        return dataclasses.field(default_factory=factory, metadata=metadata)
    if default is not dataclasses.MISSING:
        return dataclasses.field(default=default, metadata=metadata)
    # Required keys still need a default so that a subclass may add optional ones before them.
    return dataclasses.field(metadata=metadata | {_REQUIRED: True})


def help_of(field: dataclasses.Field[Any]) -> str:
    """The help sentence of a field ("" where none was given)."""
    return str(field.metadata.get(_HELP, ""))


def choices_of(field: dataclasses.Field[Any]) -> tuple[str, ...]:
    """The allowed values of a field, () when it is free."""
    return tuple(field.metadata.get(_CHOICES, ()))


def plugins_of(field: dataclasses.Field[Any]) -> str:
    """The entry point group whose names are allowed besides the choices, "" if there is none."""
    return str(field.metadata.get(_PLUGINS, ""))


def words_of(field: dataclasses.Field[Any]) -> Mapping[str, str]:
    """Other words for the allowed values of a field, in lower case."""
    words: Mapping[str, str] = field.metadata.get(_WORDS, {})
    return words


def panel_of(field: dataclasses.Field[Any]) -> str:
    """The `--help` heading a field stands under."""
    return str(field.metadata.get(_PANEL, "Options"))


def is_literal(field: dataclasses.Field[Any]) -> bool:
    """Whether the field holds template text, in which `${...}` is not an interpolation."""
    return bool(field.metadata.get(_LITERAL, False))


def is_required(field: dataclasses.Field[Any]) -> bool:
    """Whether the field has no default."""
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`" (did you mean 'x'?)"` for the closest known name, or `""` when nothing comes close."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" (did you mean {matches[0]!r}?)" if matches else ""


def default_of(field: dataclasses.Field[Any]) -> Any:
    """The default value of a field; `None` for a required one."""
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None


def to_plain_data(config: Any) -> Any:
    """A config dataclass as plain dicts and lists (JSON-ready), in field order."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {field.name: to_plain_data(getattr(config, field.name)) for field in dataclasses.fields(config)}
    if isinstance(config, Mapping):
        return {str(key): to_plain_data(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [to_plain_data(value) for value in config]
    return config
