"""Reads rows of a pickled numpy array of dicts without unpickling: NeMo's packs are such arrays.

Unpickling runs whatever a file asks for. This reader knows the few operations that lists, dicts, numbers, texts and
numpy arrays of numbers are made with, makes these, and refuses any other file. A row is given away as soon as it is
complete, so memory does not grow with the file. Source: `pickletools` of Python, for the operations and their
arguments.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from typing import IO, Any

import numpy as np

from sftkit.shards.readers.numpy_files.pickle_bytes import PickleBytes, PickleError

_ARRAY, _DATA_TYPE, _SCALAR = "ndarray", "dtype", "scalar"
_RECONSTRUCT = "_reconstruct"
_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")
_NAMES = {
    **{(module, _RECONSTRUCT): _RECONSTRUCT for module in _MODULES},
    **{(module, _SCALAR): _SCALAR for module in _MODULES},
    ("numpy", "ndarray"): _ARRAY,
    ("numpy", "dtype"): _DATA_TYPE,
}
"""What a file may name."""

_LENGTHS = {
    b"U": "<B",
    b"\x8c": "<B",
    b"C": "<B",
    b"X": "<I",
    b"B": "<I",
    b"T": "<I",
    b"\x8d": "<Q",
    b"\x8e": "<Q",
    b"\x96": "<Q",
}
"""The operations that push bytes or text, and the type of the length before them."""

_TEXTS = (b"\x8c", b"X", b"\x8d")


class _Name(str):
    """The name of a function or class, which is never called."""


class _Array:
    """A numpy array whose content follows, or that is complete."""

    def __init__(self) -> None:
        self.values: Any = None


class _Mark:
    """The end of the stack when a list, dict or tuple begins."""


class PickledRows:
    """The rows of a pickled array of objects, from the position at which a stream is."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        """Begin to read.

        Args:
            file: a stream at the beginning of the pickle.
            size: bytes of the pickle; no value is larger.
        """
        self._bytes = PickleBytes(file, size)
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._memoized = 0
        self._rows: list[Any] | None = None
        """The list of rows; they are removed from it as soon as they are complete."""
        self._rows_depth = -1
        """The number of marks while rows are pushed."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the rows, dicts of numbers, texts, lists and arrays.

        Raises:
            PickleError: the file has other operations than those of rows, or ends too early.
        """
        try:
            while True:
                operation = self._bytes.take(1)
                if operation == b".":
                    break
                self._run(operation)
                yield from self._complete_rows(operation)
        except (IndexError, TypeError, KeyError, AttributeError, struct.error, OverflowError) as error:
            raise PickleError(f"its pickled rows are damaged ({type(error).__name__})") from None

    def _complete_rows(self, operation: bytes) -> Iterator[dict[str, Any]]:
        """Yield the rows that no later operation changes: those in the list, and those before one that begins."""
        if self._rows is None:
            return
        ready = list(self._rows)
        self._rows.clear()
        if operation == b"}" and len(self._marks) == self._rows_depth:
            begin = self._marks[-1] + 1
            ready += self._stack[begin:-1]
            del self._stack[begin:-1]
        for row in ready:
            if type(row) is not dict:
                raise PickleError("a row is no dict of columns")
            yield row

    def _run(self, operation: bytes) -> None:
        if operation in _LENGTHS:
            self._push_bytes(operation)
        elif operation in b"KMJG\x88\x89":
            self._push_numbers(operation)
        else:
            action = _ACTIONS.get(operation)
            if action is None:
                raise PickleError(f"it has the operation {operation!r}, which rows of numbers do not need")
            action(self)

    def _push_bytes(self, operation: bytes) -> None:
        data = self._bytes.take(self._bytes.unpack(_LENGTHS[operation]))
        self._stack.append(data.decode() if operation in _TEXTS else data)

    def _push_numbers(self, operation: bytes) -> None:
        """Push the numbers from here on as one array, if a list is to get them; else a single number."""
        is_list = bool(self._marks) and type(self._stack[self._marks[-1] - 1]) is list
        values = self._bytes.numbers(operation, single=not is_list)
        self._stack.append(values[0] if len(values) == 1 else np.array(values))

    def _push_long(self) -> None:
        self._stack.append(int.from_bytes(self._bytes.take(self._bytes.unpack("<B")), "little", signed=True))

    def _mark(self) -> None:
        self._marks.append(len(self._stack))
        self._stack.append(_Mark)

    def _pop_mark(self) -> list[Any]:
        """Remove what was pushed since the last mark, and the mark."""
        begin = self._marks.pop()
        values = self._stack[begin + 1 :]
        del self._stack[begin:]
        return values

    def _pop(self, count: int) -> list[Any]:
        if self._marks and len(self._stack) - count <= self._marks[-1]:
            raise PickleError("its pickled rows are damaged (a value is missing)")
        values = self._stack[len(self._stack) - count :]
        if len(values) != count:
            raise PickleError("its pickled rows are damaged (a value is missing)")
        del self._stack[len(self._stack) - count :]
        return values

    def _push_list(self) -> None:
        made: list[Any] = []
        if self._rows is None:
            self._rows, self._rows_depth = made, len(self._marks) + 1
        self._stack.append(made)

    def _append(self) -> None:
        [value] = self._pop(1)
        self._top(list).append(value)

    def _appends(self) -> None:
        values = self._pop_mark()
        self._top(list).extend(values)

    def _set_item(self) -> None:
        name, value = self._pop(2)
        self._set(name, value)

    def _set_items(self) -> None:
        values = self._pop_mark()
        for name, value in zip(values[::2], values[1::2], strict=True):
            self._set(name, value)

    def _set(self, name: Any, value: Any) -> None:
        if type(name) is not str:
            raise PickleError("the name of a column is no text")
        self._top(dict)[name] = _plain(value)

    def _top(self, kind: type) -> Any:
        if type(self._stack[-1]) is not kind:
            raise PickleError(f"its pickled rows are damaged (a {kind.__name__} is missing)")
        return self._stack[-1]

    def _push_name(self, module: Any, name: Any) -> None:
        known = _NAMES.get((module, name))
        if known is None:
            raise PickleError(f"it names {module}.{name}, which rows of numbers do not need")
        self._stack.append(_Name(known))

    def _stack_name(self) -> None:
        self._push_name(*self._pop(2))

    def _reduce(self) -> None:
        """Make an empty array, a data type, or a number: what numpy's functions of these names make."""
        name, arguments = self._pop(2)
        if name == _RECONSTRUCT and type(name) is _Name:
            self._stack.append(_Array())
        elif name == _DATA_TYPE and type(name) is _Name:
            self._stack.append(_number_type(arguments[0]))
        elif name == _SCALAR and type(name) is _Name:
            kind, data = arguments
            self._stack.append(np.frombuffer(data, kind)[0].item())
        else:
            raise PickleError("it calls something that is not numpy's")

    def _build(self) -> None:
        """Fill an array, or set the byte order of a data type."""
        target, state = self._pop(2)
        if type(target) is _Array:
            _, shape, kind, _, content = state
            if kind is None and content is not self._rows:
                raise PickleError("it has an array of objects within a row")
            if type(content) is bytes and kind is not None:
                target.values = np.frombuffer(content, kind)
                if target.values.shape != tuple(shape):
                    raise PickleError("an array has not one dimension, or another size than it says")
        elif isinstance(target, np.dtype):
            if state[1] == ">":
                target = target.newbyteorder(">")
        elif target is not None:
            raise PickleError("it fills something that is not numpy's")
        self._stack.append(target)

    def _memoize(self) -> None:
        self._remember(self._memoized)

    def _remember(self, number: int) -> None:
        """Keep a value that may be used again. Lists and arrays are not: they would fill the memory."""
        self._memoized += 1
        value = self._stack[-1]
        if isinstance(value, (str, np.dtype)) or value is None or (type(value) is bytes and len(value) < 16):
            self._memo[number] = value

    def _recall(self, number: int) -> None:
        if number not in self._memo:
            raise PickleError("two of its rows share a list or an array, which is not read")
        self._stack.append(self._memo[number])


