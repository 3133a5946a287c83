"""Programs of chat templates compared with the reference."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

import chat_templates as templates
from sftkit.core.row_log import RowError
from sftkit.core.rows import Row
from sftkit.sandbox.render_limits import TemplateLimitError
from sftkit.tokenization.chat_tokenizer import ChatTokenizer
from sftkit.tokenization.chat_tokenizer_spec import ChatTokenizerSpec
from sftkit.tokenization.conversations import Conversation
from sftkit.tokenization.engines import ENCODER, RENDERER, EnginePolicy
from sftkit.tokenization.loading.tokenizer_loading import TokenizerSpec, load_tokenizer
from sftkit.tokenization.masking.turns.turn_finder import TurnFinder
from sftkit.tokenization.rendering.compiled_renderer import CompiledRenderer
from sftkit.tokenization.rendering.reference_renderer import ReferenceRenderer
from sftkit.tokenization.templates.recording import Program, Recording
from sftkit.tokenization.tracing import program_cache
from sftkit.tokenization.tracing.program_cache import ProgramCache
from sftkit.tokenization.tracing.trace import UntraceableError
from sftkit.tokenization.tracing.tracer import Tracer

DAY = "2024-07-06"
SOURCES = {**templates.ALL, "opens_reasoning": templates.OPENS_REASONING, "seed": templates.SEED}

TEXTS = [
    *(
        "hello",
        "",
        " ",
        "\n",
        " a\n",
        "a b",
        "<think>\nhm\n</think>\n\nyes",
        "<think></think>",
        "</think>",
        "x</think>y",
    ),
    *(
        "<|im_start|>assistant\n",
        "<|im_end|>",
        "</s>",
        "{{ messages }}",
        'it\'s "quoted" \\n',
        "Grüße 你好 😀",
        "0",
        "False",
    ),
    *(
        "\x1ca\x1f",
        "\x0e0123456789abcdef\x0f",
        "<tool_response>x</tool_response>",
        "user",
        "assistant",
        "None",
        "[/INST]",
    ),
]


def conversations(seed: int, count: int, shapes: int = 3) -> list[list[Row]]:
    """Make conversations of a few shapes with texts that templates look at."""
    chance = random.Random(seed)
    roles = [
        [*(["system"] if chance.random() < 0.4 else []), *["user", "assistant"] * chance.randint(1, 4)]
        for _ in range(shapes)
    ]
    return [
        [{"role": role, "content": "".join(chance.choices(TEXTS, k=chance.choice([1, 1, 1, 2])))} for role in shape]
        for shape in chance.choices(roles, k=count)
    ]


@pytest.fixture
def traced_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trace each shape when it is first seen."""
    monkeypatch.setattr(program_cache, "_SIGHTS", 1)


@pytest.fixture(scope="module")
def make_pair(tokenizer_path: Callable[[str], str]) -> Callable[[str], tuple[ReferenceRenderer, CompiledRenderer]]:
    def make(source: str) -> tuple[ReferenceRenderer, CompiledRenderer]:
        tokenizer = load_tokenizer(TokenizerSpec(tokenizer_path("bpe"), chat_template=source))
        reference = ReferenceRenderer(tokenizer, DAY)
        return reference, CompiledRenderer(tokenizer, reference)

    return make


def found(finder: TurnFinder, conversation: Conversation) -> object:
    try:
        return finder.find(conversation)
    except RowError:
        return None


@pytest.mark.parametrize("name", SOURCES)
def test_programs_give_the_text_and_the_turns_of_the_reference(
    traced_at_once: None, make_pair: Callable[[str], tuple[ReferenceRenderer, CompiledRenderer]], name: str
) -> None:
    reference, fast = make_pair(SOURCES[name])
    slow_finder, fast_finder = TurnFinder(reference), TurnFinder(fast)
    made_by_programs = 0
    for messages in conversations(len(name), 30):
        conversation = Conversation(messages)
        try:
            recording = fast.record(conversation)
        except RowError:
            with pytest.raises(RowError):
                reference.render(conversation)
            continue
        assert recording.text == reference.render(conversation)
        made_by_programs += recording.program is not None
        assert found(fast_finder, conversation) == found(slow_finder, conversation)
    assert made_by_programs or name in UNTRACED


UNTRACED = {"parts", "whole_row", "sharegpt"}
"""Templates that do not render plain conversations, or do what a trace cannot record."""


def trace(source: str, *contents: str) -> Program:
    messages = [{"role": ("user", "assistant")[i % 2], "content": content} for i, content in enumerate(contents)]
    return Tracer(source, DAY).trace(messages, {"tools": None})


