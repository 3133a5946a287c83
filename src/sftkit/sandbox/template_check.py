"""Reject templates with operations that no timeout can interrupt, because each is a single step of the interpreter."""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from sftkit.errors import TokenizerError

if TYPE_CHECKING:
    from jinja2 import nodes
    from jinja2.ext import Extension
    from jinja2.parser import Parser

_LARGEST_PRECISION = 20
_LARGEST_OF_POWER = 1000


@lru_cache(maxsize=32)
def check_template_operations(source: str) -> None:
    """Reject a template with an operation that no timeout can interrupt. Invalid Jinja is left to the renderer.

    Raises:
        TokenizerError: the template has such an operation, or is nested too deeply.
    """
    import jinja2

    environment = jinja2.Environment(extensions=["jinja2.ext.loopcontrols", generation_tag()])
    try:
        problem = _uninterruptible_operation(environment.parse(source))
    except jinja2.TemplateSyntaxError:
        return
    except RecursionError:
        raise TokenizerError("the template is nested too deeply; use fewer brackets and blocks") from None
    except ValueError as error:  # a number with thousands of digits
        raise TokenizerError(f"the template cannot be read: {error}; correct it") from None
    if problem:
        raise TokenizerError(f"the template has {problem}, which may never end; remove it")


def generation_tag() -> type[Extension]:
    """Parses `{% generation %}` blocks, which transformers adds to Jinja, as their contents."""
    from jinja2.ext import Extension

    class Generation(Extension):
        tags = {"generation"}  # noqa: RUF012 - as Jinja declares it

        def parse(self, parser: Parser) -> list[nodes.Node]:
            next(parser.stream)
            body: list[nodes.Node] = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return body

    return Generation


def _uninterruptible_operation(tree: nodes.Template) -> str:
    """Describe an operation that may never end; "" if there is none."""
    from jinja2 import nodes

    for power in tree.find_all(nodes.Pow):
        sides = [side.value if isinstance(side, nodes.Const) else None for side in (power.left, power.right)]
        if not all(isinstance(side, (int, float)) and abs(side) <= _LARGEST_OF_POWER for side in sides):
            return f"the operator ** with something computed or large (line {power.lineno})"
    for each in tree.find_all(nodes.Filter):
        options: dict[Any, Any] = {pair.key: pair.value for pair in each.kwargs}
        precision: Any = None
        if each.name == "round":
            precision = next(iter(each.args), options.get("precision"))
        elif each.name == "map" and each.args:
            if not isinstance(each.args[0], nodes.Const):
                return f"a computed filter name (line {each.lineno})"
            if each.args[0].value == "round":
                precision = next(iter(each.args[1:]), options.get("precision"))
        with suppress(nodes.Impossible, TypeError):
            if precision is None or abs(precision.as_const()) <= _LARGEST_PRECISION:
                continue
        return f"a precision of round() that is computed or large (line {each.lineno})"
    return ""
