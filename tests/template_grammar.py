"""What real chat templates use, as a grammar of expressions: `<kind>` stands for another expression of a kind.

The short ones come first (`ATOMS`), the ones made of others after them (`NESTED`). Those of loops need a `loop`.
"""

from __future__ import annotations

_COUNTERS = [f"loop.{name}" for name in ("index", "index0", "revindex", "revindex0", "length")]
_TEXT_METHODS = [
    *("strip()", "lstrip()", "rstrip('\\n')", "strip('a ')", "split('a')[-1]", "split()[0]", "rsplit('b', 1)[0]"),
    *("title()", "upper()", "lower()", "capitalize()", "replace('a', 'bb')", "replace(<text>, '')", "format(1)"),
    *("split('</think>')[0]", "join(['1', '2'])", "splitlines() | join('|')", "partition('b')[2]", "center(5)"),
    *("removeprefix('a')", "split(<text>, 1) | last"),
]
_TEXT_FILTERS = [
    *("trim", "upper", "lower", "title", "capitalize", "replace('a', 'é')", "string", "indent(2)", "indent(1, true)"),
    *("trim('a')", "default('d', true)", "reverse", "first | string", "safe", "truncate(4)", "escape"),
]
_TO_TEXT = [
    *(
        "string",
        "tojson",
        "tojson(indent=2)",
        "tojson(sort_keys=true)",
        "tojson(separators=(',', ':'))",
        "upper",
        "trim",
    ),
    *("tojson(ensure_ascii=true)", "string | trim", "default('d') | string", "default('d', true) | string", "pprint"),
]
_LIST_FILTERS = [
    *("list", "reverse | list", "unique | list", "map(attribute='role') | list", "map('string') | list", "sort"),
    *("selectattr('role', 'equalto', 'user') | list", "rejectattr('content', 'none') | list", "select | list"),
    *("selectattr('content', 'defined') | list", "map('upper')", "reject('string') | list", "map(attribute='content')"),
    *("selectattr('role', 'in', ['user', 'tool'])", "batch(2) | list", "map('tojson') | list", "select('mapping')"),
    *("selectattr('tool_calls')", "slice(2) | list", "map('length') | list", "rejectattr('role', 'equalto', 'user')"),
    *("map(attribute='x', default=1) | list", "sort(attribute='role')", "unique"),
]
_TESTS = [
    *(
        "defined",
        "undefined",
        "none",
        "string",
        "mapping",
        "iterable",
        "sequence",
        "number",
        "boolean",
        "true",
        "false",
    ),
    *("integer", "float", "callable", "in ['user', 'a', 1]", "equalto 'user'", "eq 1", "sameas none", "lower", "ne ''"),
]
_SLICES = ["1:", ":-1", "::-1", "-1:", "1:2", ":2", "::2", "-2:", ":", "1:n"]
_CALL = "(<message>.tool_calls | default([{'function': {}}], true))[0].function"

ATOMS = {
    "text": ["<literal>", "<literal>", "<message>.role", "<message>['role']"]
    + [text.replace("C", "<message>.content") for text in ("(C if C is string else '')", "(C or '')", "(C | string)")],
    "number": ["0", "1", "2", "-1", "1.5", "n"],
    "truth": ["true", "false", "none", "0", "<any>"]
    + [f"<message>.role == {role!r}" for role in ("user", "assistant", "tool", "system")],
    "list": ["tools", "[]", "<messages>", "<message>.tool_calls", "<message>.content", "range(3)"],
    "messages": ["messages"],
    "message": ["messages[0]", "messages[-1]"],
    "mapping": ["<message>", _CALL, f"({_CALL}.arguments or {{}})", "(tools or [{}])[0]", "(extra or {'a': 1})"],
    "any": ["<message>.<key>", "<message>[<quoted key>]", "<message>.content", "(ns.other or 1)", "tools", "nowhere"],
}

