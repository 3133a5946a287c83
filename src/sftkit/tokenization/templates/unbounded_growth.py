"""Finds chat templates whose output may grow much faster than the number of operations, by their syntax tree.

minijinja counts the operations of a rendering and stops at a limit. This limits the output if each operation writes no
more than a text of the row or of the template. A template that concatenates a text with itself in a loop doubles it
with every operation, and an allocation that fails in minijinja ends the process. So templates in which text may grow
other than piece by piece are rendered by the reference, whose memory can be limited.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

_MAX_REPEATS = 4
"""Number of places where a template may combine two texts that it made."""

_MAX_FACTOR = 1000
"""Largest factor of a text, and largest indentation."""

_MAX_REPLACEMENT_RATIO = 16
"""How many times longer than the replaced text a replacement may be."""

_MEASURES = frozenset({"length", "count", "startswith", "endswith", "find"})
"""Filters and methods whose result does not contain the text."""
_LENGTHENING = frozenset({"tojson", "replace", "join", "indent", "string"})


def find_unbounded_growth(tree: Any) -> str:
    """Return the construct of a template that may make a text grow too fast; "" if there is none.

    Args:
        tree: syntax tree of the template (`jinja2.nodes.Template`).
    """
    return next(_GrowthFinder(tree).problems(), "")


class _GrowthFinder:
    """Analyzes one template.

    Names that the template assigns are treated as texts that it made; `namespace.attribute` counts as a name. Kept
    names are those whose value lasts from one iteration of a loop to the next (attributes of namespaces), and names
    that are made from them.
    """

    def __init__(self, tree: Any) -> None:
        from jinja2 import nodes

        self._nodes, self._tree = nodes, tree
        assigned = [(self._names_of(node.target), node.node) for node in tree.find_all(nodes.Assign)]
        captured = [(self._names_of(node.target), _CapturedOutput(node)) for node in tree.find_all(nodes.AssignBlock)]
        self._assigned: list[tuple[set[str], Any]] = [*assigned, *captured]
        self._made = {name for names, _ in self._assigned for name in names}
        self._made |= {parameter.name for macro in tree.find_all(nodes.Macro) for parameter in macro.args}
        self._macros = {macro.name for macro in tree.find_all(nodes.Macro)}
        self._kept = self._kept_names()

    def problems(self) -> Iterator[str]:
        """Yield each construct that may make a text grow too fast."""
        n = self._nodes
        repeats = 0
        for _, value in self._assigned:
            if self._mentions(value, self._kept).total() > 1:
                yield "a text that is concatenated with itself"
            repeats += self._mentions(value, self._made).total() > 1
        for call in self._tree.find_all(n.Call):
            repeats += sum(self._mentions(argument, self._made).total() > 1 for argument in call.args)
        if repeats > _MAX_REPEATS:
            yield "texts that are combined too often"
        growing = {name for names, value in self._assigned for name in names if self._grows(names, value)}
        for block in self._tree.find_all((n.For, n.Macro)):
            for output in block.find_all(n.Output):
                if self._mentions(_CapturedOutput(output), growing):
                    yield "a growing text that is written in a loop"
        yield from self._single_operations()

    def _single_operations(self) -> Iterator[str]:
        n = self._nodes
        for product in self._tree.find_all(n.Mul):
            if any(getattr(side, "value", 0) > _MAX_FACTOR for side in (product.left, product.right) if _is_int(side)):
                yield "a large product"
        if any(isinstance(getattr(each.left, "value", None), str) for each in self._tree.find_all(n.Mod)):
            yield "a text that is formatted"
        for each in self._tree.find_all((n.Call, n.Filter)):
            name = each.name if isinstance(each, n.Filter) else getattr(each.node, "attr", "")
            if name == "replace" and not self._is_short_replacement(each.args):
                yield "a replacement that is computed or long"
            options = [*each.args, *(pair.value for pair in each.kwargs)]
            if name in ("indent", "tojson") and any(_is_int(x) and x.value > _MAX_FACTOR for x in options):
                yield "a large indentation"
            if name in ("indent", "join") and any(not isinstance(x, n.Const) for x in options):
                yield f"{name} with a computed argument"

    def _is_short_replacement(self, arguments: list[Any]) -> bool:
        texts = [getattr(argument, "value", None) for argument in arguments[:2]]
        if not all(isinstance(text, str) for text in texts) or len(texts) < 2:
            return False
        old, new = map(str, texts)
        return len(new) <= _MAX_REPLACEMENT_RATIO * max(1, len(old))

    def _grows(self, names: set[str], value: Any) -> bool:
        """Return whether an assignment adds to the value of its target, or captures what a loop writes."""
        n = self._nodes
        if isinstance(value, _CapturedOutput):
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
        """Count how often the texts of some names occur in a value; for alternatives, the larger count."""
        n = self._nodes
        if isinstance(node, _CapturedOutput):
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


class _CapturedOutput:
    """The output of a block, as a value."""

    def __init__(self, node: Any) -> None:
        self.node = node


def _is_int(node: Any) -> bool:
    return isinstance(getattr(node, "value", None), int)
