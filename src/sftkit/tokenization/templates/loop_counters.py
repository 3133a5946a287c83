"""Makes the loops of compiled code count their iterations, where Jinja keeps an object for each loop.

A loop that only asks for `loop.index`, `loop.first` and the like needs a counter. Jinja updates a `LoopContext` in each
iteration and reads its properties through the sandbox.
"""

from __future__ import annotations

import ast

from sftkit.tokenization.templates.code_patterns import (
    environment_call,
    expression,
    function_call,
    functions_by_name,
    names_in,
    text_constant,
)

_VALUES = {
    "index0": "I",
    "index": "I + 1",
    "first": "I == 0",
    "last": "I + 1 == N",
    "length": "N",
    "revindex": "N - I",
    "revindex0": "N - I - 1",
    "previtem": "S[I - 1] if I else undefined('there is no previous item')",
    "nextitem": "S[I + 1] if I + 1 < N else undefined('there is no next item')",
}
_GENERATORS = frozenset({"map", "select", "reject", "selectattr", "rejectattr", "items", "batch", "slice", "unique"})


class LoopCounters(ast.NodeTransformer):
    """Rewrites the loops of a compiled template, inner ones first."""

    def __init__(self, tree: ast.AST) -> None:
        """Prepare to rewrite a tree: find its functions that are generators, whose items must stay lazy."""
        self._count = 0
        self._lazy = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        self._lazy |= {name for name, kind in functions_by_name(tree, "filters").items() if kind in _GENERATORS}

    def visit_For(self, node: ast.For) -> ast.stmt | list[ast.stmt]:
        """Rewrite a loop with a `LoopContext` of which only counters are used."""
        self.generic_visit(node)
        called = function_call(node.iter)
        if called is None or called[0] != "LoopContext" or len(called[1].args) != 2:
            return node
        assert isinstance(node.target, ast.Tuple)
        item, loop = node.target.elts
        items = called[1].args[0]
        if not isinstance(loop, ast.Name) or not self._lazy.isdisjoint(names_in(items)):
            return node
        if not _has_only_counters(node.body, loop.id):
            return node
        names = {letter: f"loop_{self._count}_{letter}" for letter in "INS"}
        self._count += 1
        counters: dict[str, ast.expr] = {letter: ast.Name(name, ast.Load()) for letter, name in names.items()}
        node.body = [_Counters(loop.id, counters).visit(each) for each in node.body]
        node.target = ast.Tuple([ast.Name(names["I"], ast.Store()), item], ast.Store())
        node.iter = expression("enumerate(S)", **counters)
        items = expression("V if type(V := X) is list else items_of(V)".replace("V", f"{names['S']}_of"), X=items)
        return [
            ast.Assign([ast.Name(names["S"], ast.Store())], items),
            ast.Assign([ast.Name(names["N"], ast.Store())], expression("len(S)", **counters)),
            node,
        ]


def _has_only_counters(body: list[ast.stmt], loop: str) -> bool:
    """Return whether a body uses its loop only for counters, and not in macros, which may be called after the loop."""
    nodes = [each for part in body for each in ast.walk(part)]
    if any(isinstance(each, ast.FunctionDef) and loop in names_in(each) for each in nodes):
        return False
    return sum(_counter(each, loop) is not None for each in nodes) == list(names_in(*body)).count(loop)


def _counter(node: ast.AST, loop: str) -> str | None:
    """Return how to compute the attribute of a loop that some code reads; None for other code."""
    read = environment_call(node, "getattr")
    if read and isinstance(read.args[0], ast.Name) and read.args[0].id == loop:
        return _VALUES.get(text_constant(read.args[1]) or "")
    return None


class _Counters(ast.NodeTransformer):
    """Replaces the attributes of a loop by expressions of its counters."""

    def __init__(self, loop: str, counters: dict[str, ast.expr]) -> None:
        self._loop, self._counters = loop, counters

    def visit_Call(self, node: ast.Call) -> ast.expr:
        source = _counter(node, self._loop)
        if source is not None:
            return expression(source, **self._counters)
        self.generic_visit(node)
        return node
