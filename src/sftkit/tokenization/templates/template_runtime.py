"""Functions and types that the rewritten code of templates uses beside those of Jinja."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jinja2.exceptions import SecurityError
from jinja2.runtime import Macro
from jinja2.utils import Namespace

from sftkit.sandbox.steady_environment import refuse_set

SIZED = frozenset({str, list, dict})
"""Types of JSON data with a length and items."""


class TemplateNamespace(Namespace):
    """What `namespace(...)` makes: attributes that a template may set anywhere, as in transformers.

    Jinja's own namespace looks its attributes up in Python code; here they are in `__dict__`.
    """

    def __init__(*args: Any, **attributes: Any) -> None:
        namespace, *values = args
        for name, value in dict(*values, **attributes).items():
            TemplateNamespace.__setitem__(namespace, name, value)

    def __getattribute__(self, name: str) -> Any:
        return object.__getattribute__(self, name)

    def __setitem__(self, name: str, value: Any) -> None:
        if isinstance(name, str) and name.startswith("_"):
            raise SecurityError(f"a namespace cannot have the attribute {name!r}, which starts with an underscore")
        self.__dict__[name] = value

    def __repr__(self) -> str:
        return f"<Namespace {self.__dict__!r}>"


def function_caller(environment: Any) -> Callable[..., Any]:
    """Return a function that calls functions as `environment.call` does; macros, which it always allows, directly."""
    call = environment.call

    def call_function(context: Any, function: Any, /, *args: Any, **options: Any) -> Any:
        return function(*args, **options) if type(function) is Macro else call(context, function, *args, **options)

    return call_function


def subtract(left: Any, right: Any) -> Any:
    """Return a difference, which must not be a set: the order of sets is left to chance."""
    difference = left - right
    if isinstance(difference, set):
        refuse_set()
    return difference


def items_of(container: Any) -> list[Any]:
    """Return the items of what a template loops over.

    Raises:
        TypeError: it has none, or makes them one by one, so that it matters how many the loop takes.
    """
    if isinstance(container, Iterator):
        raise TypeError("a loop with a counter cannot take the items of a lazy filter one by one")
    return list(container)


def item_of(environment: Any, container: Any, key: Any) -> Any:
    """Return `container[key]` as `environment.getitem` does."""
    if type(container) is list and type(key) is int and -len(container) <= key < len(container):
        return container[key]
    if type(container) is dict and type(key) is str and key in container:
        return container[key]
    return environment.getitem(container, key)


def message_at(message_indices: Mapping[int, int], container: Any, index: Any) -> int | None:
    """Return which message of the conversation is at an index of a list; None if there is none."""
    if type(container) is list and type(index) is int and 0 <= index < len(container):
        return message_indices.get(id(container[index]))
    return None
