"""Which chat templates minijinja renders as Jinja2 does, judged by their syntax tree.

minijinja is Jinja in another language: most of it is the same, some of it is refused with an error (the reference takes
such rows), and some of it is silently different: what printing a generator gives, which methods a string has, whether a
macro's default may name another parameter. A template is trusted when it is made only of what was found to be the same,
by comparing the two engines on every construct of Jinja and on the chat templates in use. What is left to chance is
watched at run time (see `proving`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from sftkit.tokenization.engines import UnsupportedByEngineError
from sftkit.tokenization.templates.template_marks import INDEX_FUNCTION
from sftkit.tokenization.templates.unbounded_growth import find_unbounded_growth

if TYPE_CHECKING:
    from jinja2 import nodes

# name -> (fewest, most) positional arguments
_METHODS = {
    "strip": (0, 1),
    "lstrip": (0, 1),
    "rstrip": (0, 1),
    "split": (1, 2),
    "startswith": (1, 1),
    "endswith": (1, 1),
    "replace": (2, 3),
    "upper": (0, 0),
    "lower": (0, 0),
    "items": (0, 0),
    "keys": (0, 0),
    "values": (0, 0),
    "get": (1, 2),
    "find": (1, 1),
    "count": (1, 1),
}
_CASES = frozenset({"upper", "lower"})  # newer tables know cases of more letters; roles have none of those
_VIEWS = frozenset({"items", "keys", "values"})
_FILTERS = {
    "tojson": (0, 0),
    "trim": (0, 1),
    "length": (0, 0),
    "count": (0, 0),
    "default": (1, 2),
    "d": (1, 2),
    "string": (0, 0),
    "upper": (0, 0),
    "lower": (0, 0),
    "replace": (2, 2),
    "list": (0, 0),
    "first": (0, 0),
    "last": (0, 0),
    "join": (0, 1),
    "items": (0, 0),
    "indent": (0, 3),
    "map": (0, 1),
    "select": (0, 2),
    "reject": (0, 2),
    "selectattr": (1, 3),
    "rejectattr": (1, 3),
}
_LAZY = frozenset({"items", "map", "select", "reject", "selectattr", "rejectattr"})
"""Filters that give a generator in Jinja2 and a list in minijinja: the same only where it is used up at once."""

_MAPPED = frozenset({"trim", "length", "string"})
_CHOSEN_BY = frozenset({"equalto", "eq", "==", "ne", "!=", "defined", "undefined", "none", "string", "mapping"})
_TESTS = frozenset({
    "string", "mapping", "iterable", "sequence", "defined", "undefined", "none", "true", "false", "number",
    "boolean", "integer", "float", "equalto", "eq", "==", "ne", "!=",
})  # fmt: skip
_LOOP_TESTS = frozenset({"odd", "even", "divisibleby"})
_FUNCTIONS = frozenset({INDEX_FUNCTION, "raise_exception", "strftime_now", "namespace", "range"})
_LOOP = frozenset({
    "index", "index0", "revindex", "revindex0", "first", "last", "length", "depth", "depth0", "previtem", "nextitem",
})  # fmt: skip
_LOOP_BY_LENGTH = frozenset({"last", "length", "revindex", "revindex0"})
_LISTS = frozenset({"tool_calls", "tools", "documents", "messages", "properties"})
_JSON_OPTIONS = frozenset({"indent", "ensure_ascii", "separators", "sort_keys"})
_NODES = frozenset({
    "Template", "Output", "TemplateData", "Name", "NSRef", "Const", "If", "For", "Assign", "AssignBlock", "Macro",
    "Call", "Filter", "Test", "Getattr", "Getitem", "Slice", "Compare", "Operand", "And", "Or", "Not", "Add", "Sub",
    "Mod", "FloorDiv", "Mul", "Neg", "Concat", "CondExpr", "List", "Tuple", "Dict", "Pair", "Keyword", "Continue",
    "Break",
})  # fmt: skip
_OWN_ATTRIBUTES = frozenset(name for kind in (dict, list, str, int, float, tuple) for name in dir(kind))
_RESERVED = frozenset(dir(dict)) | {
    "self", "varargs", "kwargs", "caller", "debug", "lipsum", "cycler", "joiner", "dict", "randrange",
}  # fmt: skip
_OTHER_ESCAPE = re.compile(r"\\(?![ntr\\'\"xu])|\\u[dD][89a-fA-F]")
_ODD_SPACE = re.compile("[\x1c-\x1f]")


def check_template(source: str) -> None:
    """Accept a template that is rendered alike.

    Raises:
        EngineRefusedError: with the construct that may be rendered differently.
    """
    import jinja2

    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    try:
        tree = environment.parse(source)
        literals = list(environment.lex(source))
    except jinja2.TemplateSyntaxError as error:
        raise UnsupportedByEngineError(f"line {error.lineno}: {error.message}") from None
    except (RecursionError, ValueError) as error:  # nested too deep; a number of thousands of digits
        raise UnsupportedByEngineError(f"it cannot be read: {error}") from None
    growth = find_unbounded_growth(tree)
    _require(not growth, growth)
    _require(not _ODD_SPACE.search(source), "a separator control character")
    for _, kind, text in literals:
        escapes = text.replace("\\\\", "") if kind == "string" else ""
        _require(not _OTHER_ESCAPE.search(escapes), f"the escape in {text}")
        _require(kind != "integer" or (text.isdigit() and len(text) < 16), f"the number {text}")
        _require(kind != "float", f"the number {text}")
    _Check(tree).run()


def _require(holds: bool, construct: str) -> None:
    if not holds:
        raise UnsupportedByEngineError(f"it has {construct}")


class _Check:
    """One pass over a tree; each kind of node has its own rule."""

    def __init__(self, tree: nodes.Template) -> None:
        from jinja2 import nodes

        self._nodes = nodes
        self._tree = tree
        self._all = list(_walk(tree))
        self._parent = {child: node for node in self._all for child in node.iter_child_nodes()}
        self._macros = {node.name for node in self._all if isinstance(node, nodes.Macro)}
        self._has_dict = any(isinstance(node, nodes.Dict) for node in self._all)
        made = [node.target for node in self._all if isinstance(node, nodes.Assign) and _is_namespace(node.node, nodes)]
        self._namespaces = {target.name for target in made if isinstance(target, nodes.Name)}

    def run(self) -> None:
        """Raise `UnsupportedByEngineError` at the first node that is not surely the same."""
        for node in self._all:
            kind = type(node).__name__
            _require(kind in _NODES, f"a {kind}")
            rule = getattr(self, f"_{kind.lower()}", None)
            if rule is not None:
                rule(node, self._parent.get(node))
        self._macros_see_nothing_outside()

    def _name(self, node: Any, parent: Any) -> None:
        called = isinstance(parent, self._nodes.Call) and parent.node is node
        asked_for = isinstance(parent, self._nodes.Test) and parent.name in ("defined", "undefined")
        own = node.name in self._macros or node.name in _FUNCTIONS or node.name == "loop"
        plain = node.name not in _RESERVED and not node.name.startswith("__") and node.name.isascii()
        _require(plain, f"the name {node.name}")
        _require(not own or node.ctx == "load", f"a value for {node.name}")
        if node.name == "loop":
            _require(isinstance(parent, self._nodes.Getattr), "loop itself as a value")
        elif own:
            _require(called or (asked_for and node.name in _FUNCTIONS), f"{node.name} as a value")

    def _getattr(self, node: Any, parent: Any) -> None:
        called = isinstance(parent, self._nodes.Call) and parent.node is node
        _require(not node.attr.startswith("_"), f"the attribute {node.attr}")
        if _is_loop(node.node, self._nodes):
            _require(node.attr in _LOOP, f"loop.{node.attr}")
        elif called:
            _require(node.attr in _METHODS, f"the method {node.attr}")
        elif getattr(node.node, "name", None) not in self._namespaces:
            _require(node.attr not in _OWN_ATTRIBUTES, f"the attribute {node.attr}")

    def _getitem(self, node: Any, parent: Any) -> None:
        n = self._nodes
        if isinstance(node.arg, n.Slice):
            _require(isinstance(node.node, (n.Name, n.Call, n.Filter)), "a slice of an attribute")
        elif isinstance(node.arg, n.Const):
            key = node.arg.value
            _require(type(key) in (str, int), "an item by something else than text or number")
            _require(not (key in _OWN_ATTRIBUTES and (self._has_dict or key not in dir(dict))), f"the item {key}")

    def _call(self, node: Any, parent: Any) -> None:
        n = self._nodes
        _require(node.dyn_args is None and node.dyn_kwargs is None, "a call with * or **")
        function = node.node
        if isinstance(function, n.Getattr):
            self._method(node, function.attr, parent)
            return
        _require(isinstance(function, n.Name), "a call of an expression")
        if function.name in self._macros:
            return
        _require(function.name in _FUNCTIONS, f"the function {function.name}")
        if function.name == "namespace":
            assigned = isinstance(parent, n.Assign) and isinstance(parent.target, n.Name)
            _require(assigned and not node.args, "a namespace that is not simply assigned")
            _require(not any(pair.key.startswith("_") for pair in node.kwargs), "a private name in a namespace")
        elif function.name == "range":
            looped = isinstance(parent, n.For) and parent.iter is node
            _require(looped and not node.kwargs, "a range that is not looped over")
        else:
            _require(len(node.args) == 1 and not node.kwargs, f"{function.name} with other arguments than one")

    def _method(self, node: Any, name: str, parent: Any) -> None:
        n = self._nodes
        fewest, most = _METHODS.get(name, (1, 0))
        _require(fewest <= len(node.args) <= most and not node.kwargs, f"the method {name} called so")
        if name == "split":
            self._list(node, parent)
        if name in _CASES:
            _require(_key_of(node.node.node) == "role", f"{name} of something else than a role")
        if name in _VIEWS:
            looped = isinstance(parent, n.For) and parent.iter is node
            listed = isinstance(parent, n.Filter) and parent.name in ("list", "length")
            _require(looped or listed, f"{name}() that is not looped over")
        if node.args:
            _require(not isinstance(node.args[0], (n.List, n.Tuple)), f"{name} with several texts")
            _require(getattr(node.args[0], "value", None) != "", f"{name} with an empty text")

    def _filter(self, node: Any, parent: Any) -> None:
        n = self._nodes
        fewest, most = _FILTERS.get(node.name, (1, 0))
        _require(fewest <= len(node.args) <= most and node.node is not None, f"the filter {node.name} used so")
        _require(node.dyn_args is None and node.dyn_kwargs is None, "a filter with * or **")
        if node.name == "list":
            self._list(node, parent)
        if node.name in _CASES:
            _require(_key_of(node.node) == "role", f"{node.name} of something else than a role")
        options = {pair.key: pair.value for pair in node.kwargs}
        if node.name in _LAZY:
            looped = isinstance(parent, n.For) and parent.iter is node
            used_up = isinstance(parent, n.Filter) and parent.node is node and parent.name in {"list", "join", *_LAZY}
            _require(looped or (used_up and parent.name != "items"), f"{node.name} that is not used up at once")
            self._choosing(node, options)
        elif node.name == "tojson":
            _require(options.keys() <= _JSON_OPTIONS, "tojson with other options")
            made_here = isinstance(node.node, (n.Dict, n.List, n.Tuple))
            _require(not made_here or self._is_constant(node.node), "tojson of what the template makes")
        else:
            _require(not options, f"{node.name} with named arguments")

    def _choosing(self, node: Any, options: dict[str, Any]) -> None:
        n = self._nodes
        names = [argument.value if isinstance(argument, n.Const) else None for argument in node.args[:2]]
        if node.name == "map":
            attributes = [getattr(value, "value", None) for value in options.values()]
            _require(set(options) <= {"attribute"} and all(map(_is_key, attributes)), "map by other things than a key")
            _require(all(name in _MAPPED for name in names), f"map with {names}")
            return
        _require(not options, f"{node.name} with named arguments")
        if node.name.endswith("attr"):
            _require(_is_key(names.pop(0)), f"{node.name} by something else than a key")
        _require(not names or names[0] in _CHOSEN_BY, f"{node.name} by another test")

    def _test(self, node: Any, parent: Any) -> None:
        counted = isinstance(node.node, self._nodes.Getattr) and _is_loop(node.node.node, self._nodes)
        known = node.name in _TESTS or (node.name in _LOOP_TESTS and counted)
        _require(known and not node.kwargs and node.dyn_args is None, f"the test {node.name}")

    def _macro(self, node: Any, parent: Any) -> None:
        _require(parent is self._tree, "a macro inside of something")
        _require(not node.defaults, "a macro with a default")

    def _for(self, node: Any, parent: Any) -> None:
        n: Any = self._nodes
        _require(not node.recursive, "a recursive loop")
        by_length = any(
            getattr(inner, "attr", "") in _LOOP_BY_LENGTH and _is_loop(inner.node, n)
            for statement in node.body
            for inner in _walk(statement)
        )
        items = node.iter
        surely_list = (
            isinstance(items, (n.Name, n.Call))
            or (isinstance(items, n.Getitem) and isinstance(items.arg, n.Slice))
            or (isinstance(items, n.Filter) and items.name in _LAZY)
            or _key_of(items) in _LISTS
        )
        _require(surely_list or not by_length, "the length of a loop over what may be a text")

    def _mul(self, node: Any, parent: Any) -> None:
        _require(self._is_constant(node.left) and self._is_constant(node.right), "a product")

    def _dict(self, node: Any, parent: Any) -> None:
        self._list(node, parent)
        keys = (pair.key for pair in node.items)
        _require(all(isinstance(getattr(key, "value", None), str) for key in keys), "a dict with other keys than text")

    def _list(self, node: Any, parent: Any) -> None:
        _require(not isinstance(parent, (self._nodes.Output, self._nodes.Concat)), "a list or dict that is printed")

    def _tuple(self, node: Any, parent: Any) -> None:
        self._list(node, parent)
        _require(node.ctx != "load" or self._is_constant(node), "a computed tuple")

    def _is_constant(self, node: Any) -> bool:
        n = self._nodes
        if isinstance(node, (n.List, n.Tuple)):
            return all(map(self._is_constant, node.items))
        return isinstance(node, n.Const) or (isinstance(node, n.Neg) and self._is_constant(node.node))

    def _macros_see_nothing_outside(self) -> None:
        """A macro sees outer variables as they are when it is called in Jinja2, when it is declared in minijinja."""
        n = self._nodes
        outside = [node for node in self._tree.body if not isinstance(node, n.Macro)]
        assigned = {name.name for node in outside for name in _walk(node) if _is_assigned(name, n)}
        for macro in (node for node in self._tree.body if isinstance(node, n.Macro)):
            inside = list(_walk(macro))
            own = {argument.name for argument in macro.args} | {x.name for x in inside if _is_assigned(x, n)}
            for name in inside:
                seen = isinstance(name, (n.Name, n.NSRef)) and name.name in assigned - own
                _require(not seen, "a macro that uses a variable from outside")


def _walk(node: Any) -> list[Any]:
    return [node, *(inner for child in node.iter_child_nodes() for inner in _walk(child))]


def _is_loop(node: Any, nodes: Any) -> bool:
    return isinstance(node, nodes.Name) and node.name == "loop"


def _key_of(node: Any) -> Any:
    """The key that an attribute or an item is taken by, where it is written out."""
    return getattr(node, "attr", None) or getattr(getattr(node, "arg", None), "value", None)


def _is_namespace(node: Any, nodes: Any) -> bool:
    return isinstance(node, nodes.Call) and getattr(node.node, "name", None) == "namespace"


def _is_assigned(node: Any, nodes: Any) -> bool:
    return isinstance(node, nodes.Name) and node.ctx != "load"


def _is_key(name: Any) -> bool:
    return isinstance(name, str) and name.isidentifier() and name not in _OWN_ATTRIBUTES
