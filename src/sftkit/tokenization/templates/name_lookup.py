"""Makes the compiled code of a template look up names from outside once, and drops bookkeeping that nothing reads.

In every iteration of a loop, Jinja's code looks up the names that the loop may assign and those that come from outside,
and copies assigned ones to a dictionary for functions that take the context. No function of chat templates does.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from typing import Any

from sftkit.tokenization.templates.code_patterns import function_call, text_constant

_BOOKKEEPING = "_loop_vars"
_LOOKUP = "resolve"


def takes_context(functions: Mapping[str, Any]) -> bool:
    """Return whether one of the functions that a template may call takes the context of the template."""
    from jinja2.utils import _PassArg

    return any(_PassArg.from_obj(getattr(each, "value", each)) is _PassArg.context for each in functions.values())


class NameLookup(ast.NodeTransformer):
    """Rewrites the lookups of names in the main function of a compiled template."""

    def __init__(self, root: ast.FunctionDef) -> None:
        """Prepare to rewrite: find the names that the template assigns outside of loops, whose values change."""
        self._changing = set(_assigned_outside_of_loops(root))
        self._found: dict[str, str] = {}

    def rewrite(self, root: ast.FunctionDef) -> ast.FunctionDef:
        """Rewrite the main function."""
        first = next(index for index, node in enumerate(root.body) if _assigned(node) == _LOOKUP)
        body = [self.visit(node) for node in root.body]
        lookups = [ast.parse(f"{name} = {_LOOKUP}({key!r})").body[0] for key, name in self._found.items()]
        root.body = [*body[: first + 1], *lookups, *(node for node in body[first + 1 :] if node is not None)]
        return root

    def visit_Call(self, node: ast.Call) -> ast.expr:
        """Replace a lookup by the variable that holds its result."""
        self.generic_visit(node)
        node.keywords = [each for each in node.keywords if each.arg != _BOOKKEEPING]
        called = function_call(node)
        key = text_constant(node.args[0]) if called and called[0] == _LOOKUP else None
        if key is None or key in self._changing:
            return node
        return ast.Name(self._found.setdefault(key, f"outer_{len(self._found)}"), ast.Load())

    def visit_Assign(self, node: ast.Assign) -> ast.stmt | None:
        """Drop an assignment to the bookkeeping."""
        target = node.targets[0]
        target = target.value if isinstance(target, ast.Subscript) else target
        if isinstance(target, ast.Name) and target.id == _BOOKKEEPING:
            return None
        self.generic_visit(node)
        return node

    def visit_Expr(self, node: ast.Expr) -> ast.stmt | None:
        """Drop an update of the bookkeeping."""
        if isinstance(node.value, ast.Call) and ast.unparse(node.value.func) == f"{_BOOKKEEPING}.update":
            return None
        self.generic_visit(node)
        return node


def _assigned(node: ast.stmt) -> str | None:
    target = node.targets[0] if isinstance(node, ast.Assign) else None
    return target.id if isinstance(target, ast.Name) else None


def _assigned_outside_of_loops(root: ast.FunctionDef) -> Iterator[str]:
    """Yield the names that the code sets in `context.vars`."""
    for node in ast.walk(root):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).startswith("context.vars["):
            target = node.targets[0]
            assert isinstance(target, ast.Subscript)
            yield text_constant(target.slice) or ""
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "context.vars.update":
            yield from (str(each.value) for each in ast.walk(node) if isinstance(each, ast.Constant))
