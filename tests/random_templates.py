"""Random chat templates, written from a grammar of what real ones use (`template_grammar`).

Most expressions have the type that their place needs, so that most templates render; some have any type.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random

from random_conversations import KEYS, TEXTS
from template_grammar import ATOMS, ATOMS_IN_LOOPS, NESTED, NESTED_IN_LOOPS, PARTS_OF

LITERALS = [text for text in TEXTS if "\ud800" not in text]
_START = "{% set ns = namespace(i=0, seen=false, last='', items=1) %}{% set n = 1 %}"
_NAMES = {"number": ["ns.i"], "truth": ["ns.seen"], "text": ["ns.last"]}


class TemplateWriter:
    """Writes one template."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._made = 0  # names
        self._names: dict[str, list[str]] = _NAMES
        self._loops = 0
        self._leavable = 0  # loops that `break` can leave
        self._callers: list[str] = []  # macros that a call block can call

    def template(self) -> str:
        """Write a template; usually a loop over the messages comes last."""
        parts = [self._macro(2) for _ in range(self._random.choice([0, 0, 1, 2]))]
        parts += [self._statement(2) for _ in range(self._random.randrange(3))]
        return "".join([_START, *parts, self._loop(3, over=self._expression("messages", 1)), self._statement(1)])

    # --- statements ---

    def _statement(self, depth: int) -> str:
        options: list[Callable[[int], str]] = [self._output] * 3
        options += [self._data, self._set, self._set_namespace]
        if depth > 0:
            options += [self._if, self._if, self._loop, self._set_block, self._with, self._filter_block]
            options += [self._call_block, self._generation, self._macro, self._leave]
        return self._random.choice(options)(depth - 1)

    def _body(self, depth: int) -> str:
        with self._scope():
            return "".join(self._statement(depth) for _ in range(self._random.choice([1, 1, 2, 3])))

    def _function_body(self, depth: int) -> str:
        """Write what Jinja makes a function of, which cannot leave a loop around it."""
        leavable, self._leavable = self._leavable, 0
        body = self._body(depth)
        self._leavable = leavable
        return body

    def _output(self, depth: int) -> str:
        kind = self._random.choice(["text", "text", "number", "any", "truth", "list"])
        return self._tag("{{", self._expression(kind, 2), "}}")

    def _data(self, depth: int) -> str:
        return self._random.choice(["<|a|>", "\n", "  \n  ", "x ", "<think>\n", "{# no #}", "{# no -#}\n", "é"])

    def _set(self, depth: int) -> str:
        kind = self._random.choice(["text", "number", "list", "messages", "any", "mapping", "truth", "message"])
        value = self._expression(kind, 2)
        if self._random.random() < 0.2:
            number = self._expression("number", 2)
            return self._block(f"set {self._new(kind)}, {self._new('number')} = {value}, {number}")
        return self._block(f"set {self._new(kind)} = {value}")

    def _set_namespace(self, depth: int) -> str:
        name, kind = self._random.choice([("i", "number"), ("seen", "truth"), ("last", "text"), ("other", "any")])
        return self._block(f"set ns.{name} = {self._expression(kind, 2)}")

    def _set_block(self, depth: int) -> str:
        body = self._body(depth)
        return self._block(f"set {self._new('text')}", body, "endset")

    def _if(self, depth: int) -> str:
        parts = [self._block(f"if {self._expression('truth', 2)}"), self._body(depth)]
        if self._random.random() < 0.4:
            parts += [self._block(f"elif {self._expression('truth', 2)}"), self._body(depth)]
        if self._random.random() < 0.5:
            parts += [self._block("else"), self._body(depth)]
        return "".join([*parts, self._block("endif")])

    def _loop(self, depth: int, over: str | None = None) -> str:
        messages = over is not None or self._random.random() < 0.4
        items = over or self._expression("messages" if messages else "iterable", 1)
        with self._scope():
            if not messages and self._random.random() < 0.3:
                target = f"{self._new('text')}, {self._new('any')}"
                mapping = self._expression("mapping", 1)
                items = self._random.choice([f"{mapping}.items()", f"{mapping} | items", "[(1, 2), 'ab']"])
            else:
                target = self._new("message" if messages else "any")
            condition = f" if {self._expression('truth', 1)}" if self._random.random() < 0.25 else ""
            self._loops, leavable, self._leavable = self._loops + 1, self._leavable, 1
            parts = [self._block(f"for {target} in {items}{condition}"), self._body(depth), self._body(depth)]
            self._loops, self._leavable = self._loops - 1, leavable
        if self._random.random() < 0.2:
            parts += [self._block("else"), self._body(depth)]
        return "".join([*parts, self._block("endfor")])

    def _leave(self, depth: int) -> str:
        condition = self._expression("truth", 1)
        if self._random.random() < 0.1:
            return f"{{% if {condition} and not n %}}{{{{ raise_exception('no') }}}}{{% endif %}}"
        if not self._leavable:
            return self._output(depth)
        return f"{{% if {condition} %}}{{% {self._random.choice(['break', 'continue'])} %}}{{% endif %}}"

    def _with(self, depth: int) -> str:
        with self._scope():
            text, number = self._expression("text", 2), self._expression("number", 2)
            start = f"with {self._new('text')} = {text}, {self._new('number')} = {number}"
            return self._block(start, self._body(depth), "endwith")

    def _filter_block(self, depth: int) -> str:
        name = self._random.choice(["upper", "trim", "replace('a', 'b')", "indent(2)"])
        return self._block(f"filter {name}", self._function_body(depth), "endfilter")

    def _generation(self, depth: int) -> str:
        return self._block("generation", self._function_body(depth), "endgeneration")

    def _macro(self, depth: int) -> str:
        self._made += 1
        name = f"f{self._made}"
        calls = self._random.random() < 0.3
        loops, self._loops = self._loops, 0
        with self._scope():
            start = f"macro {name}({self._fresh('any')}, {self._fresh('any')}={self._expression('any', 1)})"
            caller = f"{{{{ caller({self._expression('text', 1)}) if caller else '' }}}}" if calls else ""
            body = self._function_body(depth) + caller + self._function_body(depth)
        self._loops = loops
        self._callers += [name] if calls else []
        self._add("macro", name)
        return self._block(start, body, "endmacro")

    def _call_block(self, depth: int) -> str:
        callers = [name for name in self._callers if name in self._names.get("macro", [])]
        if not callers:
            return self._output(depth)
        call = f"{self._random.choice(callers)}({self._expression('any', 1)})"
        with self._scope():
            return self._block(f"call({self._new('text')}) {call}", self._function_body(depth), "endcall")

    # --- expressions ---

    def _expression(self, kind: str, depth: int) -> str:
        kind = self._random.choice(PARTS_OF.get(kind, [kind]))
        tables = [ATOMS, *([ATOMS_IN_LOOPS] if self._loops else [])]
        if depth > 0 and self._random.random() < 0.7:
            tables = [NESTED, *([NESTED_IN_LOOPS] if self._loops else [])]
        known = self._names.get(kind, [])
        if known and (depth <= 0 or self._random.random() < 0.15) and self._random.random() < 0.6:
            return self._random.choice(known)
        # A table first: expressions of loops are fewer than the others, and as important.
        options = self._random.choice([found for table in tables if (found := table.get(kind))])
        return re.sub(r"<([a-z ]+)>", lambda part: self._part(part[1], depth - 1), self._random.choice(options))

    def _part(self, kind: str, depth: int) -> str:
        if kind == "literal":
            return repr(self._random.choice(LITERALS))
        if kind == "key":
            return self._random.choice([key for key in KEYS if key.isidentifier()])
        if kind == "quoted key":
            return repr(self._random.choice(KEYS))
        if kind == "macro":
            return self._random.choice(self._names.get("macro") or ["dict"])
        return self._expression(kind, depth)

    # --- names and tags ---

    def _new(self, kind: str) -> str:
        """Return a name for a value, often one that hides another value of the same kind."""
        if self._random.random() < 0.6:
            return self._fresh(kind)
        return self._add(kind, {"number": "n", "any": "x", "message": "message"}.get(kind, f"{kind}_1"))

    def _fresh(self, kind: str) -> str:
        self._made += 1
        return self._add(kind, f"x{self._made}")

    def _add(self, kind: str, name: str) -> str:
        self._names = {**self._names, kind: [*self._names.get(kind, []), name]}
        return name

    @contextmanager
    def _scope(self) -> Iterator[None]:
        names = self._names
        yield
        self._names = names

    def _block(self, start: str, body: str | None = None, end: str = "") -> str:
        opened = self._tag("{%", start, "%}")
        return opened if body is None else opened + body + self._tag("{%", end, "%}")

    def _tag(self, start: str, inside: str, end: str) -> str:
        before = self._random.choice([start, start, f"{start}-", f"\n{start}", f"\n  {start}"])
        return f"{before} {inside} {self._random.choice(['', '', '-'])}{end}"
