"""Makes the compiled code of a template read its values directly, where Jinja's sandbox reads them through functions.

Jinja compiles `message.role` to `environment.getattr(message, 'role')`, which tries an attribute, then an item, and
checks whether the sandbox allows the result: about a microsecond for each. Here the code first asks for the exact type:

    (message['role'] if 'role' in message else undefined(obj=message, name='role'))
    if type(message) is dict else environment.getattr(message, 'role')

Each rewritten expression gives the value that Jinja's gives: it is only taken for values of the exact types of JSON
data, for which the result of Jinja's function is known, and otherwise it calls Jinja's function. Code that is not
recognized stays as it is.
"""

from __future__ import annotations

import ast

from sftkit.tokenization.templates.code_patterns import (
    Binder,
    environment_call,
    expression,
    function_call,
    functions_by_name,
    integer_constant,
    text_constant,
    variable,
)

_DICT_ATTRIBUTES = frozenset(dir(dict))
_TEXT_METHODS = frozenset({
    "strip", "lstrip", "rstrip", "split", "rsplit", "splitlines", "startswith", "endswith", "replace", "upper", "lower",
    "title", "capitalize", "find", "rfind", "index", "count", "removeprefix", "removesuffix", "isdigit", "join",
})  # fmt: skip
_DICT_METHODS = frozenset({"items", "keys", "values", "get"})
_LOOP_ARGUMENTS = frozenset({"_loop_vars", "_block_vars"})

_DICT_ITEM = "((B[K] if K in B else undefined(obj=B, name=K)) if type(A) is dict else environment.F(B, K))"


