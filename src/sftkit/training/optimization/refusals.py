"""Turns exceptions by which a library refuses settings into errors that name the keys."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sftkit.core.error_text import single_line
from sftkit.errors import ConfigError, RequirementError


@contextmanager
def refusals_as_config_errors(key: str, value: object, other_key: str) -> Iterator[None]:
    """Name the keys whose values the library gets in this block.

    Args:
        key: chooses a class or function of the library.
        value: its value, possibly an enumeration of transformers.
        other_key: holds more arguments for it.

    Raises:
        RequirementError: the library needs a package that is missing.
        ConfigError: it refuses the values.

    Example:
        >>> with refusals_as_config_errors("optim", "sgd", "optim_args"):
        ...     raise ValueError("momentum is negative")
        Traceback (most recent call last):
        sftkit.errors.ConfigError: optim=sgd, or its optim_args, cannot be used: momentum is negative
    """
    chosen = f"{key}={getattr(value, 'value', value)}"
    try:
        yield
    except ImportError as error:
        raise RequirementError(f"{chosen}: {single_line(error)}") from error
    except (AttributeError, KeyError, NotImplementedError, TypeError, ValueError) as error:
        raise ConfigError(f"{chosen}, or its {other_key}, cannot be used: {single_line(error)}") from error
