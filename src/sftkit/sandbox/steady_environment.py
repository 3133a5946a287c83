"""A sandboxed Jinja environment in which a template gives the same text in every run.

Jinja has filters and functions of chance, and prints the addresses of some objects. Both are refused where they come
from, so that it does not matter how a template reaches them. Everything else is as in Jinja's immutable sandbox.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from typing import Any, NoReturn

from jinja2 import Undefined
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Cycler, Joiner

from sftkit.sandbox.render_limits import TemplateChanceError

_LAZY_FILTERS = (
    *("batch", "items", "map", "reject", "rejectattr", "reverse", "select", "selectattr", "slice", "unique"),
)
_DATA = frozenset({str, int, float, bool, type(None), list, dict})  # checked first, because most values are of these

# Called for every expression of a template: `super()` would take a tenth of the time of a rendering.
_getattr, _getitem = ImmutableSandboxedEnvironment.getattr, ImmutableSandboxedEnvironment.getitem


class SteadyEnvironment(ImmutableSandboxedEnvironment):
    """Jinja's immutable sandbox, without chance.

    Functions, methods and generators can be used, but not printed, because their texts contain addresses. Sets, which
    only the difference of two dictionary views gives, have an order that depends on the process.

    Rendering raises `TemplateChanceError` for all of these.
    """

    intercepted_binops = frozenset({"-"})

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        for name in _LAZY_FILTERS:
            self.filters[name] = _lazy(self.filters[name])
        self.filters["random"] = _refused("the filter random, which chooses by chance")
        self.filters["pprint"] = _printed(self.filters["pprint"])
        lipsum = _refused("the function lipsum, which makes up a text by chance")
        self.globals.update(cycler=_SteadyCycler, joiner=_SteadyJoiner, lipsum=lipsum)
        self.hide_functions()

    def hide_functions(self) -> None:
        """Make the global functions unprintable; call this again after changing them."""
        for name, value in self.globals.items():
            self.globals[name] = hidden(value)

    def getattr(self, obj: Any, attribute: str) -> Any:
        """As in Jinja; a method cannot be printed."""
        value = _getattr(self, obj.value if type(obj) is _Function else obj, attribute)
        return value if type(value) in _DATA else hidden(value)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """As in Jinja; a method cannot be printed."""
        value = _getitem(self, obj.value if type(obj) is _Function else obj, argument)
        return value if type(value) in _DATA else hidden(value)

    def call(__self, __context: Context, __obj: Any, *args: Any, **options: Any) -> Any:  # noqa: N805 - as in Jinja
        """As in Jinja."""
        function = __obj.value if type(__obj) is _Function else __obj
        if not __self.is_safe_callable(function):
            raise SecurityError(f"{__obj!r} is not safely callable")
        return __context.call(function, *args, **options)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """As in Jinja; a difference must not be a set."""
        result = super().call_binop(context, operator, left, right)
        if isinstance(result, set):
            refuse_set()
        return result


def refuse_set() -> NoReturn:
    """Raise `TemplateChanceError` for a set in a template."""
    _refuse("a set (the difference of two dictionary views), whose order is left to chance")


def _refuse(what: str) -> NoReturn:
    raise TemplateChanceError(f"the template uses {what}, so that each run gives other bytes; remove it")


class _Unprintable:
    """A value whose text would contain its address."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        _refuse("a function, method, generator or other object as text, which shows its address")


class _Function(_Unprintable):
    __slots__ = ()

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self.value(*args, **options)


class _Items(_Unprintable):
    """What a lazy filter gives."""

    __slots__ = ()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return next(self.value)


_PRINTABLE = (_Function, Undefined, Macro, LoopContext)  # all of whose texts are without addresses


class _SteadyCycler(Cycler):
    __repr__ = _Unprintable.__repr__


class _SteadyJoiner(Joiner):
    __repr__ = _Unprintable.__repr__


def hidden(value: Any) -> Any:
    """Return a value for templates; a function can be called, but not printed."""
    return _Function(value) if callable(value) and not isinstance(value, _PRINTABLE) else value


def _lazy(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)  # with the marks by which Jinja passes the context
    def wrapper(*args: Any, **options: Any) -> Any:
        value = function(*args, **options)
        return _Items(value) if isinstance(value, Iterator) else value

    return wrapper


def _refused(what: str) -> Callable[..., Any]:
    def refuse(*args: Any, **options: Any) -> NoReturn:
        _refuse(what)

    return refuse


def _printed(pprint: Callable[..., Any]) -> Callable[..., Any]:
    """The filter pprint; it orders keys that cannot be compared by their addresses."""

    def wrapper(value: Any) -> Any:
        _check_keys(value)
        return pprint(value)

    return wrapper


def _check_keys(value: Any) -> None:
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            _refuse("the filter pprint for keys other than text, whose order is left to chance")
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        return
    for each in value:
        _check_keys(each)
