"""Which templates could write more than their steps let expect, judged by their syntax tree.

minijinja counts the steps of a rendering, and ends it at a number of them. That bounds what it writes where a step
writes a text of the row or of the template, and no more. A template that puts a text together, and then puts that
together with itself, doubles it at every step; an allocation that fails there ends the process. So a template that lets
what it made grow in other ways than piece by piece is left to the reference, whose memory can be bounded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

_MOST_REPEATS = 4
"""Places where a template may put what it made together with what it made, or is given, once more."""

_MOST_TIMES = 1000
"""Largest factor of a text, and largest indentation."""

_MOST_LONGER = 16
"""How much longer what replaces a text may be than the text."""

_MEASURES = frozenset({"length", "count", "startswith", "endswith", "find"})
_LENGTHENING = frozenset({"tojson", "replace", "join", "indent", "string"})


def find_unbounded_growth(tree: Any) -> str:
    """What in a template may let a text grow faster than step by step, "" for nothing."""
    return next(_Growth(tree).found(), "")


class _Growth:
    """One template. A name that it sets is a text that it made; `namespace.attribute` is such a name, too.

    kept: names that carry what they hold from turn to turn of a loop, and names made of them.
    """

    def __init__(self, tree: Any) -> None:
        from jinja2 import nodes

        self._nodes, self._tree = nodes, tree
        assigned = [(self._names_of(node.target), node.node) for node in tree.find_all(nodes.Assign)]
        captured = [(self._names_of(node.target), _Captured(node)) for node in tree.find_all(nodes.AssignBlock)]
        self._assigned: list[tuple[set[str], Any]] = [*assigned, *captured]
        self._made = {name for names, _ in self._assigned for name in names}
        self._made |= {parameter.name for macro in tree.find_all(nodes.Macro) for parameter in macro.args}
        self._macros = {macro.name for macro in tree.find_all(nodes.Macro)}
        self._kept = self._kept_names()

    def found(self) -> Iterator[str]:
        """Each thing that may let a text grow."""
        n = self._nodes
        repeats = 0
        for _, value in self._assigned:
            if self._mentions(value, self._kept).total() > 1:
                yield "a text put together with itself"
            repeats += self._mentions(value, self._made).total() > 1
        for call in self._tree.find_all(n.Call):
            repeats += sum(self._mentions(argument, self._made).total() > 1 for argument in call.args)
        if repeats > _MOST_REPEATS:
            yield "texts put together over and over"
        growing = {name for names, value in self._assigned for name in names if self._grows(names, value)}
        for block in self._tree.find_all((n.For, n.Macro)):
            for output in block.find_all(n.Output):
                if self._mentions(_Captured(output), growing):
                    yield "a growing text written in a loop"
        yield from self._single_steps()

    def _single_steps(self) -> Iterator[str]:
        n = self._nodes
        for product in self._tree.find_all(n.Mul):
            if any(getattr(side, "value", 0) > _MOST_TIMES for side in (product.left, product.right) if _is_int(side)):
                yield "a large product"
        if any(isinstance(getattr(each.left, "value", None), str) for each in self._tree.find_all(n.Mod)):
            yield "a text that is formatted"
        for each in self._tree.find_all((n.Call, n.Filter)):
            name = each.name if isinstance(each, n.Filter) else getattr(each.node, "attr", "")
            if name == "replace" and not self._replaces_shortly(each.args):
                yield "a replacement that is computed, or long"
            options = [*each.args, *(pair.value for pair in each.kwargs)]
            if name in ("indent", "tojson") and any(_is_int(x) and x.value > _MOST_TIMES for x in options):
                yield "a large indentation"
            if name in ("indent", "join") and any(not isinstance(x, n.Const) for x in options):
                yield f"{name} with something computed"

    def _replaces_shortly(self, arguments: list[Any]) -> bool:
        texts = [getattr(argument, "value", None) for argument in arguments[:2]]
        if not all(isinstance(text, str) for text in texts) or len(texts) < 2:
            return False
        old, new = map(str, texts)
        return len(new) <= _MOST_LONGER * max(1, len(old))

    def _grows(self, names: set[str], value: Any) -> bool:
        """Whether an assignment adds to what its target holds, or collects what a loop writes."""
        n = self._nodes
        if isinstance(value, _Captured):
            return any(True for _ in value.node.find_all(n.For))
        is_counter = isinstance(value, n.Add) and (_is_int(value.right) or _is_int(value.left))
        kept = {name for name in names if "." in name}
        return not is_counter and bool(self._mentions(value, kept)) and not isinstance(value, (n.Filter, n.Call))

    def _kept_names(self) -> set[str]:
        kept = {name for name in self._made if "." in name}
        while True:
            more = {name for names, value in self._assigned if self._mentions(value, kept) for name in names}
            if more <= kept:
                return kept
            kept |= more

    def _names_of(self, target: Any) -> set[str]:
        n = self._nodes
        return {self._name(node) for node in [target, *target.find_all((n.Name, n.NSRef))]} - {""}

    def _name(self, node: Any) -> str:
        n = self._nodes
        if isinstance(node, n.NSRef):
            return f"{node.name}.{node.attr}"
        if isinstance(node, n.Getattr) and isinstance(node.node, n.Name):
            return f"{node.node.name}.{node.attr}"
        return node.name if isinstance(node, n.Name) else ""

    def _mentions(self, node: Any, names: set[str]) -> Counter[str]:
        """How often the text of these names is in a value; where one of two is chosen, that of either."""
        n = self._nodes
        if isinstance(node, _Captured):
            written = [node.node] if isinstance(node.node, n.Output) else node.node.find_all(n.Output)
            parts = [self._mentions(part, names) for output in written for part in output.nodes]
            return sum(parts, Counter())
        if (name := self._name(node)) in names:
            return Counter([name])
        if isinstance(node, (n.Compare, n.Test, n.Not)):
            return Counter()
        if isinstance(node, n.CondExpr):
            other = self._mentions(node.expr2, names) if node.expr2 is not None else Counter[str]()
            return self._mentions(node.expr1, names) | other
        if isinstance(node, (n.And, n.Or)):
            return self._mentions(node.left, names) | self._mentions(node.right, names)
        if isinstance(node, n.Getitem):
            return self._mentions(node.node, names)
        done = node.name if isinstance(node, n.Filter) else getattr(getattr(node, "node", None), "attr", "")
        if done in _MEASURES:
            return Counter()
        found: Counter[str] = sum((self._mentions(child, names) for child in node.iter_child_nodes()), Counter())
        lengthens = done in _LENGTHENING or self._name(getattr(node, "node", None)) in self._macros
        return found + found if lengthens else found


class _Captured:
    """What a block writes, as a value."""

    def __init__(self, node: Any) -> None:
        self.node = node


def _is_int(node: Any) -> bool:
    return isinstance(getattr(node, "value", None), int)
