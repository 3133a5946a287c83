"""Recognizes and builds parts of the Python code that Jinja compiles a template to."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import count


def environment_call(node: ast.AST, name: str) -> ast.Call | None:
    """Return a call of `environment.<name>(...)`; None for other code."""
    if (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == name
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "environment"
    ):
        return node
    return None


def function_call(node: ast.AST) -> tuple[str, ast.Call] | None:
    """Return the name of the function that some code calls by its name, and the call; None for other code."""
    return (node.func.id, node) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else None


def text_constant(node: ast.AST) -> str | None:
    """Return the value of a constant text; None for other code."""
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def integer_constant(node: ast.AST) -> int | None:
    """Return the value of a constant integer, negative ones included; None for other code."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = integer_constant(node.operand)
        return None if value is None else -value
    return node.value if isinstance(node, ast.Constant) and type(node.value) is int else None


def variable(node: ast.AST) -> str | None:
    """Return the name of the variable that is read, also where Jinja checks whether it is set; None for other code.

    Jinja reads a variable as `(undefined(name='x') if l_0_x is missing else l_0_x)`.
    """
    if isinstance(node, ast.IfExp) and isinstance(node.test, ast.Compare) and "missing" in names_in(node.test):
        return variable(node.orelse)
    return node.id if isinstance(node, ast.Name) else None


def names_in(*nodes: ast.AST) -> Iterator[str]:
    """Yield the names in some code, repeated ones repeatedly."""
    return (each.id for node in nodes for each in ast.walk(node) if isinstance(each, ast.Name))


def functions_by_name(tree: ast.AST, kind: str) -> dict[str, str]:
    """Return which variables of compiled code hold a `filters` or `tests` entry of the environment, with its name.

    Example:
        >>> functions_by_name(ast.parse("t_1 = environment.tests['defined']"), "tests")
        {'t_1': 'defined'}
    """
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Subscript) and len(node.targets) == 1:
            target, source = node.targets[0], node.value.value
            if isinstance(target, ast.Name) and isinstance(source, ast.Attribute) and source.attr == kind:
                found[target.id] = text_constant(node.value.slice) or ""
    return found


def expression(source: str, **parts: ast.expr | str | int) -> ast.expr:
    """Build an expression from source in which names stand for other expressions, or for constants.

    Example:
        >>> ast.unparse(expression("X[K]", X=ast.Name("a", ast.Load()), K="b"))
        "a['b']"
    """
    nodes = {name: part if isinstance(part, ast.expr) else ast.Constant(part) for name, part in parts.items()}
    filled: ast.expr = _Filled(nodes).visit(ast.parse(source, mode="eval").body)
    return filled


class Binder:
    """Binds values to new names, so that code can use them several times and evaluates them once."""

    def __init__(self, prefix: str) -> None:
        self._names = (f"{prefix}_{number}" for number in count())

    def new_name(self) -> str:
        """Return a name that no other code uses."""
        return next(self._names)

    def bind(self, node: ast.expr) -> tuple[ast.expr, ast.expr]:
        """Return how to write an expression where it is evaluated first, and where it is used again."""
        if isinstance(node, ast.Name):
            return node, node
        name = self.new_name()
        return ast.NamedExpr(ast.Name(name, ast.Store()), node), ast.Name(name, ast.Load())


class _Filled(ast.NodeTransformer):
    def __init__(self, nodes: dict[str, ast.expr]) -> None:
        self._nodes = nodes

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self._nodes.get(node.id, node)
