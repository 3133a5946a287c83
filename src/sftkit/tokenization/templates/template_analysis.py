"""What can be read off the source of a chat template about how it treats its messages."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from sftkit.tokenization.templates.template_lexer import unmarked_template

_MESSAGES = "messages"
_PROMPT = "add_generation_prompt"


def takes_whole_row(source: str) -> bool:
    """Whether a template looks into `messages` by names, as into a row, and not only as into a list.

    Raises:
        TokenizerError: the source is not valid Jinja.
    """
    from jinja2 import nodes

    tree = _parsed(source)
    if tree is None:
        return False
    named = (
        node.arg.value if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const) else None
        for node in tree.find_all(nodes.Getitem)
        if isinstance(node.node, nodes.Name) and node.node.name == _MESSAGES
    )
    return any(isinstance(name, str) for name in named) or any(
        isinstance(node.node, nodes.Name) and node.node.name == _MESSAGES and not hasattr([], node.attr)
        for node in tree.find_all(nodes.Getattr)
    )


def prompt_depends_on_messages(source: str) -> bool:
    """Whether what a template writes for `add_generation_prompt` may differ from conversation to conversation: it then
    looks at something that the template itself has set.

    Raises:
        TokenizerError: the source is not valid Jinja.
    """
    from jinja2 import nodes

    tree = _parsed(source)
    if tree is None:
        return True
    set_here = {name.name for name in tree.find_all(nodes.Name) if name.ctx != "load"} | {_MESSAGES}
    set_here |= {macro.name for macro in tree.find_all(nodes.Macro)}
    asked = [branch for branch in tree.find_all((nodes.If, nodes.CondExpr)) if _PROMPT in _names_in(branch.test)]
    told = sum(_count(branch.test) for branch in asked)
    return told < _count(tree) or any(not set_here.isdisjoint(_names_in(branch)) for branch in asked)


def rebinds_messages(source: str) -> bool:
    """Whether a template gives the name `messages` to anything of its own."""
    from jinja2 import nodes

    tree = _parsed(source)
    if tree is None:
        return True  # a tag of another extension: nothing is known
    return any(name.name == _MESSAGES and name.ctx != "load" for name in tree.find_all(nodes.Name))


@lru_cache(maxsize=8)
def _parsed(source: str) -> Any:
    """The syntax tree of a template, without its `{% generation %}` tags; None where it has tags of its own."""
    import jinja2

    try:
        return jinja2.Environment(extensions=["jinja2.ext.loopcontrols"]).parse(unmarked_template(source))
    except jinja2.TemplateSyntaxError:
        return None


def _count(node: Any) -> int:
    """How often a part of a template asks for `add_generation_prompt`."""
    from jinja2 import nodes

    inside = sum(1 for name in node.find_all(nodes.Name) if name.name == _PROMPT)
    return inside + 1 if isinstance(node, nodes.Name) and node.name == _PROMPT else inside


def _names_in(node: Any) -> set[str]:
    """Names that stand in a part of a template, itself included."""
    from jinja2 import nodes

    found = {name.name for name in node.find_all(nodes.Name)}
    return found | {node.name} if isinstance(node, nodes.Name) else found
