"""Loading a command's configuration: defaults < data config < `--config` files < command line."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sftkit.config.binding import Problem
from sftkit.config.reading.command_line import Override, parse_command_line, strip_optional
from sftkit.config.reading.config_files import escape
from sftkit.config.reading.merging import EXTRA_KEYS_FIELD, MergedConfig, bind_merged, merge_files, set_value
from sftkit.config.schema.shared_options import SECRET_KEYS
from sftkit.config.untrusted import MANIFEST
from sftkit.errors import ConfigError, UsageError
from sftkit.redaction import HIDDEN

T = TypeVar("T")


def load_config(
    schema: type[T],
    argv: Sequence[str],
    *,
    first_word: str | None = None,
    extra_keys: Mapping[str, Any] | None = None,
    check_extra: Callable[[Mapping[str, Any]], list[str]] = lambda _: [],
) -> T:
    """Load a command's configuration from its command line and the files named there.

    Args:
        schema: The command's config dataclass.
        argv: The arguments after the command's name.
        first_word: The key that a positional first argument sets (`inspect-shards DIR`).
        extra_keys: More top-level keys and their annotations. Their values end up in `training_arguments`.
        check_extra: Returns a message for each invalid value of the extra keys.

    Raises:
        UsageError: The command line is at fault, alone or together with a file.
        ConfigError: A file is at fault. Both errors list all problems.

    Example:
        >>> from sftkit.config.commands import PreprocessConfig
        >>> load_config(PreprocessConfig, ["--output_dir", "shards", "max_seq_length=4096"]).max_seq_length
        4096
    """
    extra_keys = extra_keys or {}
    line = parse_command_line(argv, schema, extra_keys)
    usage = [problem.message for problem in line.problems]
    overrides = list(line.overrides)
    for position, word in enumerate(line.words):
        if position == 0 and first_word:
            overrides.insert(0, Override(first_word, str, word))
        else:
            shown = _without_secret(word, overrides)
            example = f", such as --training_data_path {shown}" if shown == word and _exists(word) else ""
            usage.append(f"unexpected argument {shown!r}; write options as --key value or key=value{example}")

    merged = merge_files(_config_paths(overrides), _last(overrides, "data_config_path"))
    usage += _apply(overrides, merged.tree)
    typed = {override.path for override in overrides}
    config, problems, extra = bind_merged(schema, merged, extra_keys, typed)
    typed_extra = {path.split(".")[0] for path in typed} & set(extra_keys)
    blamed = next(iter(typed_extra), EXTRA_KEYS_FIELD)
    problems += [Problem(blamed, message) for message in check_extra(extra)]
    messages = [*usage, *(_explained(problem, merged) for problem in problems)]
    if usage or any(_is_from_command_line(problem, typed) for problem in problems):
        raise UsageError(messages)
    if config is None or messages:
        raise ConfigError(messages)
    return config


def _explained(problem: Problem, merged: MergedConfig) -> str:
    """The message of a problem; it says so if the key that is missing is one that a manifest does not set."""
    manifest = next((file.path for file in merged.untrusted if file.kind == MANIFEST), None)
    if not problem.missing or manifest is None or "." in problem.path:
        return problem.message
    return f"{problem.message.rstrip('.')}; {manifest} is a manifest, which does not set it: add --{problem.path}"


def _without_secret(word: str, overrides: Sequence[Override]) -> str:
    """Hide what may be the value of a secret key with a typo."""
    if any(override.path.split(".")[0] in SECRET_KEYS for override in overrides):
        return HIDDEN
    name = re.split("[=:{]", word)[0]
    return word if name == word else f"{name}{HIDDEN}"


def _exists(word: str) -> bool:
    with suppress(OSError, ValueError):  # a name that is too long, or that no path can have
        return Path(word).exists()
    return False


def _last(overrides: Sequence[Override], path: str) -> str | None:
    return next((override.text for override in reversed(overrides) if override.path == path), None)


def _config_paths(overrides: Sequence[Override]) -> list[str]:
    return [path for override in overrides if override.path == "config" for path in _split_list(override.text)]


def _apply(overrides: Sequence[Override], merged: DictConfig) -> list[str]:
    """Set the values of the command line in the merged config; returns a message for each that cannot be set."""
    problems: list[str] = []
    lists: dict[str, list[Any]] = {}
    for override in overrides:
        value = _value(override)
        if isinstance(value, list):  # an option that is repeated extends its list
            lists.setdefault(override.path, []).extend(value)
            value = lists[override.path]
        if not set_value(merged, override.path, value):
            problems.append(f"{override.path} cannot be set: the config has no such entry")
    return problems


def _value(override: Override) -> Any:
    """Parse the text of an option. Text stays text here; binding converts "8" and "False" to the type of the key."""
    annotation = strip_optional(override.annotation)
    key = override.path.rsplit(".", 1)[-1]
    if annotation == tuple[str, ...]:
        return escape({key: _split_list(override.text)})[key]
    if annotation in (str, int, float, bool) or isinstance(annotation, str):
        return escape({key: override.text})[key]
    try:
        parsed = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={override.text}"]))
    except (OmegaConfBaseException, yaml.YAMLError):
        return override.text
    assert isinstance(parsed, dict)
    return escape({key: parsed["value"]})[key]


def _split_list(text: str) -> list[str]:
    """Parse `[a, b]` as a list and anything else as a single item, since paths may contain commas and spaces."""
    if text.startswith("[") and text.endswith("]"):
        with suppress(yaml.YAMLError):  # a pattern such as [ab]*.jso[n]
            return [str(item) for item in yaml.safe_load(text)]
    return [text]


def _is_from_command_line(problem: Problem, typed: set[str]) -> bool:
    """Whether the command line is at fault: it set the key, or it lacks a key that must be set there."""
    if problem.missing and "." not in problem.path:
        return True
    return any(problem.path == key or problem.path.startswith((f"{key}.", f"{key}[")) for key in typed)
