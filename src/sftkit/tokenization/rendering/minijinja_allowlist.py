"""The constructs of Jinja that minijinja is known to render like Jinja2.

They were found by comparing the two engines on every construct of Jinja and on the chat templates of common models.
"""

from __future__ import annotations

import re

from sftkit.tokenization.templates.template_marks import INDEX_FUNCTION

METHODS = {
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
"""Method -> fewest and most positional arguments."""

CASE_CHANGES = frozenset({"upper", "lower"})
"""Allowed for roles only: minijinja has newer tables with the cases of more letters."""

DICT_VIEWS = frozenset({"items", "keys", "values"})
"""Methods whose result must be looped over."""

FILTERS = {
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
"""Filter -> fewest and most positional arguments."""

LAZY_FILTERS = frozenset({"items", "map", "select", "reject", "selectattr", "rejectattr"})
"""Filters that give a generator in Jinja2 and a list in minijinja, which is the same if it is consumed at once."""

MAPPED_FILTERS = frozenset({"trim", "length", "string"})
"""Filters that `map` may apply."""

SELECT_TESTS = frozenset({"equalto", "eq", "==", "ne", "!=", "defined", "undefined", "none", "string", "mapping"})
"""Tests that `select` and `reject` may apply."""

TESTS = frozenset({
    "string", "mapping", "iterable", "sequence", "defined", "undefined", "none", "true", "false", "number",
    "boolean", "integer", "float", "equalto", "eq", "==", "ne", "!=",
})  # fmt: skip
LOOP_TESTS = frozenset({"odd", "even", "divisibleby"})
"""Tests that attributes of `loop` may be given to."""

FUNCTIONS = frozenset({INDEX_FUNCTION, "raise_exception", "strftime_now", "namespace", "range"})
LOOP_ATTRIBUTES = frozenset({
    "index", "index0", "revindex", "revindex0", "first", "last", "length", "depth", "depth0", "previtem", "nextitem",
})  # fmt: skip
LOOP_ATTRIBUTES_BY_LENGTH = frozenset({"last", "length", "revindex", "revindex0"})
"""Attributes of `loop` that need the number of items, which differs for a text."""

LIST_KEYS = frozenset({"tool_calls", "tools", "documents", "messages", "properties"})
"""Keys whose value is a list."""

TOJSON_OPTIONS = frozenset({"indent", "ensure_ascii", "separators", "sort_keys"})
NODES = frozenset({
    "Template", "Output", "TemplateData", "Name", "NSRef", "Const", "If", "For", "Assign", "AssignBlock", "Macro",
    "Call", "Filter", "Test", "Getattr", "Getitem", "Slice", "Compare", "Operand", "And", "Or", "Not", "Add", "Sub",
    "Mod", "FloorDiv", "Mul", "Neg", "Concat", "CondExpr", "List", "Tuple", "Dict", "Pair", "Keyword", "Continue",
    "Break",
})  # fmt: skip
PYTHON_ATTRIBUTES = frozenset(name for kind in (dict, list, str, int, float, tuple) for name in dir(kind))
"""Attributes of Python values, which Jinja2 finds and minijinja does not."""

RESERVED_NAMES = frozenset(dir(dict)) | {
    "self", "varargs", "kwargs", "caller", "debug", "lipsum", "cycler", "joiner", "dict", "randrange",
}  # fmt: skip
UNKNOWN_ESCAPE = re.compile(r"\\(?![ntr\\'\"xu])|\\u[dD][89a-fA-F]")
"""Escapes in strings that the engines read differently."""

SEPARATOR_CHARACTER = re.compile("[\x1c-\x1f]")
"""White space in Python, but not in Rust."""