ATOMS_IN_LOOPS = {
    "number": _COUNTERS,
    "truth": ["loop.first", "loop.last"],
    "message": ["messages[loop.index0 - 1]", "(loop.previtem or messages[0])", "(loop.nextitem or messages[0])"],
}

NESTED = {
    "text": ["(<text> + <text>)", "(<any> ~ <any> ~ '\\n')", "(<text> if <truth> else <text>)", "(<text> if <truth>)"]
    + ["(<iterable> | join)", "(<iterable> | join(', '))", "(<text> or <text>)", "'%s-%s' % (<any>, <number>)"]
    + ["<macro>(<any>)", "<macro>(<any>, <any>)", "(<text> + '\\n' + <text>)"]
    + [f"<text>[{part}]" for part in _SLICES]
    + [f"(<text>.{method})" for method in _TEXT_METHODS]
    + [f"(<text> | {name})" for name in _TEXT_FILTERS]
    + [f"(<any> | {name})" for name in _TO_TEXT],
    "number": [f"(<number> {sign} <number>)" for sign in "+-*"]
    + [f"(<number> {sign} {number})" for sign in ("%", "//", "/") for number in (2, 3)]
    + [
        "(<iterable> | length)",
        "(<iterable> | list | count)",
        "(<any> | int)",
        "-<number>",
        "(<messages> | length - 1)",
    ]
    + [f"<text>.{name}(<text>)" for name in ("find", "count", "rfind")],
    "truth": ["not <truth>", "(<truth> and <truth>)", "(<truth> or <truth>)", "<text> in <iterable>"]
    + ["<text> not in <iterable>", "<text>.startswith(<text>)", "<text>.endswith(<text>)"]
    + [f"(<any> {sign} <any>)" for sign in ("==", "!=")]
    + [f"(<number> {sign} <number>)" for sign in ("<", ">=", "==", ">")]
    + [f"<any> is {no}{test}" for test in _TESTS for no in ("", "not ")],
    "list": ["[<any>, <any>]", "(<any>, <text>)", "<text>.split()", "<text>.split('a')", "(<list> + [<any>])"]
    + [f"<list>[{part}]" for part in _SLICES]
    + [f"(<iterable> | {name})" for name in _LIST_FILTERS]
    + [f"(<mapping>.{name}() | list)" for name in ("items", "keys", "values")]
    + [f"<mapping>.{name}()" for name in ("items", "keys", "values")]
    + [f"(<mapping> | {name})" for name in ("dictsort", "items", "items | list", "dictsort(reverse=true)")],
    "messages": ["(<messages> | reverse)", "(<messages> | selectattr('role', 'ne', 'system') | list)"]
    + ["(<messages> | rejectattr('role', 'equalto', 'system'))", "(<messages> | list)"]
    + [f"<messages>[{part}]" for part in _SLICES],
    "message": ["(<messages> | first)", "(<messages> | last)", "messages[n]"],
    "mapping": ["{<quoted key>: <any>, 'b': <any>}", "dict(a=<any>, role=<text>)", "dict(<message>, x=<any>)"],
    "any": ["<text>", "<number>", "<list>", "<mapping>", "<truth>", "<message>[<text>]", "<iterable>[<number>]"]
    + ["<mapping>.get(<quoted key>)", "<mapping>.get(<quoted key>, <any>)", "(<any> | default(<any>))"]
    + ["(<any> | default(<any>, true))", "(<any> and <any>)", "(<any> or <any>)", "(<any> if <truth> else <any>)"]
    + [f"(<list> | {name})" for name in ("first", "last", "min", "sum")],
}

NESTED_IN_LOOPS = {
    "truth": ["loop.previtem is defined", "loop.nextitem is defined", "loop.changed(<any>)"],
    "any": ["loop.nextitem", "loop.cycle(1, 2)", "loop.depth"],
    "list": ["<list>[loop.index0:]"],
}

PARTS_OF = {"iterable": ["list", "messages", "mapping", "text"]}
"""Kinds that other kinds belong to."""
