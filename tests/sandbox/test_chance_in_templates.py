"""Templates give the same text in every run: what is left to chance is refused, and the date is given."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sftkit.core.row_log import RowError, RowLog
from sftkit.core.rows import Batch
from sftkit.handlers.jinja_template import ApplyCustomJinjaTemplate
from sftkit.sandbox.chat_templates import date_function
from sftkit.sandbox.render_limits import TemplateChanceError, TemplateLimitError
from sftkit.tokenization.chat_tokenizer import ChatTokenizer
from sftkit.tokenization.chat_tokenizer_spec import ChatTokenizerSpec
from sftkit.tokenization.conversations import Conversation
from sftkit.tokenization.engines import EnginePolicy
from sftkit.tokenization.rendering.compiled_renderer import CompiledRenderer
from sftkit.tokenization.rendering.reference_renderer import ReferenceRenderer, Renderer

CHAT = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "well"}]

CHANCE = (
    *("{{ [1, 2]|random }}", "{{ [[1, 2]]|map('random')|list }}"),
    *("{{ lipsum() }}", "{{ lipsum(n=1)|length }}", "{% set f = lipsum %}{{ f() }}", "{{ [lipsum][0]() }}"),
)
ADDRESSES = (
    *("{{ raise_exception }}", "{{ strftime_now }}", "{{ range }}", "{{ dict }}", "{{ namespace }}", "{{ lipsum }}"),
    *("{{ cycler }}", "{{ cycler('a') }}", "{{ joiner() }}", "{{ cycler('a').next }}", "{{ dict.fromkeys }}"),
    *("{{ messages[0].items }}", "{{ messages[0]['items'] }}", "{{ messages[0]|attr('items') }}"),
    *("{{ messages|map(attribute='items')|list }}", "{{ 'a'.upper|string|length }}", "{{ '{}'.format }}"),
    *("{{ '%s' % range }}", "{{ '{}'.format(range) }}", "{{ '{0.upper}'.format('a') }}", "{{ '%s'|format(range) }}"),
    *("{{ 'a' ~ range }}", "{{ [range]|join }}", "{{ [range] }}", "{{ {'a': range} }}", "{{ range|pprint }}"),
    *("{{ messages|map('length') }}", "{{ messages|select }}", "{{ messages|batch(1) }}", "{{ messages|slice(1) }}"),
    *("{{ [1]|unique }}", "{{ [1]|reverse }}", "{{ messages[0]|items }}", "{{ namespace(a=range) }}"),
    "{% block b %}{% endblock %}{{ self.b }}",
    "{% for m in messages %}{{ loop.cycle }}{% endfor %}",
    "{{ messages[0].content.encode().hex }}",
)
ORDERS = (
    "{{ messages[0].keys() - ['role'] }}",
    "{{ (messages[0].items() - messages[1].items())|list }}",
    "{{ {(1, 'a'): 1, ('a', 1): 2}|pprint }}",
)
STEADY = {
    "{{ cycler('a').next() }}{{ dict(a=1) }}{{ dict.fromkeys('b') }}": "a{'a': 1}{'b': None}",
    "{{ messages|map(attribute='role')|list }}{{ 'ab'|reverse }}": "['user', 'assistant']ba",
    "{% macro f(x) %}{{ x }}{% endmacro %}{{ f(2) }}{{ f }}{{ 3 - 1 }}": "2<Macro 'f'>2",
    "{{ messages[0]|pprint }}": "{'content': 'hello', 'role': 'user'}",
    "{{ '{}-{}'.format(1, 'a') }}{{ messages[0].content.upper() }}": "1-aHELLO",
    "{% for k, v in messages[0]|items %}{{ k }}{{ loop.cycle('a', 'b') }}{% endfor %}": "rolea" + "contentb",
    "{{ range is callable }}{{ missing }}{{ messages[0].get('role') }}": "Trueuser",
    "{% set ns = namespace(a=1) %}{% set ns.a = 2 %}{{ ns }}": "<Namespace {'a': 2}>",
}


@pytest.fixture(params=["jinja2", "compiled"])
def renderer(
    reference: Callable[[str], Any], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Renderer:
    tokenizer = reference("bpe")
    monkeypatch.setattr(tokenizer, "chat_template", "{{ messages }}")
    slow = ReferenceRenderer(tokenizer)
    return slow if request.param == slow.name else CompiledRenderer(tokenizer, slow)


@pytest.mark.parametrize("template", [*CHANCE, *ADDRESSES, *ORDERS])
def test_what_differs_between_runs_is_refused(renderer: Renderer, template: str) -> None:
    if "block" in template and renderer.name == "compiled":
        with pytest.raises(RowError, match="has blocks"):
            renderer.render(Conversation(CHAT), template=template)
        return
    with pytest.raises(TemplateChanceError, match=r"the template uses .* each run gives other bytes; remove it"):
        renderer.render(Conversation(CHAT), template=template)


@pytest.mark.parametrize(("template", "text"), STEADY.items())
def test_what_is_the_same_in_each_run_is_rendered(renderer: Renderer, template: str, text: str) -> None:
    assert renderer.render(Conversation(CHAT), template=template) == text


@pytest.mark.parametrize("template", ["{{ [1, 2]|random }}", "{{ text.upper }}", "{{ lipsum() }}"])
def test_templates_of_the_handler_for_text_are_refused_too(template: str) -> None:
    handler = ApplyCustomJinjaTemplate(dataset_text_field="text", template=template, add_eos_token=False)
    without_tokenizer = ChatTokenizer(ChatTokenizerSpec(None, "assistant", EnginePolicy(frozenset(), 0.0)))
    step = handler.bind(without_tokenizer)
    with pytest.raises(TemplateChanceError):
        step(Batch([{"text": "a"}], np.arange(1, 2)), RowLog())


def test_both_engines_tell_midnight_of_the_given_day(
    reference: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = reference("bpe")
    template = "{{ strftime_now('%d %B %Y %H:%M:%S') }}"
    monkeypatch.setattr(tokenizer, "chat_template", template)
    renderer = ReferenceRenderer(tokenizer, "2024-07-06")
    fast = CompiledRenderer(tokenizer, renderer)
    for each in (renderer, fast):
        assert each.render(Conversation(CHAT), template=template) == "06 July 2024 00:00:00"


def test_two_dates_in_one_process_do_not_mix(reference: Callable[[str], Any]) -> None:
    first, second = (ReferenceRenderer(reference("bpe"), f"2024-07-0{day}") for day in (1, 2))
    template = "{{ strftime_now('%d') }}"
    texts = [each.render(Conversation(CHAT), template=template) for each in (first, second, first)]
    assert texts == ["01", "02", "01"]


def test_transformers_itself_renders_as_before(reference: Callable[[str], Any]) -> None:
    tokenizer = reference("bpe")
    template = "{{ strftime_now('%Y') }}{{ [1]|random }}"
    ReferenceRenderer(tokenizer, "1999-01-01").render(Conversation(CHAT), template="{{ strftime_now('%Y') }}")
    text = tokenizer.apply_chat_template(CHAT, chat_template=template, tokenize=False)
    assert text.endswith("1")
    assert not text.startswith("1999")


def test_the_time_zone_of_the_machine_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    for zone in ("UTC", "Asia/Tokyo", "America/New_York"):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        assert date_function("2024-07-26")("%s %-s %Z%z%^Z %% %%s") == "1721952000 1721952000  % %s"
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize("format", ["%A" * 10_000_000, "%0999999999d"])
def test_a_date_of_any_length_is_refused(format: str) -> None:
    with pytest.raises(TemplateLimitError, match="strftime_now"):
        date_function("2024-07-26")(format)
