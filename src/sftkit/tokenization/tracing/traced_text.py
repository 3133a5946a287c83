"""A text that records what is done with it.

A `TracedText` is a `str` whose real text stands beside it. Whatever a template asks through Python is answered by the
real text and recorded: tests as conditions, pure operations as computed values. Its characters are a random sentinel,
so what reads them in another way, such as a C function, gives a text with the sentinel in it, which ends the trace.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

from sftkit.tokenization.templates.recording import Part, Variable
from sftkit.tokenization.tracing.trace import Trace, UntraceableError

_TESTS = (
    *("startswith", "endswith", "isalnum", "isalpha", "isascii", "isdecimal", "isdigit", "islower", "isnumeric"),
    *("isspace", "istitle", "isupper", "find", "rfind", "index", "rindex", "count"),
)
"""Methods whose result is recorded as a condition."""
_STRIPPING = ("strip", "lstrip", "rstrip")
_OPERATIONS = (*_STRIPPING, *("upper", "lower", "title", "capitalize", "replace", "removeprefix", "removesuffix"))
"""Methods whose result is a text."""
_SPLITS = ("split", "rsplit", "splitlines", "partition", "rpartition")
"""Methods whose result is several texts."""
_MOST_PARTS = 10_000
_UNCHANGED = frozenset({
    "__class__", "__delattr__", "__dir__", "__doc__", "__getattribute__", "__getnewargs__", "__getstate__", "__init__",
    "__init_subclass__", "__new__", "__reduce__", "__reduce_ex__", "__setattr__", "__sizeof__", "__subclasshook__",
})  # fmt: skip


class TracedText(str):
    """A text of a conversation while its template is traced."""

    real: str
    parts: tuple[Part, ...]
    _trace: Trace

    def __new__(cls, trace: Trace, real: str, parts: Iterable[Part]) -> TracedText:
        """Make a text.

        Args:
            trace: where to record what is done with it.
            real: the text itself.
            parts: what it consists of.
        """
        text = super().__new__(cls, trace.sentinel)
        text._trace, text.real, text.parts = trace, real, tuple(part for part in parts if part != "")
        return text

    @property
    def source(self) -> str:
        """The text as an expression of the program."""
        return self._trace.source_of(self.parts)

    def observe(self, expression: str, result: Any) -> Any:
        """Record that an expression has a result, and return the result."""
        conditions = {True: expression, False: f"not {expression}"}
        self._trace.require(conditions[result] if isinstance(result, bool) else f"{expression} == {result!r}")
        return result

    def derive(self, expression: str, real: str, message: int | None = None) -> TracedText:
        """Record the value of an expression, and return it as a text."""
        variable = Variable(self._trace.compute(expression), message, is_stripped=message is not None)
        return TracedText(self._trace, real, [variable])

    def __str__(self) -> str:
        return self

    def __bool__(self) -> bool:
        return bool(self.observe(f"bool({self.source})", bool(self.real)))

    def __len__(self) -> int:
        return int(self.observe(f"len({self.source})", len(self.real)))

    def __eq__(self, other: object) -> Any:
        if not isinstance(other, str):
            return NotImplemented
        return self.observe(f"({self.source} == {source_of(other)})", self.real == real_of(other))

    def __ne__(self, other: object) -> Any:
        if not isinstance(other, str):
            return NotImplemented
        return self.observe(f"({self.source} != {source_of(other)})", self.real != real_of(other))

    def __hash__(self) -> int:
        raise UntraceableError("a hash of a text")

    def __contains__(self, other: object) -> bool:
        if not isinstance(other, str):
            raise UntraceableError("a text is searched for something else")
        return bool(self.observe(f"({source_of(other)} in {self.source})", real_of(other) in self.real))

    def __add__(self, other: Any) -> Any:
        if not isinstance(other, str):
            return NotImplemented
        return concatenate(self._trace, [self, other])

    def __radd__(self, other: Any) -> Any:
        if not isinstance(other, str):
            return NotImplemented
        return concatenate(self._trace, [other, self])

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice):
            bounds = [key.start, key.stop, key.step]
            if not all(bound is None or type(bound) is int for bound in bounds):
                raise UntraceableError("a slice with something else than numbers")
            return self.derive(f"{self.source}[slice{tuple(bounds)!r}]", self.real[key])
        raise UntraceableError("a character of a text")


def source_of(text: str) -> str:
    """Return a text, traced or not, as an expression of the program."""
    return text.source if isinstance(text, TracedText) else repr(text)


def real_of(text: str) -> str:
    """Return the characters of a text, traced or not."""
    return text.real if isinstance(text, TracedText) else text


def concatenate(trace: Trace, texts: Sequence[Any]) -> str:
    """Return texts joined; a plain text if none of them is traced."""
    if not any(isinstance(text, TracedText) for text in texts):
        return "".join(map(str, texts))
    if sum(len(text.parts) for text in texts if isinstance(text, TracedText)) > _MOST_PARTS:
        raise UntraceableError("a text of very many parts")
    parts = [part for text in texts for part in (text.parts if isinstance(text, TracedText) else [str(text)])]
    return TracedText(trace, "".join(real_of(str(text)) for text in texts), parts)


def _arguments(name: str, arguments: Sequence[Any]) -> str:
    """Return the arguments of a method as source."""
    sources = []
    for each in arguments:
        texts = each if isinstance(each, tuple) else [each]
        if not all(text is None or type(text) in (str, int, bool) for text in texts):
            raise UntraceableError(f"{name}() with other values than texts and numbers")
        sources.append(repr(each))
    return ", ".join(sources)


def _tested(name: str) -> Callable[..., Any]:
    def method(self: TracedText, *arguments: Any) -> Any:
        expression = f"{self.source}.{name}({_arguments(name, arguments)})"
        return self.observe(expression, getattr(self.real, name)(*arguments))

    return method


def _computed(name: str) -> Callable[..., TracedText]:
    def method(self: TracedText, *arguments: Any) -> TracedText:
        expression = f"{self.source}.{name}({_arguments(name, arguments)})"
        if name == "replace" and len(arguments[1]) > len(arguments[0]):
            raise UntraceableError("a text that grows with each replacement")
        only = self.parts[0] if len(self.parts) == 1 else None
        message = only.message if isinstance(only, Variable) and name in _STRIPPING else None
        return self.derive(expression, getattr(self.real, name)(*arguments), message)

    return method


def _split(name: str) -> Callable[..., list[TracedText]]:
    def method(self: TracedText, *arguments: Any) -> list[TracedText]:
        real = getattr(self.real, name)(*arguments)
        pieces = self._trace.compute(f"{self.source}.{name}({_arguments(name, arguments)})")
        self.observe(f"len({pieces})", len(real))
        return [self.derive(f"{pieces}[{index}]", piece) for index, piece in enumerate(real)]

    return method


def _untraceable(name: str) -> Callable[..., NoReturn]:
    def method(self: TracedText, *arguments: Any, **options: Any) -> NoReturn:
        raise UntraceableError(f"{name} of a text")

    return method


for _name in {*dir(str), "__rmod__", "__rmul__"} - _UNCHANGED - set(vars(TracedText)):
    if _name in _TESTS:
        setattr(TracedText, _name, _tested(_name))
    elif _name in _OPERATIONS:
        setattr(TracedText, _name, _computed(_name))
    elif _name in _SPLITS:
        setattr(TracedText, _name, _split(_name))
    else:
        setattr(TracedText, _name, _untraceable(_name))
