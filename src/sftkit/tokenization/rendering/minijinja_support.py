"""Checks by the syntax tree of a chat template whether minijinja renders it like Jinja2.

minijinja is Jinja in Rust. Most constructs give the same text. Some raise an error; the reference renders such rows.
Some give other text without an error: printing a generator, certain string methods, a default of a macro parameter that
names another parameter. A template is accepted if it consists only of constructs that are known to give the same text
(`minijinja_allowlist`), and its output cannot grow too fast (`unbounded_growth`). What this misses is found at run time
(`verification`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sftkit.tokenization.engines import UnsupportedByEngineError
from sftkit.tokenization.rendering import minijinja_allowlist as allowed
from sftkit.tokenization.templates.unbounded_growth import find_unbounded_growth

if TYPE_CHECKING:
    from jinja2 import nodes


def check_template(source: str) -> None:
    """Accept templates that minijinja renders like Jinja2.

    Args:
        source: the template, in the form of `unmarked_template`.

    Raises:
        UnsupportedByEngineError: with a construct that may be rendered differently.

    Example:
        >>> check_template("{{ messages[0].content | trim }}")
        >>> check_template("{{ messages | sort }}")
        Traceback (most recent call last):
        sftkit.tokenization.engines.UnsupportedByEngineError: it has the filter sort in an unsupported form
    """
    import jinja2

    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    try:
        tree = environment.parse(source)
        literals = list(environment.lex(source))
    except jinja2.TemplateSyntaxError as error:
        raise UnsupportedByEngineError(f"line {error.lineno}: {error.message}") from None
    except (RecursionError, ValueError) as error:  # nested too deeply, or a number of thousands of digits
        raise UnsupportedByEngineError(f"it cannot be read: {error}") from None
    growth = find_unbounded_growth(tree)
    _require(not growth, growth)
    _require(not allowed.SEPARATOR_CHARACTER.search(source), "a separator control character")
    for _, kind, text in literals:
        escapes = text.replace("\\\\", "") if kind == "string" else ""
        _require(not allowed.UNKNOWN_ESCAPE.search(escapes), f"the escape in {text}")
        _require(kind != "integer" or (text.isdigit() and len(text) < 16), f"the number {text}")
        _require(kind != "float", f"the number {text}")
    _TemplateChecker(tree).run()


def _require(holds: bool, construct: str) -> None:
    if not holds:
        raise UnsupportedByEngineError(f"it has {construct}")


class _TemplateChecker:
    """Checks each node of a syntax tree by the rule for its kind: the method `_<kind>`, if there is one.

    A rule gets the node and its parent.
    """

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
        """Raise `UnsupportedByEngineError` for the first node that is not known to be rendered the same."""
        for node in self._all:
            kind = type(node).__name__
            _require(kind in allowed.NODES, f"a {kind}")
            rule = getattr(self, f"_{kind.lower()}", None)
            if rule is not None:
                rule(node, self._parent.get(node))
        self._check_macro_variables()

    def _name(self, node: Any, parent: Any) -> None:
        is_called = isinstance(parent, self._nodes.Call) and parent.node is node
        is_tested = isinstance(parent, self._nodes.Test) and parent.name in ("defined", "undefined")
        own = node.name in self._macros or node.name in allowed.FUNCTIONS or node.name == "loop"
        is_plain = node.name not in allowed.RESERVED_NAMES and not node.name.startswith("__") and node.name.isascii()
        _require(is_plain, f"the name {node.name}")
        _require(not own or node.ctx == "load", f"a value for {node.name}")
        if node.name == "loop":
            _require(isinstance(parent, self._nodes.Getattr), "loop itself as a value")
        elif own:
            _require(is_called or (is_tested and node.name in allowed.FUNCTIONS), f"{node.name} as a value")

    def _getattr(self, node: Any, parent: Any) -> None:
        is_called = isinstance(parent, self._nodes.Call) and parent.node is node
        _require(not node.attr.startswith("_"), f"the attribute {node.attr}")
        if _is_loop(node.node, self._nodes):
            _require(node.attr in allowed.LOOP_ATTRIBUTES, f"loop.{node.attr}")
        elif is_called:
            _require(node.attr in allowed.METHODS, f"the method {node.attr}")
        elif getattr(node.node, "name", None) not in self._namespaces:
            _require(node.attr not in allowed.PYTHON_ATTRIBUTES, f"the attribute {node.attr}")

    def _getitem(self, node: Any, parent: Any) -> None:
        n = self._nodes
        if isinstance(node.arg, n.Slice):
            _require(isinstance(node.node, (n.Name, n.Call, n.Filter)), "a slice of an attribute")
        elif isinstance(node.arg, n.Const):
            key = node.arg.value
            _require(type(key) in (str, int), "an item whose key is neither text nor a number")
            _require(
                not (key in allowed.PYTHON_ATTRIBUTES and (self._has_dict or key not in dir(dict))), f"the item {key}"
            )

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
        _require(function.name in allowed.FUNCTIONS, f"the function {function.name}")
        if function.name == "namespace":
            assigned = isinstance(parent, n.Assign) and isinstance(parent.target, n.Name)
            _require(assigned and not node.args, "a namespace that is not assigned to a name")
            _require(not any(pair.key.startswith("_") for pair in node.kwargs), "a private name in a namespace")
        elif function.name == "range":
            looped = isinstance(parent, n.For) and parent.iter is node
            _require(looped and not node.kwargs, "a range that is not looped over")
        else:
            _require(len(node.args) == 1 and not node.kwargs, f"{function.name} without exactly one argument")

    def _method(self, node: Any, name: str, parent: Any) -> None:
        n = self._nodes
        fewest, most = allowed.METHODS.get(name, (1, 0))
        _require(fewest <= len(node.args) <= most and not node.kwargs, f"the method {name} in an unsupported form")
        if name == "split":
            self._list(node, parent)
        if name in allowed.CASE_CHANGES:
            _require(_key_of(node.node.node) == "role", f"{name} of anything but a role")
        if name in allowed.DICT_VIEWS:
            looped = isinstance(parent, n.For) and parent.iter is node
            listed = isinstance(parent, n.Filter) and parent.name in ("list", "length")
            _require(looped or listed, f"{name}() that is not looped over")
        if node.args:
            _require(not isinstance(node.args[0], (n.List, n.Tuple)), f"{name} with several texts")
            _require(getattr(node.args[0], "value", None) != "", f"{name} with an empty text")

    def _filter(self, node: Any, parent: Any) -> None:
        n = self._nodes
        fewest, most = allowed.FILTERS.get(node.name, (1, 0))
        _require(
            fewest <= len(node.args) <= most and node.node is not None, f"the filter {node.name} in an unsupported form"
        )
        _require(node.dyn_args is None and node.dyn_kwargs is None, "a filter with * or **")
        if node.name == "list":
            self._list(node, parent)
        if node.name in allowed.CASE_CHANGES:
            _require(_key_of(node.node) == "role", f"{node.name} of anything but a role")
        options = {pair.key: pair.value for pair in node.kwargs}
        if node.name in allowed.LAZY_FILTERS:
            looped = isinstance(parent, n.For) and parent.iter is node
            consumed = (
                isinstance(parent, n.Filter)
                and parent.node is node
                and parent.name in {"list", "join", *allowed.LAZY_FILTERS}
            )
            _require(looped or (consumed and parent.name != "items"), f"{node.name} that is not consumed at once")
            self._choosing(node, options)
        elif node.name == "tojson":
            _require(options.keys() <= allowed.TOJSON_OPTIONS, "tojson with other options")
            is_literal = isinstance(node.node, (n.Dict, n.List, n.Tuple))
            _require(not is_literal or self._is_constant(node.node), "tojson of a computed value")
        else:
            _require(not options, f"{node.name} with named arguments")

    def _choosing(self, node: Any, options: dict[str, Any]) -> None:
        n = self._nodes
        names = [argument.value if isinstance(argument, n.Const) else None for argument in node.args[:2]]
        if node.name == "map":
            attributes = [getattr(value, "value", None) for value in options.values()]
            _require(set(options) <= {"attribute"} and all(map(_is_key, attributes)), "map by anything but a key")
            _require(all(name in allowed.MAPPED_FILTERS for name in names), f"map with {names}")
            return
        _require(not options, f"{node.name} with named arguments")
        if node.name.endswith("attr"):
            _require(_is_key(names.pop(0)), f"{node.name} by anything but a key")
        _require(not names or names[0] in allowed.SELECT_TESTS, f"{node.name} by another test")

    def _test(self, node: Any, parent: Any) -> None:
        is_loop_counter = isinstance(node.node, self._nodes.Getattr) and _is_loop(node.node.node, self._nodes)
        known = node.name in allowed.TESTS or (node.name in allowed.LOOP_TESTS and is_loop_counter)
        _require(known and not node.kwargs and node.dyn_args is None, f"the test {node.name}")

    def _macro(self, node: Any, parent: Any) -> None:
        _require(parent is self._tree, "a macro inside of a block")
        _require(not node.defaults, "a macro with a default")

    def _for(self, node: Any, parent: Any) -> None:
        n: Any = self._nodes
        _require(not node.recursive, "a recursive loop")
        by_length = any(
            getattr(inner, "attr", "") in allowed.LOOP_ATTRIBUTES_BY_LENGTH and _is_loop(inner.node, n)
            for statement in node.body
            for inner in _walk(statement)
        )
        items = node.iter
        is_list = (
            isinstance(items, (n.Name, n.Call))
            or (isinstance(items, n.Getitem) and isinstance(items.arg, n.Slice))
            or (isinstance(items, n.Filter) and items.name in allowed.LAZY_FILTERS)
            or _key_of(items) in allowed.LIST_KEYS
        )
        _require(is_list or not by_length, "the length of a loop over a value that may be text")

    def _mul(self, node: Any, parent: Any) -> None:
        _require(self._is_constant(node.left) and self._is_constant(node.right), "a product")

    def _dict(self, node: Any, parent: Any) -> None:
        self._list(node, parent)
        keys = (pair.key for pair in node.items)
        _require(all(isinstance(getattr(key, "value", None), str) for key in keys), "a dict with keys other than text")

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

    def _check_macro_variables(self) -> None:
        """Check that no macro uses outer variables: Jinja2 reads them at the call, minijinja at the definition."""
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
    """Return the key of an attribute or item, if it is a literal."""
    return getattr(node, "attr", None) or getattr(getattr(node, "arg", None), "value", None)


def _is_namespace(node: Any, nodes: Any) -> bool:
    return isinstance(node, nodes.Call) and getattr(node.node, "name", None) == "namespace"


def _is_assigned(node: Any, nodes: Any) -> bool:
    return isinstance(node, nodes.Name) and node.ctx != "load"


def _is_key(name: Any) -> bool:
    return isinstance(name, str) and name.isidentifier() and name not in allowed.PYTHON_ATTRIBUTES
