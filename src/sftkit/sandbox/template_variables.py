"""Static analysis of Jinja templates: which variables one uses, and which keys of a variable."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from sftkit.sandbox.template_check import generation_tag

_GET = "get"


@lru_cache(maxsize=16)
def parse_template(source: str) -> Any:
    """Return the syntax tree of a template without `{% generation %}` tags; None if it is not valid Jinja."""
    import jinja2

    environment = jinja2.Environment(
        extensions=["jinja2.ext.loopcontrols", generation_tag()],
        finalize=jinja2.pass_context(lambda _context, value: value),  # see `variables_of`
    )
    try:
        return environment.parse(source)
    except (jinja2.TemplateSyntaxError, RecursionError, ValueError):  # ValueError: a number with thousands of digits
        return None


def variables_of(source: str) -> frozenset[str]:
    """Return the variables that a template takes from outside; none if it is not valid Jinja.

    Example:
        >>> sorted(variables_of("{% if system is defined %}{{ system }}{% endif %}{{ rows[0].text }}"))
        ['rows', 'system']
    """
    from jinja2.meta import TrackingCodeGenerator

    tree = parse_template(source)
    if tree is None:
        return frozenset()
    # As `jinja2.meta.find_undeclared_variables` does, but without evaluating constant expressions, of which one such as
    # `9 ** 9 ** 9` never ends. An optimizer evaluates them, and so does output that does not depend on the context.
    generator = TrackingCodeGenerator(tree.environment)
    generator.optimizer = None
    generator.visit(tree)
    return frozenset(generator.undeclared_identifiers)


def optional_variables_of(source: str) -> frozenset[str]:
    """Return the variables that a template tests with `is defined` or `is undefined`, or gives a default.

    Example:
        >>> sorted(optional_variables_of("{{ a is defined and a > b and c | default(1) > 0 }}"))
        ['a', 'c']
    """
    from jinja2 import nodes

    tree = parse_template(source)
    if tree is None:
        return frozenset()
    tests = [test.node for test in tree.find_all(nodes.Test) if test.name in ("defined", "undefined")]
    defaults = [each.node for each in tree.find_all(nodes.Filter) if each.name in ("default", "d")]
    return frozenset(str(node.name) for node in (*tests, *defaults) if isinstance(node, nodes.Name))


def keys_of_variable(source: str, variable: str) -> frozenset[str] | None:
    """Return the keys of a variable that a template uses; None if it uses the variable in another way than by keys.

    Example:
        >>> sorted(keys_of_variable("{{ row['a'] }}{{ row.b }}{{ row.get('c', '') }}", "row"))
        ['a', 'b', 'c']
        >>> keys_of_variable("{% for key in row %}{{ row[key] }}{% endfor %}", "row")
    """
    from jinja2 import nodes

    tree = parse_template(source)
    if tree is None:
        return None
    uses = sum(1 for name in tree.find_all(nodes.Name) if name.name == variable)
    keys = [_key(node, variable) for node in tree.find_all((nodes.Getitem, nodes.Getattr, nodes.Call))]
    known = [key for key in keys if key is not None]
    return frozenset(known) if len(known) == uses else None


def _key(node: Any, variable: str) -> str | None:
    """Return the key in `row['key']`, `row.key` or `row.get('key')`; None for any other expression."""
    from jinja2 import nodes

    if isinstance(node, nodes.Call):
        is_get = (
            isinstance(node.node, nodes.Getattr) and node.node.attr == _GET and _is_variable(node.node.node, variable)
        )
        return str(node.args[0].value) if is_get and node.args and isinstance(node.args[0], nodes.Const) else None
    if not _is_variable(node.node, variable):
        return None
    if isinstance(node, nodes.Getitem):
        return str(node.arg.value) if isinstance(node.arg, nodes.Const) else None
    return None if hasattr({}, node.attr) else str(node.attr)


def _is_variable(node: Any, name: str) -> bool:
    from jinja2 import nodes

    return isinstance(node, nodes.Name) and node.name == name
