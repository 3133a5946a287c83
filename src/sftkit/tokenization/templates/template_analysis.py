"""Static analysis of the source of a chat template: how it uses its messages."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from sftkit.sandbox.template_variables import parse_template

MESSAGES = "messages"
"""Variable of chat templates that holds the messages, or the whole row."""

_PROMPT = "add_generation_prompt"


def takes_whole_row(source: str) -> bool:
    """Return whether a template uses `messages` as a row, with named columns, and not only as a list.

    Example:
        >>> takes_whole_row("{{ messages['messages'][0].content }}"), takes_whole_row("{{ messages[0].content }}")
        (True, False)
    """
    from jinja2 import nodes

    tree = parse_template(source)
    if tree is None:
        return False
    keys = (
        node.arg.value if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const) else None
        for node in tree.find_all(nodes.Getitem)
        if isinstance(node.node, nodes.Name) and node.node.name == MESSAGES
    )
    return any(isinstance(key, str) for key in keys) or any(
        isinstance(node.node, nodes.Name) and node.node.name == MESSAGES and not hasattr([], node.attr)
        for node in tree.find_all(nodes.Getattr)
    )


def prompt_depends_on_messages(source: str) -> bool:
    """Return whether the generation prompt of a template may differ between conversations.

    It may if a branch on `add_generation_prompt` uses a name that the template sets, or if the variable is used in
    another way than to branch.
    """
    from jinja2 import nodes

    tree = parse_template(source)
    if tree is None:
        return True
    assigned = {name.name for name in tree.find_all(nodes.Name) if name.ctx != "load"} | {MESSAGES}
    assigned |= {macro.name for macro in tree.find_all(nodes.Macro)}
    branches = [branch for branch in tree.find_all((nodes.If, nodes.CondExpr)) if _PROMPT in _names_in(branch.test)]
    uses_in_branches = sum(_count_prompt_uses(branch.test) for branch in branches)
    return uses_in_branches < _count_prompt_uses(tree) or any(
        not assigned.isdisjoint(_names_in(branch)) for branch in branches
    )


def has_generation_blocks(source: str) -> bool:
    """Return whether a template has `{% generation %}` blocks; one that is not valid Jinja has none.

    Example:
        >>> has_generation_blocks("{%- generation -%}a{% endgeneration %}"), has_generation_blocks("generation")
        (True, False)
    """
    import jinja2

    try:
        tokens = [token for token in jinja2.Environment().lex(source) if token[1] != "whitespace"]
    except jinja2.TemplateSyntaxError:
        return False
    return any((first[1], second[1:]) == ("block_begin", ("name", "generation")) for first, second in pairwise(tokens))


def _count_prompt_uses(node: Any) -> int:
    """Return how often `add_generation_prompt` occurs in a part of a template, including the part itself."""
    from jinja2 import nodes

    inside = sum(1 for name in node.find_all(nodes.Name) if name.name == _PROMPT)
    return inside + 1 if isinstance(node, nodes.Name) and node.name == _PROMPT else inside


def _names_in(node: Any) -> set[str]:
    """Return the names in a part of a template, including the part itself."""
    from jinja2 import nodes

    found = {name.name for name in node.find_all(nodes.Name)}
    return found | {node.name} if isinstance(node, nodes.Name) else found
