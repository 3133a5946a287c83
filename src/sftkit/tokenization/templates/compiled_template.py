"""Compiles a chat template to Python code that records what it writes.

Jinja compiles a template to the source of a Python function. That function is the template: transformers runs it. Here
its syntax tree is rewritten in steps, none of which changes a value or a piece of the output:

1. what is written is recorded, with marks that tell which message it belongs to (`output_recording`);
2. names from outside are looked up once (`name_lookup`), and loops count instead of keeping an object
   (`loop_counters`);
3. values are read directly instead of through the sandbox, where their types make the result certain (`value_access`).

Only step 1 is needed to find message spans; without steps 2 and 3 the code is Jinja's own.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from itertools import count
from typing import TYPE_CHECKING, Any

from jinja2.runtime import Context

from sftkit.sandbox.chat_templates import compiled_by_transformers
from sftkit.sandbox.steady_environment import hidden
from sftkit.tokenization.conversations import Message
from sftkit.tokenization.templates import template_runtime as runtime
from sftkit.tokenization.templates.loop_counters import LoopCounters
from sftkit.tokenization.templates.name_lookup import NameLookup, takes_context
from sftkit.tokenization.templates.output_recording import record_output
from sftkit.tokenization.templates.recording import Mark, Recording
from sftkit.tokenization.templates.value_access import ValueAccess

if TYPE_CHECKING:
    from jinja2 import Template

_KEPT = 128  # templates, as in transformers


class CompiledTemplate:
    """A template as a Python function."""

    def __init__(self, source: str, day: str, *, direct: bool) -> None:
        """Compile a template.

        Args:
            source: the template.
            day: the date that the template is given, in the form YYYY-MM-DD.
            direct: whether its code reads values directly; otherwise it is Jinja's code, which records its output.

        Raises:
            ValueError: it cannot be recorded.
            jinja2.TemplateSyntaxError: it is not valid Jinja.
        """
        template = compiled_by_transformers(source, day)
        self.direct = direct
        self._environment = template.environment
        self._globals = dict(template.globals)
        if direct:
            self._globals["namespace"] = hidden(runtime.TemplateNamespace)
        self._write = _compile(template, source, day, direct=direct)

    def record(self, values: Mapping[str, Any], messages: Iterable[Message]) -> Recording:
        """Render a conversation.

        Args:
            values: the variables of the template. Their values must consist of the types of JSON.
            messages: the messages in `values`, to be recognized by identity: each must be another object.

        Raises:
            Exception: whatever the template raises.
        """
        context = Context(self._environment, {**self._globals, **values}, None, {})
        pieces: list[str] = []
        marks: list[Mark] = []
        indices = dict(zip(map(id, messages), count(), strict=False))
        self._write(context, pieces, pieces.append, marks.append, indices)
        return Recording("".join(pieces), pieces, marks)


@lru_cache(maxsize=_KEPT)
def compiled_template(source: str, day: str, *, direct: bool) -> CompiledTemplate:
    """Return a compiled template; raises as `CompiledTemplate`."""
    return CompiledTemplate(source, day, direct=direct)


def recording_code(source: str, day: str) -> ast.Module:
    """Return the code that Jinja compiles a template to, with its output recorded (`output_recording`).

    Raises:
        ValueError: it cannot be recorded.
        jinja2.TemplateSyntaxError: it is not valid Jinja.
    """
    tree = ast.parse(compiled_by_transformers(source, day).environment.compile(source, raw=True))
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    if [function.name for function in functions] != ["root"]:
        raise ValueError("the template has blocks, which cannot be recorded")
    record_output(functions[0])
    return tree


def _compile(template: Template, source: str, day: str, *, direct: bool) -> Callable[..., None]:
    """Return the function that writes the output of a template, as `output_recording` describes it."""
    tree = recording_code(source, day)
    if direct:
        tree.body = [_direct(template, node) if isinstance(node, ast.FunctionDef) else node for node in tree.body]
    names: dict[str, Any] = {"environment": template.environment}
    exec(compile(ast.fix_missing_locations(tree), "<chat template>", "exec"), names)
    names.update(
        message_at=runtime.message_at,
        item_of=runtime.item_of,
        items_of=runtime.items_of,
        subtract=runtime.subtract,
        call_function=runtime.function_caller(template.environment),
        SIZED=runtime.SIZED,
        namespace_type=runtime.TemplateNamespace,
    )
    write: Callable[..., None] = names["root"]
    return write


def _direct(template: Template, root: ast.FunctionDef) -> ast.FunctionDef:
    """Rewrite the main function of a template to read its values directly."""
    if not takes_context(template.globals):
        root = NameLookup(root).rewrite(root)
    for transformer in (LoopCounters(root), ValueAccess(root)):
        root = transformer.visit(root)
    return root
