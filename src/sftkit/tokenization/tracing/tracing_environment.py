"""A Jinja environment in which a template runs on traced texts.

Python code that only uses the methods and operators of a text is recorded by the text itself. Filters, tests and
functions may look at a text in other ways, so those that are given a traced text are refused, except the ones listed
here. What they return is searched for the characters that a traced text shows to code that does not ask it.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any

from jinja2.nodes import EvalContext
from jinja2.runtime import Context, Macro
from jinja2.utils import Namespace

from sftkit.sandbox.steady_environment import SteadyEnvironment
from sftkit.tokenization.tracing.trace import Trace, UntraceableError
from sftkit.tokenization.tracing.traced_text import TracedText, concatenate, real_of, source_of

_FILTERS = frozenset({
    "capitalize", "count", "d", "default", "first", "items", "last", "length", "list", "lower", "map", "reject",
    "rejectattr", "replace", "reverse", "select", "selectattr", "string", "trim", "upper",
})  # fmt: skip
"""Filters that use only methods and operators of a text."""
_OF_THE_VALUE = frozenset({"replace", "trim"})
"""Those that give their arguments to a method of the value, which may not be traced itself."""
_TESTS = frozenset({
    "!=", "==", "boolean", "callable", "defined", "eq", "equalto", "false", "float", "integer", "mapping", "ne", "none",
    "number", "string", "true", "undefined",
})  # fmt: skip
"""Tests that ask for the type, or use only operators of a text."""
_ALWAYS_TRUE = frozenset({"iterable", "sequence"})
_TEXT_ATTRIBUTES = frozenset(dir(str))


class TracedMessage(dict[str, Any]):
    """A message whose order of keys a template must not ask for."""

    def _refuse(self, *_: object) -> Any:
        raise UntraceableError("the keys of a message")

    __iter__ = __len__ = __eq__ = __ne__ = __reversed__ = __or__ = __ror__ = keys = values = items = copy = _refuse
    __hash__ = None


class TracingEnvironment(SteadyEnvironment):
    """The environment of a template, with filters, tests and calls that are watched."""

    _trace: Trace

    @classmethod
    def of(cls, environment: SteadyEnvironment, trace: Trace) -> TracingEnvironment:
        """Return an environment like another one, which records in a trace."""
        tracing = copy.copy(environment)
        tracing.__class__ = cls
        assert isinstance(tracing, cls)
        tracing._trace = trace
        tracing.concat = lambda texts: concatenate(trace, list(texts))  # type: ignore[method-assign]  # of the class
        filters: dict[str, Any] = dict(environment.filters)
        tests: dict[str, Any] = dict(environment.tests)
        tracing.filters = {
            name: _watched(trace, name, each, allowed=name in _FILTERS) for name, each in filters.items()
        }
        tracing.filters["tojson"] = _traced_tojson(trace, filters["tojson"])
        tracing.tests = {name: _watched(trace, name, each, allowed=name in _TESTS) for name, each in tests.items()}
        for name in _ALWAYS_TRUE:
            tracing.tests[name] = _always_true(tests[name])
        return tracing

    def getattr(self, obj: Any, attribute: str) -> Any:
        """As in Jinja; a traced text has the attributes of a text."""
        if isinstance(obj, TracedText) and attribute not in _TEXT_ATTRIBUTES:
            return self.undefined(obj="", name=attribute)
        return super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """As in Jinja; the items of a traced text are not traced."""
        if isinstance(obj, TracedText):
            raise UntraceableError("an item of a text")
        return super().getitem(obj, argument)

    def call(__self, __context: Context, __obj: Any, *args: Any, **options: Any) -> Any:  # noqa: N805 - as in Jinja
        """As in Jinja; only macros, namespaces and methods of traced texts take traced texts."""
        for bookkeeping in ("_loop_vars", "_block_vars"):  # for functions that take the context; there are none
            options.pop(bookkeeping, None)
        function = getattr(__obj, "value", __obj)
        owner = getattr(function, "__self__", None)
        takes_texts = isinstance(function, Macro) or isinstance(owner, TracedText) or _makes_namespace(function)
        if not takes_texts and _holds_traced([args, options]):
            raise UntraceableError("a function of a text")
        return _checked(__self._trace, super().call(__context, __obj, *args, **options))


class Containment(ast.NodeTransformer):
    """Makes compiled code ask `contains(container, item)` for `item in container`, which Python asks the container."""

    def visit_Compare(self, node: ast.Compare) -> ast.expr:
        """Rewrite a comparison with `in` or `not in`."""
        self.generic_visit(node)
        if not any(isinstance(operator, (ast.In, ast.NotIn)) for operator in node.ops):
            return node
        if len(node.ops) > 1:
            raise UntraceableError("several comparisons at once")
        call = ast.Call(ast.Name("contains", ast.Load()), [node.comparators[0], node.left], [])
        return call if isinstance(node.ops[0], ast.In) else ast.UnaryOp(ast.Not(), call)


def contains(container: Any, item: Any) -> bool:
    """Return whether an item is in a container; a traced text may be searched for, and in."""
    if isinstance(item, TracedText) and type(container) is str:
        return bool(item.observe(f"({source_of(item)} in {container!r})", real_of(item) in container))
    return item in container


def _makes_namespace(function: Any) -> bool:
    return isinstance(function, type) and issubclass(function, Namespace)


def _watched(trace: Trace, name: str, function: Callable[..., Any], *, allowed: bool) -> Callable[..., Any]:
    @wraps(function)  # with the marks by which Jinja passes the context
    def wrapper(*args: Any, **options: Any) -> Any:
        value = args[next((index for index, each in enumerate(args) if not isinstance(each, EvalContext)), 0)]
        is_refused = name in _OF_THE_VALUE and not isinstance(value, TracedText)
        if (is_refused or not allowed) and _holds_traced([args, options]):
            raise UntraceableError(f"the filter or test {name} of a text")
        return _checked(trace, function(*args, **options))

    return wrapper


def _traced_tojson(trace: Trace, function: Callable[..., Any]) -> Callable[..., Any]:
    def tojson(value: Any, *args: Any, **options: Any) -> Any:
        if not isinstance(value, TracedText):
            if _holds_traced([value, args, options]):
                raise UntraceableError("tojson of a value that holds a text")
            return function(value, *args, **options)
        given = f", **{options!r}" if options else ""
        if args or _holds_traced(options):
            raise UntraceableError("tojson with arguments")
        return value.derive(f"tojson({value.source}{given})", function(value.real, **options))

    return tojson


def _always_true(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda value: True if isinstance(value, (TracedText, TracedMessage)) else function(value)


def _holds_traced(value: Any) -> bool:
    """Return whether a value is a traced text, or contains one."""
    if isinstance(value, (TracedText, TracedMessage)):
        return True
    if isinstance(value, Mapping):
        return any(map(_holds_traced, dict.keys(value) if isinstance(value, dict) else value)) or any(
            map(_holds_traced, value.values())
        )
    if isinstance(value, Namespace):
        return True
    return isinstance(value, Sequence) and not isinstance(value, str) and any(map(_holds_traced, value))


def _checked(trace: Trace, value: Any) -> Any:
    """Return a result, if it is not a text that was copied from the characters of a traced text."""
    if type(value) is str and trace.sentinel[:8] in value:
        raise UntraceableError("a copy of a text")
    return value
