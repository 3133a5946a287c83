"""The fast renderer compared with the reference, and its verification."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import date
from functools import lru_cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

import chat_templates as templates
from chat_templates import plain_rendering
from sftkit.core.message_fields import RESERVED_VARIABLES
from sftkit.core.row_log import EngineDifferenceError, RowError
from sftkit.core.rows import Row
from sftkit.tokenization.chat_tokenizer import ChatTokenizer
from sftkit.tokenization.chat_tokenizer_spec import ChatTokenizerSpec
from sftkit.tokenization.conversations import Conversation
from sftkit.tokenization.engines import RENDERER, EnginePolicy
from sftkit.tokenization.loading.tokenizer_loading import TokenizerSpec, load_tokenizer
from sftkit.tokenization.masking.turns.turn_finder import TurnFinder
from sftkit.tokenization.rendering.compiled_renderer import CompiledRenderer
from sftkit.tokenization.rendering.reference_renderer import ReferenceRenderer, Renderer
from sftkit.tokenization.verification import VerificationSampler, VerifiedFunction, conversation_kind
from support import WATCHED

Pair = tuple[ReferenceRenderer, CompiledRenderer]
MakePair = Callable[[str], Pair]

SOURCES = {**templates.ALL, "opens_reasoning": templates.OPENS_REASONING, "seed": templates.SEED}


@pytest.fixture(scope="session")
def pair_of(tokenizer_path: Callable[[str], str]) -> Callable[[str], Pair]:
    """Make both renderers for a template, once."""

    @lru_cache(maxsize=4)  # tokenizers are big, and cases in order of style
    def make(template: str) -> Pair:
        tokenizer = load_tokenizer(TokenizerSpec(tokenizer_path("bpe"), chat_template=template))
        reference = ReferenceRenderer(tokenizer)
        return reference, CompiledRenderer(tokenizer, reference)

    return make


def says(*contents: Any, **more: Any) -> list[Row]:
    """Make alternating user and assistant messages; other keys go to the last message."""
    messages = [{"role": ("user", "assistant")[i % 2], "content": content} for i, content in enumerate(contents)]
    return [*messages[:-1], {**messages[-1], **more}]


def calls(arguments: Any, content: Any = None) -> Conversation:
    """Make a conversation with a tool, a call of it and its result, in the format of OpenAI."""
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": arguments}}
    answer = {"role": "tool", "tool_call_id": "c1", "name": "add", "content": '{"sum": 3}'}
    return Conversation([*says("1+2?", content, tool_calls=[call]), answer, *says("so", "3")], TOOLS)


NESTED = {"type": "object", "properties": {"a": {"type": ["number", "null"], "enum": [1, 2.5, None], "x": {"y": []}}}}
TOOLS = [
    {"type": "function", "function": {"name": "add", "description": 'a "sum" <b> & é', "parameters": NESTED}},
    {"type": "function", "function": {"name": "now", "parameters": {}, "strict": True}},
]
SYSTEM = {"role": "system", "content": " be kind\n"}

# Usual conversations: the fast engine must render them if the reference does.
MAINSTREAM = {
    "two turns": Conversation(says("hi", "hello", "bye", "see you")),
    "system": Conversation([SYSTEM, *says("hi", "hello")]),
    "user last": Conversation(says("hi", "hello", "bye")),
    "tools": Conversation([SYSTEM, *says("hi", "hello")], TOOLS),
    "documents": Conversation(says("hi", "hello"), None, [{"title": "t", "text": "x"}]),
    "call with a dict": calls({"a": 1, "b": [2, {"c": "é"}]}),
    "call with text": calls('{"a": 1, "b": 2}'),
    "call with empty text": calls("", ""),
    "call with a content": calls({"a": True, "b": None}, "let me see"),
    "reasoning": Conversation([*says("a", "b", thinking="hm"), *says("c", "d", reasoning_content="\nhm \n")]),
    "reasoning in the content": Conversation(says("a", "<think>\nhm\n</think>\n\nb", "c", "d")),
    "null keys": Conversation(says("a", "b", "c", "d", name=None, tool_calls=None)),
    "empty": Conversation(says("", "", "", "")),
    "not ASCII": Conversation(says("Grüße, 你好 \u200b\u00ad", "😀👩‍👩‍👧 e\u0301 \U0010ffff\ufffd\ufeff")),
    "control characters": Conversation(says("\x00a\x00", "\x01\x07\x08\x1b\x7f\x80\x9f\ufffe")),
    "quotes": Conversation(says('"it\'s" \\ \\n \\\\', "\\\" ' `` \\u0041 </s> <b>&amp;")),
    "Jinja": Conversation(says("{{ messages }} {% for %}", "{# no #} {%- endfor -%} {{ raise_exception('x') }}")),
    "white space": Conversation(says(" \t\n\v\f\r a \r\n", "\x85\xa0\u2028\u2029\u3000b\u2000\u202f\u205f\u1680")),
    "very long": Conversation(says("ab " * 9_999, "é\n" * 9_999)),
    "whole row": Conversation({"messages": says("hi", "hello"), "id": "7", "none": None}),
    "many": Conversation(says(*map(str, range(60)))),
}
# Unusual conversations: the fast engine may refuse them.
ODD = {
    "separators": Conversation(says("\x1ca\x1d", "\x1eb\x1f")),
    "lone surrogate": Conversation(says("a\ud800", "b")),
    "lone surrogate in a key": Conversation(says("a", "b", **{"\udfff": 1})),
    "no content": Conversation([{"role": "user"}, {"role": "assistant"}]),
    "content is null": Conversation(says("a", None)),
    "parts": Conversation(says([{"type": "text", "text": "a"}], [{"type": "text", "text": "b 'é'\n"}])),
    "numbers and truth": Conversation(says(1, -7, 0, 12345678901234567, True, False)),
    "float": Conversation(says(1.5, 0.1, 123.456, -2.5e-3)),
    "whole float": Conversation(says(1.0, -0.0)),
    "very large and very small floats": Conversation(says(1e20, 1.5e300, 1e-7, 5e-324)),
    "not a number": Conversation(says(float("nan"), float("inf"))),
    "very large number": Conversation(says(2**63, -(2**70))),
    "dict": Conversation(says({"a": None, "b": [True, 1.5, "it's"]}, {})),
    "list": Conversation(says([], [[], [None, 'q"']], ["a'\"b\\\n\t\x00é😀\u200b\xad"])),
    "odd numbers in a call": calls({"a": [1.0, 1e20, 2**64, -0.0, 1e-9]}),
    "odd numbers in a tool": Conversation(says("a", "b"), [{"name": "f", "parameters": {"max": 1e16}}]),
    "keys of dicts": Conversation(says("a", "b", items=1, keys="k", get=[2], content_=None)),
    "role that is not text": Conversation([{"role": 3, "content": "a"}, {"role": None, "content": "b"}]),
}
CONVERSATIONS = {**MAINSTREAM, **ODD}


def rendered(renderer: Renderer, conversation: Conversation, *, prompt: bool = False) -> str | None:
    """Return the text; None if it cannot be rendered."""
    try:
        return renderer.render(conversation, add_generation_prompt=prompt)
    except RowError:
        return None


def check_renders_the_same(pair: Pair, conversation: Conversation, *, always: bool) -> None:
    """Check that both engines give the same text, also with a prompt, and record the same.

    If not `always`, the fast engine may also refuse the conversation.
    """
    reference, fast = pair
    for prompt in (True, False):
        text = rendered(fast, conversation, prompt=prompt)
        if text is not None or always:
            assert text == rendered(reference, conversation, prompt=prompt)
    try:
        recorded = fast.record(conversation)
        expected = reference.record(conversation)
    except RowError:
        return
    assert (recorded.text, recorded.blocks) == (expected.text, expected.blocks)


@pytest.mark.parametrize("name", SOURCES)
def test_both_engines_render_every_template_the_same(pair_of: MakePair, name: str) -> None:
    for kind, conversation in CONVERSATIONS.items():
        check_renders_the_same(pair_of(SOURCES[name]), conversation, always=kind in MAINSTREAM)


@pytest.mark.parametrize("name", ["qwen3", "granite", "tinyllama", "sample:model"])
def test_both_engines_render_real_templates_the_same(reference: Callable[[str], Any], name: str) -> None:
    if reference(name).chat_template is None:
        pytest.skip("this tokenizer has no chat template")
    renderer = ReferenceRenderer(reference(name))
    pair = renderer, CompiledRenderer(reference(name), renderer)
    for kind, conversation in CONVERSATIONS.items():
        check_renders_the_same(pair, conversation, always=kind in MAINSTREAM)


PIECES = st.sampled_from(
    ["a", " ", "\n", "'", '"', "\\", "{{", "%}", "\0", "\x1c", "\x85", "\ud800", "ß", "😀", "</s>"]
)
TEXT = st.lists(PIECES | st.characters(), max_size=6).map("".join)
SCALAR = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
VALUE = st.recursive(SCALAR, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2))
KEY = st.sampled_from(["reasoning_content", "thinking", "tool_calls", "name", "items"])
MESSAGE = st.tuples(TEXT | VALUE, st.dictionaries(KEY, TEXT | VALUE, max_size=1))
TOOL_LIST = st.none() | st.lists(st.dictionaries(TEXT, VALUE, max_size=2), max_size=2)


@settings(max_examples=200)
@given(name=st.sampled_from(sorted(SOURCES)), said=st.lists(MESSAGE, min_size=1, max_size=3), tools=TOOL_LIST)
def test_random_conversations_are_rendered_the_same_or_refused(
    pair_of: MakePair, name: str, said: list[tuple[Any, Row]], tools: list[Any] | None
) -> None:
    messages = [{**message, **more} for message, (_, more) in zip(says(*(c for c, _ in said)), said, strict=True)]
    check_renders_the_same(pair_of(SOURCES[name]), Conversation(messages, tools), always=False)


@pytest.mark.parametrize("template", SOURCES)
def test_both_engines_find_the_same_turns(pair_of: MakePair, template: str) -> None:
    finders = [TurnFinder(renderer) for renderer in pair_of(SOURCES[template])]

    def found(finder: TurnFinder, conversation: Conversation) -> object:
        try:
            return finder.find(conversation)
        except RowError:
            return None

    for name, conversation in CONVERSATIONS.items():
        expected, made = (found(finder, conversation) for finder in finders)
        assert made == expected or (made is None and name in ODD), name


# --- Constructs of Jinja ------------------------------------------------------------------------------------------

M = [{"role": "user", "content": "ab"}, {"role": "assistant", "content": "it's"}]
FUNCTIONS_AS_TEXT = "<Macro 'f'><LoopContext 1/1>"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{% set n = namespace(i=0) %}{% for m in messages %}{% set n.i = n.i + 1 %}{% endfor %}{{ n.i }}", "2"),
        ("{% for m in messages %}{{ loop.first }}{{ loop.last }}{{ loop.index0 }}{% endfor %}", "TrueFalse0FalseTrue1"),
        ("{% for m in messages[1:] %}{{ loop.length }}{% endfor %}{{ messages[:-1] | length }}", "11"),
        ("{% macro m(a, b) %}{{ a }}{{ b }}{% endmacro %}{{ m(1, 'x') }}{{ m(2, b='y') }}{{ m(3, 4) }}", "1x2y34"),
        ("{{ messages[0] | tojson(indent=2) }}", '{\n  "role": "user",\n  "content": "ab"\n}'),
        ("{{ messages | selectattr('role', 'equalto', 'user') | list | length }}", "1"),
        ("{{ messages | map(attribute='content') | join(', ') }}", "ab, it's"),
        ("{{ ' a-b '.strip().split('-')[-1] }}{{ 'ab'.startswith('a') }}{{ 'xax'.lstrip('x') }}", "bTrueax"),
        ("{{ tools is defined }}{{ x is defined }}{{ messages[0].content is string }}", "TrueFalseTrue"),
        ("{{ messages[0] is mapping }}{{ messages[0].x is none }}{{ 'role' in messages[0] }}", "TrueFalseTrue"),
        (
            "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ m.role }}{% break %}{% endfor %}",
            "assistant",
        ),
        ("{% for k, v in messages[0].items() %}{{ k ~ '=' ~ v }};{% endfor %}", "role=user;content=ab;"),
        ("{% for m in messages if m.role == 'user' %}{{ m['role'] | upper }}{% else %}no{% endfor %}", "USER"),
        ("{% set x %}a{{ 1 }}{% endset %}{{ x }}{{ messages[0].get('x', 'y') }}{{ x or 2 }}", "a1ya1"),
        ("{% set x = 'é😀x' %}{{ x.find('x') }}{{ x[1:] }}{{ x | length }}{{ -7 // 2 }}{{ -7 % 3 }}", "2😀x3-42"),
        ("{% generation %}{{ messages[1].content }}{% endgeneration %}", "it's"),
        ("{% with a = 1, b = a %}{{ b }}{% endwith %}", ""),
        ("{% macro m(x, y=true) %}{{ 'yes' if y else 'no' }}{% endmacro %}{{ m(1, y=messages[0].zz) }}", "no"),
        ("{{ messages[0].role.upper() }}{{ 'ß'.capitalize() }}{{ 'ß' | capitalize }}", "USERSsSs"),
        ("{{ {'items': 1}['items'] }}{{ {'a': 1}.items() | list }}", "1[('a', 1)]"),
        ("{{ '\x1ca'.strip() }}{{ 1e20 }}{{ 1_000 }}{{ 1 / 2 }}", "a1e+2010000.5"),
        ("{% for x in messages recursive %}{{ x.role }}{{ loop.depth }}{% endfor %}", "user1assistant1"),
        ("{% for x in messages %}{{ loop.cycle('a', 'b') }}{{ loop.changed(1) }}{% endfor %}", "aTruebFalse"),
        ("{% for x in 'ab' %}{{ loop.revindex }}{{ loop.previtem }}{{ loop.nextitem }}{% endfor %}", "2b1a"),
        ("{% for x in {'a': 1} %}{{ loop.length }}{{ loop.revindex0 }}{{ x }}{% endfor %}", "10a"),
        (
            "{% macro w() %}{{ caller() }}{% endmacro %}{% call w() %}x{% endcall %}{% filter upper %}a{% endfilter %}",
            "xA",
        ),
        (
            "{% set n = namespace(a=1, items=2) %}{% set n.b = n.a %}{{ n.a }}{{ n.b }}{{ n.items }}{{ n.c }}{{ n }}",
            "112<Namespace {'a': 1, 'items': 2, 'b': 1}>",
        ),
        ("{% for m in messages if m.role != (n | default('user')) %}{{ loop.index }}{% endfor %}", "1"),
        ("{{ messages[5] is defined }}{{ messages[-2].role }}{{ messages['0'] is defined }}", "FalseuserFalse"),
        ("{% if not messages[0].tool_calls and messages[0]['content'] %}a{% endif %}{{ messages[0].x or 'b' }}", "ab"),
        (
            "{{ messages[0].keys is defined }}{{ messages[0]['keys'] is defined }}{{ 'a'.x is defined }}",
            "TrueTrueFalse",
        ),
        ("{% set i = 1 %}{{ messages[i].role }}{{ messages[0]['ro' ~ 'le'] }}{{ 7 - i }}", "assistantuser6"),
        ("{% if 0 %}a{% else %}b{% endif %}{% if 0 %}{% set x = 1 %}{% endif %}{{ x }}", "b"),
        ("{% set d = {'a': nowhere} %}{{ d.a is defined }}{{ d['a'] is defined }}", "FalseFalse"),
        (
            "{% macro f() %}{% endmacro %}{{ [f][0] }}{% for m in [1] %}{{ {'a': loop}.a }}{% endfor %}",
            FUNCTIONS_AS_TEXT,
        ),
        (
            "{% set n = namespace() %}{% for m in messages %}{% macro f() %}{{ loop.index }}{% endmacro %}"
            "{{ f() }}{% set n.f = f %}{% endfor %}{{ n.f() }}",
            "12",
        ),
        ("{{ " + "messages[0].get('a', " * 18 + "'b'" + ")" * 18 + " }}", "b"),  # not rewritten again at each level
    ],
)
def test_constructs_of_jinja_are_rendered_as_expected(pair_of: MakePair, source: str, expected: str) -> None:
    assert [renderer.render(Conversation(M)) for renderer in pair_of(source)] == [expected] * 2


def test_a_loop_that_takes_items_one_by_one_is_left_to_the_reference(pair_of: MakePair) -> None:
    reference, fast = pair_of(
        "{% set roles = messages | map(attribute='role') %}"
        "{% for role in roles %}{{ loop.index }}{% break %}{% endfor %}{{ roles | list }}"
    )
    assert reference.render(Conversation(M)) == "1['assistant']"
    with pytest.raises(RowError, match="one by one"):
        fast.render(Conversation(M))


def deep_list(depth: int) -> list[Any]:
    return [deep_list(depth - 1)] if depth else []


class Text(str):
    """Text of another type."""


@pytest.mark.parametrize(
    "message",
    [
        *({1: "a"}, {None: "a"}, {(1, 2): "a"}, {date(2024, 7, 26): "a"}, {Text("a"): "a"}),
        *(
            {"content": value}
            for value in [("a", 1), date(2024, 7, 26), b"a", Text("a"), {1}, [Text("a")], deep_list(500)]
        ),
    ],
)
def test_values_of_other_types_than_json_are_left_to_the_reference(pair_of: MakePair, message: Row) -> None:
    with pytest.raises(RowError, match="it has"):
        pair_of("{{ messages }}")[1].render(Conversation([*M, message]))


def test_messages_that_are_not_objects_are_left_to_the_reference(pair_of: MakePair) -> None:
    messages: list[Any] = [*M, "a"]
    with pytest.raises(RowError, match="not a list of objects"):
        pair_of("{{ messages }}")[1].render(Conversation(messages))


def test_a_message_that_stands_twice_is_recorded_twice(pair_of: MakePair) -> None:
    for renderer in pair_of(templates.CHATML):
        assert [block.message for block in renderer.record(Conversation([M[0], M[0], M[1], M[0]])).blocks] == [
            0,
            1,
            2,
            3,
        ]


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{% macro f() %}{% break %}{% endmacro %}{% endfor %}",
        "{% macro f(a, a) %}{% endmacro %}",
        "{{ messages[0]" + ".x" * 400 + " }}",
    ],
)
def test_what_python_cannot_compile_is_not_recorded(pair_of: MakePair, template: str) -> None:
    assert pair_of("")[0].can_record(template) is False


def test_the_arguments_of_transformers_cannot_be_variables_of_templates() -> None:
    arguments = inspect.signature(PreTrainedTokenizerBase.apply_chat_template).parameters
    assert set(arguments) - {"kwargs"} <= RESERVED_VARIABLES


# --- Verification --------------------------------------------------------------------------------------------


def verified_by_right(fast: Callable[[Conversation], str]) -> tuple[VerifiedFunction[str], list[Conversation]]:
    """Verify a function by a reference that returns "right"; also return the conversations that the reference got."""
    given: list[Conversation] = []

    def reference(conversation: Conversation) -> str:
        given.append(conversation)
        return "right"

    return VerifiedFunction(fast, reference, VerificationSampler(0.0)), given


def refuses(conversation: Conversation) -> str:
    raise RowError("no")


@pytest.mark.parametrize("reference", [lambda conversation: "right", refuses])
def test_a_wrong_result_of_the_fast_engine_raises(reference: Any) -> None:
    with pytest.raises(EngineDifferenceError) as raised:
        VerifiedFunction(lambda conversation: "wrong", reference, VerificationSampler(0.0))(Conversation(says("a")))
    assert raised.value.engine == RENDERER


def test_the_reference_renders_what_the_fast_engine_cannot() -> None:
    function, given = verified_by_right(refuses)
    assert [function(Conversation(says("a"))) for _ in range(20)] == ["right"] * 20
    assert len(given) == 20
    with pytest.raises(RowError, match="no"):
        VerifiedFunction(refuses, refuses, VerificationSampler(0.0))(Conversation(says("a")))


def test_a_new_kind_of_conversation_is_always_verified() -> None:
    function, given = verified_by_right(lambda conversation: "right")
    first, other = Conversation(says("a", "b")), Conversation(says("a", None))
    for _ in range(50):
        function(first)
    assert 1 <= len(given) <= 10
    given.clear()
    for conversation in (first, other, first, other, other):
        function(conversation)
    assert given == [other]


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (Conversation(says("x y", "z")), True),
        (Conversation(says("a", "b", "c", "d")), True),
        (Conversation(says("a", "b", "c")), False),
        (Conversation([SYSTEM, *says("a", "b")]), False),
        (Conversation([*says("a", "b"), {"role": "tool", "content": "c"}, *says("a", "b")]), False),
        (Conversation(says("a", "b", name="c")), False),
        (Conversation(says("a", None)), False),
        (Conversation(says(["a"], "b")), False),
        (Conversation(says("a", "b"), TOOLS), False),
        (Conversation(says("a", "b"), None, [{}]), False),
        (Conversation({"messages": says("a", "b")}), False),
    ],
)
def test_conversations_that_differ_only_in_texts_are_of_the_same_kind(other: Conversation, same: bool) -> None:
    assert (conversation_kind(other) == conversation_kind(Conversation(says("a", "b")))) is same


BLOCK = "{% block a %}" + templates.CHATML + "{% endblock %}"


@pytest.mark.parametrize(
    ("template", "engines", "expected"),
    [
        (templates.CHATML, WATCHED, "compiled"),
        (templates.CHATML, EnginePolicy(frozenset({RENDERER}), 1.0), "jinja2"),
        (BLOCK, WATCHED, "jinja2"),
    ],
)
@pytest.mark.parametrize("used_for", ["render", "find_trained_spans"])
def test_a_chat_tokenizer_reports_the_renderer_it_used(
    tokenizer_path: Callable[[str], str], template: str, engines: EnginePolicy, expected: str, used_for: str
) -> None:
    tokenizer = ChatTokenizer(
        ChatTokenizerSpec(TokenizerSpec(tokenizer_path("bpe"), chat_template=template), "assistant", engines)
    )
    assert tokenizer.engines_used == {}
    made = getattr(tokenizer.conversations, used_for)({"messages": M}, "messages")
    assert (made if used_for == "render" else made[0]) == plain_rendering(template, messages=M)
    assert tokenizer.engines_used == {RENDERER: expected}
