"""Declaration of config fields: one call of `option` defines the default of a key and everything else about it."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sftkit.redaction import HIDDEN, redact_url

_METADATA_KEY = "sftkit_option"


@dataclass(frozen=True, kw_only=True)
class OptionInfo:
    """What `option` declares about a config field, besides its type and default."""

    help: str
    """One sentence for `--help` and the reference."""
    panel: str = "Options"
    """Heading under which `--help` lists the option."""
    choices: tuple[str, ...] = ()
    """Allowed values of a text field; empty if any text is allowed."""
    plugins: str = ""
    """Entry point group (without `sftkit.`) whose names are allowed besides `choices`."""
    refused: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Values of other tools that are not among the choices, and why."""
    words: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Other spellings of some choices, in lower case, such as `false` for `none`."""
    minimum: float | None = None
    maximum: float | None = None
    literal: bool = False
    """The text is a template: `${...}` in it is not an interpolation."""
    secret: bool = False
    """The value may contain credentials. It is neither shown nor written to a manifest."""
    location: bool = False
    """The value is a path or URL. Credentials in it are neither shown nor written to a manifest."""
    trusted_only: bool = False
    """The key grants trust, or says where or how a run writes. Data configs and manifests, which may come from anyone,
    cannot set it."""
    shorthand_for: str = ""
    """Key of the data config that this key is a short form of. A resolved config contains that key instead."""
    per_run: bool = False
    """The key applies to one run only. It is ignored when a resolved config is used as a config."""
    changes_rows: bool = False
    """The key changes how rows are tokenized, so it is part of the keys of staged units."""
    short_form: bool = False
    """A text or a list in place of the section sets this key of it: `deduplicate: exact` for `deduplicate: {method:
    exact}`."""
    run_identity: bool = False
    """The key changes the losses of a training run, so it is part of the run's identity in checkpoints."""


def option(default: Any = dataclasses.MISSING, *, factory: Any = dataclasses.MISSING, **info: Any) -> Any:
    """Declare a config field.

    Args:
        default: Value of a key that is not set. A key without `default` and `factory` is required.
        factory: Returns the default, for mutable values.
        **info: Fields of `OptionInfo`; `help` is required.

    Example:
        >>> @dataclass
        ... class Config:
        ...     rows: int = option(1, minimum=0, help="Number of rows.")
        >>> [field] = dataclasses.fields(Config)
        >>> option_info(field).minimum
        0
    """
    metadata = {_METADATA_KEY: OptionInfo(**info)}
    if factory is not dataclasses.MISSING:
        return dataclasses.field(default_factory=factory, metadata=metadata)
    if default is not dataclasses.MISSING:
        return dataclasses.field(default=default, metadata=metadata)
    return dataclasses.field(metadata=metadata)


def option_info(field: dataclasses.Field[Any]) -> OptionInfo:
    """Return what `option` declares about a field; the defaults for a field declared without it."""
    info: OptionInfo = field.metadata.get(_METADATA_KEY, OptionInfo(help=""))
    return info


def keys_where(schema: type[Any], condition: Callable[[OptionInfo], object]) -> tuple[str, ...]:
    """Return the keys of a config dataclass whose declaration satisfies a condition, in order.

    Example:
        >>> from sftkit.config.schema.shared_options import DataOptions
        >>> keys_where(DataOptions, lambda info: info.secret)
        ('storage_options',)
    """
    return tuple(field.name for field in dataclasses.fields(schema) if condition(option_info(field)))


def is_required(field: dataclasses.Field[Any]) -> bool:
    """Whether a field has no default."""
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def default_of(field: dataclasses.Field[Any]) -> Any:
    """Return the default value of a field; None for a required one."""
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a hint at the most similar known name, for error messages; an empty text if none is similar.

    Example:
        >>> did_you_mean("max_lenght", ["max_length", "columns"])
        " (did you mean 'max_length'?)"
    """
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" (did you mean {matches[0]!r}?)" if matches else ""


class Interpolated(str):
    """A value such as `pairs-7`, and the text that stands for it in a config, such as `pairs-${oc.env:NUMBER}`."""

    text: str

    @classmethod
    def of(cls, value: str, text: str) -> Interpolated:
        """Return the value with its text."""
        made = cls(value)
        made.text = text
        return made


def to_plain_data(config: Any) -> Any:
    """Convert a config dataclass, or any value in one, to dicts and lists that JSON can represent."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {field.name: to_plain_data(getattr(config, field.name)) for field in dataclasses.fields(config)}
    if isinstance(config, Mapping):
        return {str(key): to_plain_data(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [to_plain_data(value) for value in config]
    return config


def to_public_data(config: Any) -> Any:
    """Convert like `to_plain_data`, but hide secret keys and credentials in URLs, and name the environment's values."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {field.name: _public_value(field, getattr(config, field.name)) for field in dataclasses.fields(config)}
    if isinstance(config, Mapping):
        return {str(key): to_public_data(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [to_public_data(value) for value in config]
    return config.text if isinstance(config, Interpolated) else config


def _public_value(field: dataclasses.Field[Any], value: Any) -> Any:
    info = option_info(field)
    if info.secret:
        return _hidden(value)
    if info.location:
        return _without_credentials(to_public_data(value))
    return to_public_data(value)


def _without_credentials(location: Any) -> Any:
    if isinstance(location, dict):
        return {key: _without_credentials(each) for key, each in location.items()}
    if isinstance(location, list):
        return [redact_url(each) for each in location]
    return location and redact_url(location)


def _hidden(value: Any) -> Any:
    """Replace every value below the keys of a mapping."""
    return {key: _hidden(each) for key, each in value.items()} if isinstance(value, Mapping) else HIDDEN