@pytest.mark.parametrize(
    ("source", "same", "other"),
    [
        ("{{ messages[0].content }}", "b", None),
        ("{% if 'x' in messages[0].content %}1{% endif %}", "b", "x"),
        ("{% if messages[0].content in 'abc' %}1{% else %}2{% endif %}", "b", "x"),
        ("{% if messages[0].content in ['a', 'b'] %}1{% else %}2{% endif %}", "a", "x"),
        ("{% if messages[0].content == 'x' %}1{% endif %}", "b", "x"),
        ("{% if messages[0].content %}1{% endif %}", "b", ""),
        ("{% if messages[0].content | trim %}1{% endif %}", "b", " "),
        ("{% if messages[0].content | length > 1 %}1{% endif %}", "b", "bb"),
        ("{{ messages[0].content.split('-')[0] }}{{ messages[0].content.split('-')[-1] }}", "b", "a-b"),
        ("{{ ('<' ~ messages[0].content ~ '>').strip('<>') }}{{ messages[0].content + '' }}", "c", None),
        ("{{ messages[0].content | upper }}{{ messages[0].content | replace('a', 'b') | tojson }}", 'é"a', None),
        ("{% set x %}[{{ messages[0].content }}]{% endset %}{{ x }}{{ x | trim }}{{ x[1:] }}", "c", None),
        ("{% macro m(a, b='') %}{{ a }}{{ b }}{% endmacro %}{{ m(messages[0].content, b='x') }}", "c", None),
        (
            "{% set n = namespace(x='') %}{% for m in messages %}{% set n.x = m.content %}{% endfor %}{{ n.x }}",
            "c",
            None,
        ),
        ("{{ messages[0].content.startswith(('x', 'y')) }}{{ messages[0].content.find('z') }}", "b", "xz"),
        ("{{ messages[0].content | default('d', true) }}{{ messages[0].content is string }}", "c", ""),
        ("{% if messages[0].content is iterable and messages[0].content is not mapping %}1{% endif %}", "c", None),
        ("{{ messages | selectattr('content', 'equalto', 'x') | list | length }}", "c", "x"),
        ("{% if messages[0] is sequence and messages[0] is iterable %}{{ messages[0].content }}{% endif %}", "c", None),
        ("{{ messages | map(attribute='content') | list | last }}{{ messages[0].get('content') }}", "c", None),
    ],
)
def test_a_program_runs_for_contents_that_meet_its_conditions(source: str, same: str, other: str | None) -> None:
    program = trace(source, "a")
    for content in ("a", same):
        expected = templates.plain_rendering(source, messages=[{"role": "user", "content": content}], tools=None)
        pieces = program.run([content])
        assert pieces is not None
        assert "".join(pieces) == expected
    if other is not None:
        assert program.run([other]) is None


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages }}",
        "{{ messages[0] | tojson }}",
        "{{ messages[0].content | list }}",
        "{{ messages[0] | length }}",
        "{{ messages[0].content | length / 2 }}{{ '%s' % messages[0].content }}",
        "{{ messages[0].content * 2 }}",
        "{% for c in messages[0].content %}{{ c }}{% endfor %}",
        "{{ messages[0].content[0] }}",
        "{{ {'a': 1}[messages[0].content] }}",
        "{{ messages[0].content in {'a': 1} }}",
        "{{ messages[0].content | int }}",
        "{{ [messages[0].content] | join }}",
        "{{ '{}'.format(messages[0].content) }}",
        "{{ 'a'.replace('a', messages[0].content) }}",
        "{{ 'a'.startswith(messages[0].content) }}",
        "{% for k in messages[0] %}{{ k }}{% endfor %}",
        "{{ messages[0].items() | list }}",
        "{{ messages[0].content < 'b' }}",
        "{{ messages | map(attribute='content') | sort }}",
        "{{ messages[0].content.encode() }}",
        "{{ [messages[0].content] }}",
        "{{ messages[0] == messages[0] }}",
        "{{ messages[0].content.real ~ 'a' == 'a' and messages[0] }}",
        "{{ messages[0].content | indent }}",
        "{{ 'abc' | replace(messages[0].content, 'x') }}",
        "{{ 'abc' | trim(messages[0].content) }}",
        "{{ ['abc'] | map('replace', messages[0].content, 'x') | list | first }}",
        "{{ messages[0].content | title }}",
        "{{ messages[0].content | replace('a', 'aa') }}",
        "{% set n = namespace(x=messages[0].content) %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
        "{{ messages[0].content is lower }}",
        "{{ messages[0].content is in 'abc' }}",
    ],
)
def test_what_cannot_be_recorded_ends_a_trace(source: str) -> None:
    with pytest.raises((UntraceableError, TypeError)):
        trace(source, "a")


def test_attributes_of_a_traced_text_are_those_of_a_text() -> None:
    assert trace("{{ messages[0].content.real }}{{ messages[0].content.parts }}", "a").run(["b"]) in (
        [],
        [""],
        ["", ""],
    )


