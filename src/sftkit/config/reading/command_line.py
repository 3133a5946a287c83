"""Parsing a command line into overrides: `key=value`, `--key value` or `--key=value`.

The options are exactly the fields of the command's config dataclass. Dashes and underscores are interchangeable, and
nested keys are dotted, with list indices in brackets (`--dataprocessor.seed 1`, `datasets[0].sampling=0.3`).
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from typing import Any

from sftkit.config.aliases import PATH_ALIASES
from sftkit.config.binding import Problem, field_types, section_aliases
from sftkit.config.fields import did_you_mean
from sftkit.config.unknown_keys import unknown_key_message
from sftkit.config.words import parse_boolean

_BARE_OVERRIDE = re.compile(r"^([A-Za-z_][\w.\-\[\]]*)=(.*)$", re.DOTALL)
_STEP = re.compile(r"([^.\[\]]+)|\[(\d+)\]")


@dataclass(frozen=True)
class Override:
    """One setting from the command line."""

    path: str
    """Dotted path of the key."""
    annotation: Any
    """Annotation of the key."""
    text: str
    """The value as typed."""


@dataclass(frozen=True)
class CommandLine:
    """A parsed command line."""

    overrides: tuple[Override, ...]
    """Settings, in order."""
    words: tuple[str, ...]
    """Positional arguments."""
    problems: tuple[Problem, ...]


def parse_command_line(argv: Sequence[str], schema: type[Any], extra_keys: Mapping[str, Any]) -> CommandLine:
    """Parse a command line against a config dataclass.

    Args:
        argv: The arguments after the command's name.
        schema: The command's config dataclass.
        extra_keys: More top-level keys and their annotations (`train` accepts those of TrainingArguments).

    Example:
        >>> from sftkit.config.schema.data_config import SplitConfig
        >>> line = parse_command_line(["--train", "0.9", "validation=0.1", "word"], SplitConfig, {})
        >>> [(override.path, override.text) for override in line.overrides], line.words
        ([('train', '0.9'), ('validation', '0.1')], ('word',))
    """
    overrides: list[Override] = []
    words: list[str] = []
    problems: list[Problem] = []
    rest = _Lookahead(argv)
    for token in rest:
        bare = _BARE_OVERRIDE.match(token)
        if token.startswith("--") and len(token) > 2:
            key, equals, text = token[2:].partition("=")
            given: str | None = text if equals else None
        elif bare:
            key, given = bare.groups()
        else:
            words.append(token)
            continue
        located = locate(key, schema, extra_keys)
        if located is None:
            spelled = f"option --{key}" if token.startswith("--") else f"option {key}"
            problems.append(unknown_key(key, spelled, schema, extra_keys))
            while given is None and rest.next_is_value() and not _BARE_OVERRIDE.match(rest.peek() or ""):
                next(rest)  # they may be several, as in `--dataset_mixer_list NAME 1.0`
            continue
        path, annotation = located
        values = [given] if given is not None else _values_after(rest, annotation, several=path != "config")
        if not values:
            problems.append(Problem(path, f"--{key} needs a value"))
        overrides += [Override(path, annotation, value) for value in values]
    return CommandLine(tuple(overrides), tuple(words), tuple(problems))


def locate(key: str, schema: type[Any], extra_keys: Mapping[str, Any]) -> tuple[str, Any] | None:
    """Return the canonical dotted path of a key and its annotation; None if there is no such key."""
    head, *tail = _steps(PATH_ALIASES.get(key.replace("-", "_"), key))
    name = str(head).replace("-", "_")
    name = section_aliases("").get(name, name)
    hints = field_types(schema)
    if name in hints:
        return _descend(name, hints[name], tail)
    if name in extra_keys:
        return ".".join([name, *map(str, tail)]), extra_keys[name] if not tail else Any
    return None


def option_names(schema: type[Any], extra_keys: Collection[str]) -> list[str]:
    """Return the names of all options, apart from nested keys and aliases."""
    return [*field_types(schema), *extra_keys]


def unknown_key(key: str, spelled: str, schema: type[Any], extra_keys: Mapping[str, Any]) -> Problem:
    """Describe a key that does not exist and suggest a similar one.

    Args:
        key: The key.
        spelled: What the user wrote, as in `option --key`.
        schema: The command's config dataclass.
        extra_keys: More top-level keys and their annotations.
    """
    section, _, last = key.rpartition(".")
    parent = locate(section, schema, extra_keys) if section else None
    kind = strip_optional(parent[1]) if parent else None
    if is_dataclass(kind):  # the section exists, but not the key in it
        keys = tuple(field_types(typing.cast(type[Any], kind)))
        hint = did_you_mean(key, [f"{section}.{name}" for name in keys])
        return Problem(key, unknown_key_message(spelled, last, re.sub(r"\[\d+\]", "", section), keys, hint))
    names = option_names(schema, extra_keys)
    aliases = [alias for alias, name in section_aliases("").items() if name in names]
    hint = did_you_mean(key.replace("-", "_"), [*names, *PATH_ALIASES, *aliases, "help"])
    return Problem(key, unknown_key_message(spelled, key, "", names, hint))


def strip_optional(annotation: Any) -> Any:
    """Return `T` for `T | None`, and other annotations unchanged."""
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        inner = [argument for argument in typing.get_args(annotation) if argument is not type(None)]
        return inner[0] if len(inner) == 1 else annotation
    return annotation


def _steps(key: str) -> list[str | int]:
    return [int(index) if index else name for name, index in _STEP.findall(key)] or [key]


def _descend(path: str, annotation: Any, steps: list[str | int]) -> tuple[str, Any] | None:
    """Follow names and list indices through nested annotations."""
    if not steps:
        return path, annotation
    step, *rest = steps
    inner = strip_optional(annotation)
    origin = typing.get_origin(inner)
    if inner is Any or (origin is not None and issubclass(origin, Mapping)):
        return path + "".join(f"[{s}]" if isinstance(s, int) else f".{s}" for s in steps), Any
    if origin is tuple and isinstance(step, int):
        return _descend(f"{path}[{step}]", typing.get_args(inner)[0], rest)
    if is_dataclass(inner) and isinstance(step, str):
        hints = field_types(typing.cast(type[Any], inner))
        name = step.replace("-", "_")
        name = section_aliases(path).get(name, name)
        if name in hints:
            return _descend(f"{path}.{name}", hints[name], rest)
    return None


def _values_after(rest: _Lookahead, annotation: Any, *, several: bool) -> list[str]:
    """Take the values of `--key value`: a boolean without a value is true, and a list takes all values that follow."""
    if strip_optional(annotation) is bool:
        following = rest.peek()
        return [next(rest)] if following is not None and parse_boolean(following) is not None else ["true"]
    values = [next(rest)] if rest.next_is_value() else []
    several = several and annotation == tuple[str, ...]
    while values and several and rest.next_is_value() and not _BARE_OVERRIDE.match(rest.peek() or ""):
        values.append(next(rest))
    return values


class _Lookahead(Iterator[str]):
    """An iterator over words that can return the next word without consuming it."""

    def __init__(self, words: Sequence[str]) -> None:
        self._words = list(words)
        self._position = 0

    def __next__(self) -> str:
        if self._position >= len(self._words):
            raise StopIteration
        self._position += 1
        return self._words[self._position - 1]

    def peek(self) -> str | None:
        return self._words[self._position] if self._position < len(self._words) else None

    def next_is_value(self) -> bool:
        following = self.peek()
        return following is not None and not re.match(r"^--[A-Za-z]", following)
