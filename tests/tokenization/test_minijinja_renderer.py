"""The fast renderer compared with the reference, which templates it accepts, and its verification."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import minijinja
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chat_templates as templates
from chat_templates import plain_rendering
from sftkit.core.row_log import EngineDifferenceError, RowError
from sftkit.core.rows import Row
from sftkit.tokenization.chat_tokenizer import ChatTokenizer
from sftkit.tokenization.chat_tokenizer_spec import ChatTokenizerSpec
from sftkit.tokenization.conversations import Conversation
from sftkit.tokenization.engines import RENDERER, EnginePolicy, UnsupportedByEngineError
from sftkit.tokenization.masking.turns.turn_finder import TurnFinder
from sftkit.tokenization.rendering.minijinja_renderer import MinijinjaRenderer
from sftkit.tokenization.rendering.minijinja_support import check_template
from sftkit.tokenization.rendering.reference_renderer import ReferenceRenderer, Renderer
from sftkit.tokenization.templates.template_lexer import unmarked_template
from sftkit.tokenization.templates.template_marks import (
    INDEX_FUNCTION,
    MARK_END,
    MARK_START,
    mark_template,
    split_marks,
)
from sftkit.tokenization.tokenizer_loading import TokenizerSpec, load_tokenizer
from sftkit.tokenization.verification import VerificationSampler, VerifiedFunction, conversation_kind
from support import WATCHED

Pair = tuple[ReferenceRenderer, MinijinjaRenderer]
MakePair = Callable[[str], Pair]

SOURCES = {**templates.ALL, "opens_reasoning": templates.OPENS_REASONING, "seed": templates.SEED}


@pytest.fixture(scope="session")
def pair_of(tokenizer_path: Callable[[str], str]) -> Callable[[str], Pair]:
    """Make both renderers for a template, once."""

    @cache
    def make(template: str) -> Pair:
        tokenizer = load_tokenizer(TokenizerSpec(tokenizer_path("bpe"), chat_template=template))
        reference = ReferenceRenderer(tokenizer)
        return reference, MinijinjaRenderer(tokenizer, reference)

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
    """Check that both engines give the same text, also with a prompt and with marks.

    If not `always`, the fast engine may also refuse the conversation.
    """
    reference, fast = pair
    for prompt in (True, False):
        text = rendered(fast, conversation, prompt=prompt)
        if text is not None or always:
            assert text == rendered(reference, conversation, prompt=prompt)
    marked = mark_template(reference.source(with_tools=conversation.tools is not None))
    if text is not None and marked is not None:
        made = fast.render_marked(conversation, marked)
        assert split_marks(made)[0] == text
        if isinstance(conversation.messages, list):  # the index function is different for whole rows
            assert made == reference.render_marked(conversation, marked)


@pytest.mark.parametrize("name", SOURCES)
def test_both_engines_render_every_template_the_same(pair_of: MakePair, name: str) -> None:
    for kind, conversation in CONVERSATIONS.items():
        check_renders_the_same(pair_of(SOURCES[name]), conversation, always=kind in MAINSTREAM)


@pytest.mark.parametrize("name", ["qwen3", "granite", "tinyllama", "sample:model"])
def test_both_engines_render_real_templates_the_same(reference: Callable[[str], Any], name: str) -> None:
    if reference(name).chat_template is None:
        pytest.skip("this tokenizer has no chat template")
    renderer = ReferenceRenderer(reference(name))
    pair = renderer, MinijinjaRenderer(reference(name), renderer)
    for kind, conversation in CONVERSATIONS.items():
        check_renders_the_same(pair, conversation, always=kind in MAINSTREAM)


PIECES = st.sampled_from(
    ["a", " ", "\n", "'", '"', "\\", "{{", "%}", "\0", "\x1c", "\x85", "\ud800", "ß", "😀", MARK_END]
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


# --- Accepted templates --------------------------------------------------------------------------------------------

M = [{"role": "user", "content": "ab"}, {"role": "assistant", "content": "it's"}]

DIFFERENT = [  # the engines render these differently (a test below shows it)
    ("{{ messages | map(attribute='role') }}", "map that is not consumed at once"),
    (
        "{% for c in messages[0].content %}{{ loop.last }}{% endfor %}",
        "the length of a loop over a value that may be text",
    ),
    ("{% with a = 1, b = a %}{{ b }}{% endwith %}", "a With"),
    ("{% macro m(a, b=a) %}{{ b }}{% endmacro %}{{ m(1) }}", "a macro with a default"),
    ("{{ messages[0].role.upper }}", "the attribute upper"),
    ("{{ messages[1].content.title() }}", "the method title"),
    ("{{ 'ß'.capitalize() }}", "the method capitalize"),
    ("{{ 'ß' | capitalize }}", "the filter capitalize"),
    ("{{ [1, 2] | reverse }}", "the filter reverse"),
    ("{{ 1e20 }}", "the number 1e20"),
    (r"{{ 'a\a' }}", "the escape in"),
    ("{{ {'items': 1}.items }}", "the attribute items"),
    ("{{ 'x'['upper'] }}", "the item upper"),
    ('{% autoescape true %}{{ "\'" }}{% endautoescape %}', "a Scope"),
    ("{% macro m() %}{{ varargs }}{% endmacro %}{{ m(1) }}", "the name varargs"),
    ("{{ range(3) }}", "a range that is not looped over"),
    ("{{ namespace() }}", "a namespace that is not assigned to a name"),
    ("{{ 'abc'.split('')[0] }}", "split with an empty text"),
    ("{{ '\x1ca'.strip() }}", "a separator control character"),
]
SOMETIMES_DIFFERENT = [  # constructs of which only some uses are rendered differently
    ("{{ messages[0].content | safe }}", "the filter safe"),
    ("{{ '%s' | format('a') }}", "the filter format"),
    ("{{ ['b', 'a'] | sort }}", "the filter sort"),
    ("{{ 1_000 }}", "the number 1_000"),
    (r"{{ '\101' }}", "the escape in"),
    (r"{{ '\ud83d\ude00' }}", "the escape in"),
    ("{{ {'items': 1}['items'] }}", "the item items"),
    ("{% macro w() %}{{ caller() }}{% endmacro %}{% call w() %}x{% endcall %}", "the function caller"),
    ("{% filter upper %}a{% endfilter %}", "a FilterBlock"),
    ("{% for x in messages recursive %}{{ x.role }}{% endfor %}", "a recursive loop"),
    ("{% set a = 1 %}{% macro m() %}{{ a }}{% endmacro %}{{ m() }}", "a macro that uses a variable from outside"),
    ("{{ 'a'.startswith(('a', 'b')) }}", "startswith with several texts"),
    ("{{ [messages, 1] }}", "a list or dict that is printed"),
    ("{{ 1 / 2 }}", "a Div"),
    ("{% for %}", "line 1: "),
]


@pytest.mark.parametrize(("source", "reason"), DIFFERENT + SOMETIMES_DIFFERENT)
def test_a_template_that_may_be_rendered_differently_is_refused_with_a_reason(source: str, reason: str) -> None:
    with pytest.raises(UnsupportedByEngineError) as raised:
        check_template(source)
    assert reason in str(raised.value)


@pytest.mark.parametrize("source", [source for source, _ in DIFFERENT])
def test_refused_templates_are_rendered_differently(source: str) -> None:
    def outcome(render: Callable[[], str]) -> str:
        try:
            return render()
        except (ValueError, minijinja.TemplateError):
            return "an error"

    environment = minijinja.Environment(keep_trailing_newline=True, auto_escape_callback=lambda name: None)
    fast = outcome(lambda: environment.render_str(source, messages=M))
    assert fast != outcome(lambda: plain_rendering(source, messages=M))


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
    ],
)
def test_common_constructs_are_accepted(pair_of: MakePair, source: str, expected: str) -> None:
    assert [renderer.render(Conversation(M)) for renderer in pair_of(source)] == [expected] * 2


# --- Marks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_an_unmarked_template_renders_like_its_source(pair_of: MakePair, source: str) -> None:
    reference, _ = pair_of(source)
    plain = unmarked_template(source)
    assert "generation %}" not in plain
    for conversation in MAINSTREAM.values():
        if rendered(reference, conversation) is not None:
            expected = reference.render(conversation, add_generation_prompt=True)
            assert reference.render(conversation, template=plain, add_generation_prompt=True) == expected


LOOP = "{% for m in messages %}{{ m.content }}{% endfor %}"


@pytest.mark.parametrize(
    ("source", "counted", "calls_index", "marks"),
    [
        (templates.CHATML, "0", False, 2),
        (templates.QWEN3_LIKE, "0", False, 2),  # the loop that writes nothing has no marks
        (templates.PARTS, "0", False, 2),  # the loop within has none either
        (templates.TOOLS, "1", True, 4),
        (templates.LLAMA2, "", True, 2),
        (templates.BY_INDEX, "", False, 2),
        (LOOP.replace("messages", "messages[1:]"), "", True, 2),
        (LOOP + LOOP, "", False, 4),
        ("{% set messages = messages[1:] %}" + LOOP, "", True, 2),
        (LOOP + "{% for messages in [1] %}{% endfor %}", "", True, 2),
        (f"{{% for x in [1] %}}{LOOP}{{% endfor %}}", "1", True, 4),
        (templates.GENERATION, "", False, 2),
    ],
)
def test_iterations_over_messages_are_counted_and_other_loops_call_the_index_function(
    source: str, counted: str, calls_index: bool, marks: int
) -> None:
    marked = mark_template(source)
    assert marked is not None
    assert (marked.counted_loop, marked.calls_index_function, f"{INDEX_FUNCTION}(" in marked.source) == (
        counted,
        calls_index,
        calls_index,
    )
    assert marked.source.count(MARK_START) == marks


@pytest.mark.parametrize(
    "text",
    ["\x0e", MARK_END, f"\x0e0{MARK_END}", f"{MARK_START[:-1]}x0:1{MARK_END}", f"{MARK_START[:-1]}/0{MARK_END}"],
    ids=[
        "first",
        "last",
        "mark",
        "begin",
        "end",
    ],  # the texts differ between processes, so pytest cannot use them as ids
)
@pytest.mark.parametrize("source", [templates.CHATML, templates.BY_INDEX, templates.GENERATION, templates.PARTS])
def test_data_with_the_control_characters_of_marks_changes_nothing(pair_of: MakePair, source: str, text: str) -> None:
    conversation = Conversation(says(f"a{text}", f"{text}b", text, f"c{text}d"))
    check_renders_the_same(pair_of(source), conversation, always=True)
    for renderer in pair_of(source):
        made, spans = TurnFinder(renderer).find(conversation)
        assert [made[start:end] for start, end in spans] == [f"{text}b<|im_end|>", f"c{text}d<|im_end|>"]


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


UNSUPPORTED = "{% if 'a' | title == '' %}never{% endif %}" + templates.CHATML


@pytest.mark.parametrize(
    ("template", "engines", "expected"),
    [
        (templates.CHATML, WATCHED, "minijinja"),
        (templates.CHATML, EnginePolicy(frozenset({RENDERER}), 1.0), "jinja2"),
        (UNSUPPORTED, WATCHED, "jinja2"),
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
    made = getattr(tokenizer, used_for)({"messages": M}, "messages")
    assert (made if used_for == "render" else made[0]) == plain_rendering(template, messages=M)
    assert tokenizer.engines_used == {RENDERER: expected}


@pytest.mark.parametrize(
    "template",
    [
        "{% macro m(x, y=true) %}{{ 'yes' if y else 'no' }}{% endmacro %}{{ m(1, y=messages[0].zz) }}",
        "{{ messages[0].content.split(',') }}",
        "{{ messages[0].content | list }}",
        "{{ {'k': messages[0].content} }}",
        "{{ messages[0].content | lower }}",
        "{{ messages[0].content * messages[0].content }}",
    ],
)
def test_a_template_that_renders_only_unusual_values_differently_is_refused(template: str) -> None:
    with pytest.raises(UnsupportedByEngineError):
        check_template(template)


def test_a_panic_in_the_fast_engine_is_a_row_error(pair_of: MakePair) -> None:
    source = "{% set c = messages[0].tool_calls %}{% for x in c[::-1] %}x{% endfor %}"
    reference, fast = pair_of(source)
    conversation = Conversation([{"role": "user", "content": "a", "tool_calls": []}])
    assert reference.render(conversation) == ""
    with pytest.raises(RowError):
        fast.render(conversation)