def test_programs_are_kept_for_the_shapes_that_were_used_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program_cache, "_SIGHTS", 2)
    monkeypatch.setattr(program_cache, "_SHAPES", 3)
    monkeypatch.setattr(program_cache, "_COUNTED", 5)
    cache, made = ProgramCache(), []

    def make(shape: int) -> Program:
        made.append(shape)
        return Program(lambda contents: list(contents), (), ())

    for shape in (1, 1, 1, 2, 2, 3, 3, 4, 4, 4, 1, 1):
        cache.run(shape, ["a"], lambda shape=shape: make(shape))  # type: ignore[misc]
    assert made == [1, 2, 3, 4, 1]
    assert len(cache._programs) == 3
    for shape in range(100):
        cache.run(shape, ["a"], lambda: None)
    assert len(cache._sights) <= 5


def test_what_could_become_too_long_is_not_rendered_by_programs(
    traced_at_once: None, make_pair: Callable[[str], tuple[ReferenceRenderer, CompiledRenderer]]
) -> None:
    _, fast = make_pair("{% for i in range(400) %}{{ messages[0].content }}{{ i }}{% endfor %}")
    short, long = (Conversation([{"role": "user", "content": "a" * length}]) for length in (10, 200_000))
    assert fast.record(short).program is not None
    with pytest.raises(TemplateLimitError):
        fast.record(long)


def test_a_template_that_takes_too_long_to_trace_is_rendered_without_programs(
    traced_at_once: None,
    make_pair: Callable[[str], tuple[ReferenceRenderer, CompiledRenderer]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, fast = make_pair(templates.CHATML)

    def trace(*_: object) -> Program:
        raise TemplateLimitError("the template took too long; fix the template")

    monkeypatch.setattr(Tracer, "trace", trace)
    for content in ("a", "b"):
        recording = fast.record(Conversation([{"role": "user", "content": content}]))
        assert (recording.program, recording.text) == (None, f"<|im_start|>user\n{content}<|im_end|>\n")


def test_variables_that_are_equal_but_of_other_types_have_programs_of_their_own(
    traced_at_once: None, make_pair: Callable[[str], tuple[ReferenceRenderer, CompiledRenderer]]
) -> None:
    _, fast = make_pair("{{ messages[0].content }}{{ x }}")
    texts = []
    for value in (1, True, 1.0, 1):
        recording = fast.record(Conversation([{"role": "user", "content": "a"}], variables={"x": value}))
        assert recording.program is not None
        texts.append(recording.text)
    assert texts == ["a1", "aTrue", "a1.0", "a1"]


def test_programs_take_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program_cache, "_SIGHTS", 1)
    monkeypatch.setattr(program_cache, "_BYTES", 1_000_000)
    cache = ProgramCache()
    for shape in range(50):
        cache.run(shape, ["a"], lambda: Program(lambda contents: list(contents), ("x" * 100_000,), ()))
        assert sum(program.size for programs in cache._programs.values() for program in programs) == cache._bytes
    assert 1 <= len(cache._programs) <= 5


def test_a_shape_has_few_programs_and_one_that_cannot_be_traced_is_not_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(program_cache, "_SIGHTS", 1)
    cache, made = ProgramCache(), []

    def make(content: str) -> Program:
        made.append(content)
        return Program(lambda contents: list(contents) if contents == [content] else None, (), ())

    for content in "abcdefab":
        cache.run(0, [content], lambda content=content: make(content))  # type: ignore[misc]
    assert made == ["a", "b", "c", "d"]
    tries: list[int] = []
    for _ in range(9):
        assert cache.run(1, ["a"], lambda: tries.append(1)) is None  # type: ignore[func-returns-value]
    assert len(tries) == 1


def test_a_program_that_gives_another_text_is_not_used(
    traced_at_once: None,
    make_pair: Callable[[str], tuple[ReferenceRenderer, CompiledRenderer]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    _, fast = make_pair(templates.CHATML)
    wrong = Program(lambda contents: ["wrong"], ("wrong",), ())
    monkeypatch.setattr(Tracer, "trace", lambda *_: wrong)
    recording: Recording = fast.record(Conversation([{"role": "user", "content": "a"}]))
    assert (recording.program, recording.text) == (None, "<|im_start|>user\na<|im_end|>\n")
    assert "gives another text than the reference" in caplog.text


def test_rows_have_the_same_spans_whether_their_shape_was_seen_before(tokenizer_path: Callable[[str], str]) -> None:
    spec = TokenizerSpec(tokenizer_path("bpe"), chat_template=templates.QWEN3_LIKE)
    made: list[Any] = []
    for engines in (frozenset[str](), frozenset({ENCODER, RENDERER})):
        tokenizer = ChatTokenizer(ChatTokenizerSpec(spec, "assistant", EnginePolicy(engines, 0.0)))
        made.append(
            [
                tokenizer.conversations.find_trained_spans({"messages": row}, "messages")
                for row in conversations(7, 60, 2)
            ]
        )
    assert made[0] == made[1]