def _number_type(text: Any) -> np.dtype[Any] | None:
    """Return a data type of numbers by its name; None for objects."""
    if type(text) is not str or not re.fullmatch(r"[iufb][1248]|O8?", text):
        raise PickleError(f"it has the data type {text!r}")
    return None if text.startswith("O") else np.dtype(text)


def _plain(value: Any) -> Any:
    """Join the parts of a list of numbers, and return the content of an array."""
    if type(value) is _Array:
        return value.values
    if type(value) is not list or not any(type(part) is np.ndarray for part in value):
        return value
    return np.concatenate([np.atleast_1d(part) for part in value])


def _tuple(count: int) -> Callable[[PickledRows], None]:
    return lambda rows: rows._stack.append(tuple(rows._pop(count)))


_ACTIONS: dict[bytes, Callable[[PickledRows], Any]] = {
    b"\x80": lambda rows: rows._bytes.take(1),
    b"\x95": lambda rows: rows._bytes.take(8),
    b"(": PickledRows._mark,
    b"N": lambda rows: rows._stack.append(None),
    b"\x8a": PickledRows._push_long,
    b"]": PickledRows._push_list,
    b"}": lambda rows: rows._stack.append({}),
    b")": lambda rows: rows._stack.append(()),
    b"t": lambda rows: rows._stack.append(tuple(rows._pop_mark())),
    b"\x85": _tuple(1),
    b"\x86": _tuple(2),
    b"\x87": _tuple(3),
    b"a": PickledRows._append,
    b"e": PickledRows._appends,
    b"s": PickledRows._set_item,
    b"u": PickledRows._set_items,
    b"c": lambda rows: rows._push_name(rows._bytes.line(), rows._bytes.line()),
    b"\x93": PickledRows._stack_name,
    b"R": PickledRows._reduce,
    b"b": PickledRows._build,
    b"\x94": PickledRows._memoize,
    b"q": lambda rows: rows._remember(rows._bytes.unpack("<B")),
    b"r": lambda rows: rows._remember(rows._bytes.unpack("<I")),
    b"h": lambda rows: rows._recall(rows._bytes.unpack("<B")),
    b"j": lambda rows: rows._recall(rows._bytes.unpack("<I")),
}
"""What each operation does; those of numbers and of bytes are in `_run`."""
