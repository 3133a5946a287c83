"""Makes the compiled code of a template record what it writes.

Jinja compiles a template to a generator that yields its output piece by piece. Here the code calls `emit` with each
piece, and `mark` where an iteration of a loop starts whose item is a message of the conversation. Messages are known by
identity, so it does not matter how a template selects or orders them, nor whether two of them are equal.

Nothing else changes: the pieces are those that Jinja's code yields.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from sftkit.tokenization.templates.code_patterns import (
    environment_call,
    function_call,
    integer_constant,
    text_constant,
    variable,
)
from sftkit.tokenization.templates.recording import GENERATION, NO_MESSAGE

PARAMETERS = ("written", "emit", "mark", "message_indices")
"""What recording code gets after the context: the list of pieces, functions that append a piece and a mark, and the
index of each message by its `id`."""


def record_output(root: ast.FunctionDef) -> None:
    """Rewrite the main function of a compiled template.

    Raises:
        ValueError: it writes in a way that cannot be recorded, such as `{% block %}` or `{% include %}`.
    """
    recorder = _Recorder()
    root.body = [each for node in root.body for each in _as_list(recorder.visit(node))]
    root.args.args[1:1] = [ast.arg(name) for name in PARAMETERS]
    if any(isinstance(node, (ast.Yield, ast.YieldFrom)) for node in _nodes_outside_of_functions(root.body)):
        raise ValueError("the template writes in a way that cannot be recorded")


class _Recorder(ast.NodeTransformer):
    def __init__(self) -> None:
        self._loops = 0

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.stmt:
        """Leave macros as they are: their output is a value until the template writes it."""
        return node

    def visit_Expr(self, node: ast.Expr) -> ast.stmt | list[ast.stmt]:
        """Rewrite what writes a piece, and put a `{% generation %}` block between two marks."""
        if not isinstance(node.value, ast.Yield) or node.value.value is None:
            return node
        emit = ast.Expr(ast.Call(ast.Name("emit", ast.Load()), [_without_str(node.value.value)], []))
        if not any(isinstance(each, ast.Attribute) and each.attr == "_generation_support" for each in ast.walk(node)):
            return emit
        return [_mark(GENERATION, str(NO_MESSAGE)), emit, _mark(GENERATION, str(NO_MESSAGE))]

    def visit_If(self, node: ast.If) -> ast.stmt:
        """Rewrite a branch; remove the one by which Jinja makes its function a generator."""
        if integer_constant(node.test) == 0 and ast.unparse(node.body[0]) == "yield None":
            return ast.Pass()
        self.generic_visit(node)
        return node

    def visit_For(self, node: ast.For) -> ast.stmt | list[ast.stmt]:
        """Rewrite a loop; one that writes marks its iterations and its end."""
        item = _item_of_loop(node)
        writes = any(isinstance(each, ast.Yield) for part in node.body for each in ast.walk(part))
        if item is None or not writes:
            self.generic_visit(node)
            return node
        loop, self._loops = self._loops, self._loops + 1
        found = [f"message_indices.get(id({item}))"]
        found += [f"message_at(message_indices, {container}, {item})" for container in _indexed_by(node, item)]
        self.generic_visit(node)
        begins = ast.parse("\n".join(f"if (found := {each}) is not None: pass" for each in found)).body
        for each in begins:
            assert isinstance(each, ast.If)
            each.body = [_mark(loop, "found")]
        node.body = [*begins, *node.body]
        return [node, _mark(loop, str(NO_MESSAGE))]


def _item_of_loop(node: ast.For) -> str | None:
    """Return the variable of a loop that holds its items; None if they are taken apart (`for key, value in`)."""
    target = node.target
    if isinstance(target, ast.Tuple):
        called = function_call(node.iter)
        if called is None or called[0] != "LoopContext":
            return None
        target = target.elts[0]  # the other one is the `loop` of the template
    return target.id if isinstance(target, ast.Name) else None


def _indexed_by(node: ast.For, item: str) -> Iterator[str]:
    """Yield the variables that a loop indexes with its own variable (`messages[i]`)."""
    seen = set()
    for each in ast.walk(node):
        read = environment_call(each, "getitem")
        container = variable(read.args[0]) if read and variable(read.args[1]) == item else None
        if container is not None and container not in seen:
            seen.add(container)
            yield container


def _mark(loop: int, message: str) -> ast.stmt:
    return ast.parse(f"mark((len(written), {loop}, {message}))").body[0]


def _without_str(value: ast.expr) -> ast.expr:
    """Return what `str(...)` gets, if that is text in any case: a sum with a constant text."""
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "str":
        inside = value.args[0]
        while isinstance(inside, ast.BinOp) and isinstance(inside.op, ast.Add):
            if text_constant(inside.left) is not None or text_constant(inside.right) is not None:
                return value.args[0]
            inside = inside.left
    return value


def _as_list(node: ast.stmt | list[ast.stmt]) -> list[ast.stmt]:
    return node if isinstance(node, list) else [node]


def _nodes_outside_of_functions(nodes: Sequence[ast.AST]) -> Iterator[ast.AST]:
    for node in nodes:
        if not isinstance(node, (ast.FunctionDef, ast.Lambda)):
            yield node
            yield from _nodes_outside_of_functions(list(ast.iter_child_nodes(node)))