class ValueAccess(ast.NodeTransformer):
    """Rewrites the expressions of a compiled template."""

    def __init__(self, tree: ast.AST) -> None:
        """Prepare to rewrite a tree: find what its variables hold."""
        self._binder = Binder("v")
        self._tests, self._filters = functions_by_name(tree, "tests"), functions_by_name(tree, "filters")
        self._namespaces = {
            name
            for node in ast.walk(tree)
            if (called := function_call(node)) is not None and called[0] == "isinstance"
            for name in [variable(called[1].args[0])]
            if name is not None
        }

    def visit_Call(self, node: ast.Call) -> ast.expr:
        """Rewrite a call, its arguments first."""
        if (read := environment_call(node, "getattr")) is not None:
            return self._attribute(node, read)
        if (read := environment_call(node, "getitem")) is not None:
            return self._item(node, read)
        if (binary := environment_call(node, "call_binop")) is not None and text_constant(binary.args[1]) == "-":
            first, again = self._bound(binary.args[2])
            other = self.visit(binary.args[3])
            return expression("C - B if type(A) is int else subtract(C, B)", A=first, C=again, B=other)
        if (called := environment_call(node, "call")) is not None:
            method = environment_call(called.args[1], "getattr")
            if method is not None and (rewritten := self._method(called, method)) is not None:
                return rewritten
            self.generic_visit(called)
            called.func = ast.Name("call_function", ast.Load())
            return called
        if (named := function_call(node)) is not None and len(node.args) == 1 and not node.keywords:
            if named[0] in self._tests:
                return self._test(self._tests[named[0]], node)
            if self._filters.get(named[0]) == "trim":
                first, again = self._bound(node.args[0])
                return expression("B.strip() if type(A) is str else F(B)", A=first, B=again, F=node.func)
        return self._visited(node)

    def visit_If(self, node: ast.If) -> ast.If:
        """Rewrite a branch."""
        node.test = self._truth(node.test)
        node.body = [self.visit(each) for each in node.body]
        node.orelse = [self.visit(each) for each in node.orelse]
        return node

    def visit_IfExp(self, node: ast.IfExp) -> ast.expr:
        """Rewrite a conditional expression."""
        if variable(node) is not None:
            return node
        node.test = self._truth(node.test)
        node.body, node.orelse = self.visit(node.body), self.visit(node.orelse)
        return node

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.expr:
        """Rewrite a negation."""
        node.operand = self._truth(node.operand) if isinstance(node.op, ast.Not) else self.visit(node.operand)
        return node

    def _truth(self, node: ast.expr) -> ast.expr:
        """Rewrite an expression of which only the truth matters: a missing item is as false as None."""
        if isinstance(node, ast.BoolOp):
            node.values = [self._truth(each) for each in node.values]
            return node
        read = environment_call(node, "getattr") or environment_call(node, "getitem")
        name = text_constant(read.args[1]) if read else None
        if (
            read
            and name is not None
            and name not in _DICT_ATTRIBUTES
            and variable(read.args[0]) not in self._namespaces
        ):
            first, again = self._bound(read.args[0])
            slow = ast.Call(read.func, [again, read.args[1]], [])
            return expression("B.get(K) if type(A) is dict else S", A=first, B=again, K=name, S=slow)
        rewritten: ast.expr = self.visit(node)
        return rewritten

    def _attribute(self, node: ast.Call, read: ast.Call) -> ast.expr:
        """Rewrite `environment.getattr(value, name)`."""
        name = text_constant(read.args[1])
        if name is None or name in _DICT_ATTRIBUTES or name.startswith("_"):
            return self._visited(node)
        first, again = self._bound(read.args[0])
        if variable(read.args[0]) in self._namespaces:
            source = "D[K] if type(A) is namespace_type and K in (D := B.__dict__) else environment.getattr(B, K)"
            named = source.replace("D", self._binder.new_name())
            return expression(named, A=first, B=again, K=name)
        return expression(_DICT_ITEM.replace("F", "getattr"), A=first, B=again, K=name)

    def _item(self, node: ast.Call, read: ast.Call) -> ast.expr:
        """Rewrite `environment.getitem(value, key)`."""
        name, index = text_constant(read.args[1]), integer_constant(read.args[1])
        if name is not None and name not in _DICT_ATTRIBUTES:
            first, again = self._bound(read.args[0])
            return expression(_DICT_ITEM.replace("F", "getitem"), A=first, B=again, K=name)
        if index is not None:
            first, again = self._bound(read.args[0])
            shortest = index if index >= 0 else -index - 1
            source = "B[I] if type(A) is list and len(B) > N else environment.getitem(B, I)"
            return expression(source, A=first, B=again, I=read.args[1], N=shortest)
        return expression("item_of(environment, A, I)", A=self.visit(read.args[0]), I=self.visit(read.args[1]))

    def _method(self, called: ast.Call, method: ast.Call) -> ast.expr | None:
        """Rewrite a call of a method of a text or a dictionary with simple arguments; None if it is another call."""
        name = text_constant(method.args[1])
        arguments = called.args[2:]
        simple = all(isinstance(each, ast.Constant) or variable(each) is not None for each in arguments)
        kind = "str" if name in _TEXT_METHODS else "dict" if name in _DICT_METHODS else None
        if name is None or kind is None or not simple or {each.arg for each in called.keywords} - _LOOP_ARGUMENTS:
            return None
        first, again = self._bound(method.args[0])
        fast = ast.Call(ast.Attribute(again, name, ast.Load()), arguments, [])
        looked_up = ast.Call(method.func, [again, method.args[1]], [])
        slow = ast.Call(called.func, [called.args[0], looked_up, *arguments], called.keywords)
        return expression("C if type(A) is T else S", A=first, C=fast, S=slow, T=ast.Name(kind, ast.Load()))

    def _test(self, name: str, node: ast.Call) -> ast.expr:
        """Rewrite a test (`is defined`)."""
        value = node.args[0]
        read = environment_call(value, "getattr")
        key = text_constant(read.args[1]) if read else None
        if name == "defined" and read and key is not None and key not in _DICT_ATTRIBUTES:
            first, again = self._bound(read.args[0])
            slow = ast.Call(node.func, [ast.Call(read.func, [again, read.args[1]], [])], [])
            has_key = "K in B and not isinstance(B[K], Undefined) if type(A) is dict else S"
            return expression(has_key, A=first, B=again, K=key, S=slow)
        source = {
            "defined": "not isinstance(V, Undefined)",
            "none": "V is None",
            "true": "V is True",
            "false": "V is False",
            "string": "isinstance(V, str)",
        }.get(name)
        if source is not None:
            return expression(source, V=self.visit(value))
        accepted = {"mapping": "type(A) is dict", "iterable": "type(A) in SIZED", "sequence": "type(A) in SIZED"}
        if name not in accepted:
            return self._visited(node)
        first, again = self._bound(value)
        return expression(f"{accepted[name]} or F(B)", A=first, B=again, F=node.func)

    def _bound(self, node: ast.expr) -> tuple[ast.expr, ast.expr]:
        return self._binder.bind(self.visit(node))

    def _visited(self, node: ast.Call) -> ast.expr:
        self.generic_visit(node)
        return node
