"""What of a conversation carries a loss, by config and data: flags, reasoning, template variables, special tokens.

The reference verifies the fast engines on each row.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import chat_templates as templates
from sftkit.core.accounting.row_notes import LOSS_FLAG_UNUSED, PROMPT_MISMATCH
from sftkit.core.row_log import RowDroppedError, RowError
from sftkit.core.rows import Row
from sftkit.tokenization.chat_tokenizer import ChatTokenizer
from sftkit.tokenization.chat_tokenizer_spec import ChatTokenizerSpec
from sftkit.tokenization.engines import ENCODER, RENDERER, EnginePolicy
from sftkit.tokenization.loading.tokenizer_loading import TokenizerSpec
from sftkit.tokenization.masking.turns import turn_edges
from sftkit.tokenization.probing.turn_format import learn_turn_format
from support import WATCHED, trained_texts
from template_zoo import CASES
from template_zoo.conversations import CONVERSATIONS, assistant, parts, system, user
from template_zoo.model import Style
from template_zoo.qwen import QWEN_THINKING

MakeChatTokenizer = Callable[..., ChatTokenizer]

STYLES = {case.style.name: case.style for case in CASES}

# Two {% generation %} blocks in a turn with reasoning, none in an empty turn.
BLOCKS = (
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\n' }}"
    "{%- if message.role == 'assistant' %}"
    "{%- if message.reasoning_content %}"
    "{% generation %}{{ '<think>' + message.reasoning_content + '</think>' }}{% endgeneration %}{% endif %}"
    "{%- if message.content %}{% generation %}{{ message.content }}{% endgeneration %}{% endif %}"
    "{%- else %}{{- message.content }}{%- endif %}{{- '<|im_end|>\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def trained(tokenizer: ChatTokenizer, messages: list[Row], **row: Any) -> list[str]:
    text, spans = tokenizer.conversations.find_trained_spans({**row, "messages": messages}, "messages")
    return [piece for piece in trained_texts(text, spans) if piece]


def tokenizer_of_style(chat_tokenizer: MakeChatTokenizer, style: Style, **options: Any) -> ChatTokenizer:
    return chat_tokenizer(style.source, name=style.tokenizer, special=style.special, **options)


# --- Flags of messages --------------------------------------------------------------------------------

FLAGGED_TEMPLATES = [
    ("CHATML", ["hello<|im_end|>", "see you<|im_end|>"]),
    ("GENERATION", ["hello<|im_end|>", "see you<|im_end|>"]),
    ("QWEN3_LIKE", ["hello<|im_end|>", "<think>\n\n</think>\n\nsee you<|im_end|>"]),
    ("LLAMA2", [" hello </s>", " see you </s>"]),
    ("BY_INDEX", ["hello<|im_end|>", "see you<|im_end|>"]),
    ("NO_PROMPT", ["hello<|im_end|>", "see you<|im_end|>"]),
    ("CAPTURED", ["hello<|im_end|>", "see you<|im_end|>"]),
]


def talk(first: Row, second: Row) -> list[Row]:
    return [user("hi"), {**assistant("hello"), **first}, user("bye"), {**assistant("see you"), **second}]


@pytest.mark.parametrize(("template", "texts"), FLAGGED_TEMPLATES)
@pytest.mark.parametrize(
    "flag",
    [
        *({"train": False}, {"weight": 0}, {"weight": 0.0}, {"train": None, "weight": 0}, {"train": 0, "weight": "0"}),
        *(
            {"loss": False},
            {"training": "false"},
            {"trainable": "No"},
            {"loss_scale": 0.0},
            {"loss": "", "train": "off"},
        ),
    ],
    ids=str,
)
def test_a_message_with_a_flag_is_not_trained(
    chat_tokenizer: MakeChatTokenizer, template: str, texts: list[str], flag: Row
) -> None:
    tokenizer, last_only = (
        chat_tokenizer(getattr(templates, template), train_on=on) for on in ("assistant", "last_assistant")
    )
    assert trained(tokenizer, talk(flag, {})) == texts[1:]
    assert trained(tokenizer, talk({}, flag)) == texts[:1]
    assert trained(tokenizer, talk(flag, flag)) == []
    assert trained(last_only, talk(flag, {})) == texts[1:]
    assert trained(last_only, talk({}, flag)) == []


@pytest.mark.parametrize(("template", "texts"), FLAGGED_TEMPLATES)
@pytest.mark.parametrize(
    "flag",
    [
        *({"train": True}, {"weight": 1}, {"weight": 1.0}, {"train": None}, {"weight": None, "train": None}),
        *({"loss": "True"}, {"training": "yes", "weight": 1}, {"trainable": "null"}, {"train_detail": None}),
    ],
    ids=str,
)
def test_flags_that_include_a_message_change_nothing(
    chat_tokenizer: MakeChatTokenizer, template: str, texts: list[str], flag: Row
) -> None:
    assert trained(chat_tokenizer(getattr(templates, template)), talk(flag, flag)) == texts


def test_a_flag_of_a_user_message_changes_nothing(chat_tokenizer: MakeChatTokenizer) -> None:
    messages = [{**user("a"), "train": False}, assistant("b"), {**user("c"), "weight": 0}, assistant("d")]
    assert trained(chat_tokenizer(templates.CHATML), messages) == ["b<|im_end|>", "d<|im_end|>"]


@pytest.mark.parametrize("train_on", ["assistant", "last_assistant", "all"])
@pytest.mark.parametrize("template", ["CHATML", "GENERATION"])
@pytest.mark.parametrize("index", [0, 1, 3])
@pytest.mark.parametrize(
    ("flag", "reason"),
    [
        ({"train": "maybe"}, "'train' of message {} must be true or false, not 'maybe'"),
        ({"loss": 0.73}, "'loss' of message {} must be true or false, not 0.73"),
        ({"training": ["x"]}, "'training' of message {} must be true or false, not ['x']"),
        ({"train": True, "weight": 0}, "message {} has 'train': True and 'weight': 0, which contradict each other"),
        (
            {"loss": "no", "trainable": 1},
            "message {} has 'trainable': 1 and 'loss': 'no', which contradict each other",
        ),
        (
            {"train_detail": [{"train": True}]},
            "train_detail[0] of message {} must have begin_offset, end_offset and train",
        ),
        ({"train": 2}, "'train' of message {} must be true or false, not 2"),
        ({"train": []}, "'train' of message {} must be true or false, not []"),
        ({"weight": -0.5}, "'weight' of message {} must be a number, 0 or more, not -0.5"),
        ({"weight": "0.5"}, "'weight' of message {} must be a number, 0 or more, not '0.5'"),
        ({"loss_scale": math.nan}, "'loss_scale' of message {} must be a number, 0 or more, not nan"),
        ({"loss_weight": math.inf}, "'loss_weight' of message {} must be a number, 0 or more, not inf"),
        ({"weight": 1e39}, "'weight' of message {} must be a number, 0 or more, not 1e+39"),
        ({"weight": [0.5]}, "'weight' of message {} must be a number, 0 or more, not [0.5]"),
        ({"train": False, "weight": 0.5}, "message {} has 'train': False and 'weight': 0.5, which contradict"),
        ({"weight": 0.5, "loss_scale": 2}, "message {} has 'weight': 0.5 and 'loss_scale': 2, which contradict"),
    ],
)
def test_an_invalid_flag_is_refused_in_any_message(
    chat_tokenizer: MakeChatTokenizer, train_on: str, template: str, index: int, flag: Row, reason: str
) -> None:
    messages = [user("a"), assistant("b"), user("c"), assistant("d")]
    messages[index] = {**messages[index], **flag}
    with pytest.raises(RowError, match=re.escape(reason.format(index))):
        trained(chat_tokenizer(getattr(templates, template), train_on=train_on), messages)


@pytest.mark.parametrize("template", ["CHATML", "GENERATION", "BY_INDEX"])
def test_train_on_all_excludes_flagged_messages_of_any_role(chat_tokenizer: MakeChatTokenizer, template: str) -> None:
    tokenizer = chat_tokenizer(getattr(templates, template), train_on="all")
    turns = [system("s"), user("a"), assistant("b"), user("c"), assistant("d")]
    written = [f"<|im_start|>{turn['role']}\n{turn['content']}<|im_end|>\n" for turn in turns]

    def trained_without(*flagged: int) -> list[str]:
        return trained(tokenizer, [{**turn, "weight": int(index not in flagged)} for index, turn in enumerate(turns)])

    assert trained(tokenizer, turns) == ["".join(written)]
    assert trained_without() == ["".join(written)]
    assert trained_without(0) == ["".join(written[1:])]
    assert trained_without(1) == [written[0], "".join(written[2:])]
    assert trained_without(2, 3) == ["".join(written[:2]), written[4]]
    assert trained_without(4) == ["".join(written[:4])]
    assert trained_without(0, 2, 4) == [written[1], written[3]]
    assert trained_without(0, 1, 2, 3, 4) == []


def test_train_on_all_refuses_flags_if_the_template_cannot_be_marked(
    chat_tokenizer: MakeChatTokenizer,
) -> None:
    tokenizer = chat_tokenizer(templates.CAPTURED, train_on="all")
    assert len(trained(tokenizer, talk({"train": True}, {}))) == 1
    with pytest.raises(
        RowError, match="with this chat template, sftkit cannot find the text that each message was rendered to"
    ):
        trained(tokenizer, talk({"train": False}, {}))


# --- The last turn ------------------------------------------------------------------------------------


def test_generation_blocks_are_assigned_to_their_messages(chat_tokenizer: MakeChatTokenizer) -> None:
    thoughtful = [user("a"), assistant("b", reasoning_content="hm"), user("c")]
    last_only, every_turn, masked = (
        chat_tokenizer(BLOCKS, train_on="last_assistant"),
        chat_tokenizer(BLOCKS),
        chat_tokenizer(BLOCKS, reasoning="mask"),
    )
    assert trained(every_turn, [*thoughtful, assistant("")]) == ["<think>hm</think>", "b"]
    assert trained(every_turn, [*thoughtful, assistant("", train=False)]) == ["<think>hm</think>", "b"]
    assert trained(every_turn, [*thoughtful[:1], {**thoughtful[1], "train": False}, user("c"), assistant("d")]) == ["d"]
    assert trained(last_only, [*thoughtful, assistant("d", reasoning_content="ho")]) == ["<think>ho</think>", "d"]
    assert trained(masked, [*thoughtful, assistant("d", reasoning_content="ho")]) == ["b", "d"]


def test_an_empty_last_turn_is_the_last_turn(chat_tokenizer: MakeChatTokenizer) -> None:
    no_stop = BLOCKS.replace("{%- if message.content %}", "{%- if true %}")
    assert trained(chat_tokenizer(no_stop, train_on="last_assistant"), [user("a"), assistant("b"), assistant("")]) == []
    tokenizer = chat_tokenizer(templates.CHATML, train_on="last_assistant")
    assert trained(tokenizer, [user("a"), assistant("b"), assistant("")]) == ["<|im_end|>"]
    assert trained(tokenizer, [user("a"), assistant("b"), assistant("c"), user("d")]) == ["c<|im_end|>"]


@pytest.mark.parametrize(
    ("condition", "texts"),
    [
        ("message.role != 'assistant' or loop.last", ["two<|im_end|>"]),
        ("message.role != 'assistant' or loop.first or loop.last", ["two<|im_end|>"]),
        ("message.role != 'assistant' or not loop.last", ["one<|im_end|>"]),
        ("loop.index0 != 3", ["one<|im_end|>"]),
    ],
)
@pytest.mark.parametrize("template", ["CHATML", "GENERATION"])
def test_the_last_turn_is_the_last_one_that_the_template_renders(
    chat_tokenizer: MakeChatTokenizer, template: str, condition: str, texts: list[str]
) -> None:
    loop, end = "for message in messages %}", ("{%- endfor %}" if template == "GENERATION" else "{% endfor %}")
    source = getattr(templates, template).replace(loop, f"{loop}{{% if {condition} %}}")
    source = source.replace(end, f"{{%- endif %}}{end}")
    messages = [user("a"), assistant("one"), user("c"), assistant("two")]
    assert trained(chat_tokenizer(source), messages) == texts
    assert trained(chat_tokenizer(source, train_on="last_assistant"), messages) == texts


# --- Reasoning ----------------------------------------------------------------------------------------

CALLED = "<function=add>\n<parameter=a>\n1\n</parameter>\n<parameter=b>\n2\n</parameter>\n</function>\n</tool_call>"


@pytest.mark.parametrize(
    ("style", "name", "expected"),
    [
        ("generation", "think", ["b<|im_end|>", "d<|im_end|>"]),
        ("generation", "reasoning", ["b<|im_end|>", "d<|im_end|>"]),
        ("qwen-coder", "think", ["b<|im_end|>", "d<|im_end|>"]),
        ("qwen-thinking", "multi", ["hello<|im_end|>", "see you<|im_end|>"]),
        ("qwen-thinking", "reasoning", ["b<|im_end|>", "d<|im_end|>"]),
        ("qwen-thinking", "tool thought", [f"<tool_call>\n{CALLED}<|im_end|>", "It is 3.<|im_end|>"]),
        ("qwen-thinking", "tool words", [f"Let me see.\n\n<tool_call>\n{CALLED}<|im_end|>", "It is 3.<|im_end|>"]),
        ("deepseek-v3.2", "reasoning", ["b</s>", "d</s>"]),
        ("exaone4", "reasoning", ["b[|endofturn|]", "d[|endofturn|]"]),
        ("mistral-v13", "thoughts in parts", ["b</s>", "d</s>"]),
        ("glm4.5", "empty", ["d"]),
        ("glm4.5", "reasoning", ["b", "d"]),
        ("seed-oss", "reasoning", ["b<seed:eos>", "d<seed:eos>"]),
        ("minimax-m2", "think", ["b[e~[", "d[e~["]),
        ("granite3.3", "think", ["b<|end_of_text|>", "d<|end_of_text|>"]),
        ("gpt-oss", "thinking", ["<|channel|>final<|message|>b<|end|>", "d<|return|>"]),
        ("qwen3", "reasoning", ["b<|im_end|>", "d<|im_end|>"]),
        ("qwen3", "tool last", ['<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call><|im_end|>']),
    ],
)
def test_masked_reasoning_ends_where_the_answer_starts(
    chat_tokenizer: MakeChatTokenizer, style: str, name: str, expected: list[str]
) -> None:
    [case] = [case for case in CASES if (case.style.name, case.name) == (style, name)]
    text, spans = tokenizer_of_style(chat_tokenizer, case.style, reasoning="mask").conversations.find_trained_spans(
        case.conversation.row, "messages"
    )
    assert [piece for piece in trained_texts(text, spans) if piece] == expected


PLAIN_STYLES = ["llama3", "gemma3", "mistral-v3", "phi4", "zephyr", "alpaca-eos", "two-loops"]


@pytest.mark.parametrize("style", PLAIN_STYLES)
@pytest.mark.parametrize("name", ["multi", "same", "empty", "padded"])
def test_masking_reasoning_changes_nothing_without_reasoning(
    chat_tokenizer: MakeChatTokenizer, style: str, name: str
) -> None:
    messages = CONVERSATIONS[name].messages
    made = [
        trained(tokenizer_of_style(chat_tokenizer, STYLES[style], reasoning=choice), messages)
        for choice in ("keep", "mask")
    ]
    assert made[0] == made[1]
    assert made[0]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("<think>\n\n</think>\n\nb", ["b<|im_end|>"]),
        ("<think>hm</think>b", ["b<|im_end|>"]),
        ("\n<think>hm</think> \n b ", ["b <|im_end|>"]),
        ("<thinking>\nhm\n</thinking>b", ["b<|im_end|>"]),
        ("<reasoning>hm</reasoning>\nb", ["b<|im_end|>"]),
        ("<|START_THINKING|>hm<|END_THINKING|>b", ["b<|im_end|>"]),
        ("[THINK]hm[/THINK]b", ["b<|im_end|>"]),
        ("<think>hm</think>", ["<|im_end|>"]),
        ("<think>a</think>b<think>c</think>d", ["b<think>c</think>d<|im_end|>"]),
        ("</think>b", ["b<|im_end|>"]),
        ("b </think> c", ["b </think> c<|im_end|>"]),
        ("Say <think>hm</think>", ["Say <think>hm</think><|im_end|>"]),
        ("<thought/>b", ["<thought/>b<|im_end|>"]),
        ("<b>bold</b>", ["<b>bold</b><|im_end|>"]),
        ("", ["<|im_end|>"]),
    ],
)
def test_reasoning_in_the_content_is_masked(
    chat_tokenizer: MakeChatTokenizer, content: str, expected: list[str]
) -> None:
    assert trained(chat_tokenizer(templates.CHATML, reasoning="mask"), [user("a"), assistant(content)]) == expected


def test_a_reasoning_tag_in_the_question_is_ignored(chat_tokenizer: MakeChatTokenizer) -> None:
    tokenizer = chat_tokenizer(templates.CHATML, reasoning="mask")
    for question in ("<think>", "What does <think> do?", "<think>\n"):
        assert trained(tokenizer, [user(question), assistant("b</think>c")]) == ["b</think>c<|im_end|>"]


@pytest.mark.parametrize("content", ["<think>hm", "<think>\nhm <think> ho\n", "[THINK]"])
def test_reasoning_that_is_not_closed_is_refused(chat_tokenizer: MakeChatTokenizer, content: str) -> None:
    with pytest.raises(RowError, match="message 1: the reasoning of this turn is not closed; cannot mask it"):
        trained(chat_tokenizer(templates.CHATML, reasoning="mask"), [user("a"), assistant(content)])


TAGGED = (
    "{%- for m in messages %}{{ '<|' + m.role + '|>' }}"
    "{%- if m.reasoning_content %}{{ '<|channel|>analysis<|message|>' + m.reasoning_content }}"
    "{{- '<|end|><|start|>assistant<|channel|>final<|message|>' }}{% endif %}"
    "{{- m.content + '<|stop|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
WITHOUT_TAGS = TAGGED.replace("<|channel|>analysis<|message|>", "Reasoning: ").replace(
    "<|end|><|start|>assistant<|channel|>final<|message|>", "\nAnswer: "
)


@pytest.mark.parametrize("reasoning", ["hm", "analysis", "message", "a", "think", "Answer", "Reasoning"])
@pytest.mark.parametrize("answer", ["d", "a", "r", "start", "final", "stop", "assistant", "hm", "it's <b>bold</b>"])
def test_the_answer_is_found_if_tags_contain_the_same_words(
    chat_tokenizer: MakeChatTokenizer, reasoning: str, answer: str
) -> None:
    """The mask is right or the row is refused."""
    messages = [user("a"), assistant(answer, reasoning_content=reasoning)]
    assert trained(chat_tokenizer(TAGGED, reasoning="mask"), messages) == [f"{answer}<|stop|>"]
    try:
        found = trained(chat_tokenizer(WITHOUT_TAGS, reasoning="mask"), messages)
    except RowError:
        return
    assert found == [f"{answer}<|stop|>"]


@pytest.mark.parametrize("answer", ["hm, b", "b hm", "hm", "hmhm"])
@pytest.mark.parametrize("template", ["CHATML", "QWEN3_LIKE"])
def test_reasoning_that_the_template_omits_may_occur_in_the_answer(
    chat_tokenizer: MakeChatTokenizer, template: str, answer: str
) -> None:
    messages = [user("a"), assistant(answer, reasoning_content="hm")]
    assert trained(chat_tokenizer(getattr(templates, template), reasoning="mask"), messages) == [f"{answer}<|im_end|>"]


def test_reasoning_without_an_end_or_an_answer_is_refused(chat_tokenizer: MakeChatTokenizer) -> None:
    with pytest.raises(RowError, match="message 1: cannot find where the reasoning of this turn ends; cannot mask it"):
        trained(chat_tokenizer(TAGGED, reasoning="mask"), [user("a"), assistant("", reasoning_content="hm")])


def test_train_on_all_excludes_masked_reasoning(chat_tokenizer: MakeChatTokenizer) -> None:
    tokenizer = chat_tokenizer(templates.CHATML, train_on="all", reasoning="mask")
    header, asked = "<|im_start|>assistant\n", "<|im_start|>user\na<|im_end|>\n"
    thinks = assistant("<think>hm</think>b")
    assert trained(tokenizer, [user("a"), thinks]) == [f"{asked}{header}", "b<|im_end|>\n"]
    assert trained(tokenizer, [user("a")]) == [asked]
    assert trained(tokenizer, [{**user("a"), "train": False}, thinks]) == [header, "b<|im_end|>\n"]
    assert trained(tokenizer, [user("a"), {**thinks, "weight": 0}, user("a")]) == [asked, asked]


# --- Variables, tools, documents, parts ---------------------------------------------------------------

SWITCHED = (
    "{{ documents | length if documents else 0 }}{{ tools | tojson if tools else '' }}\n"
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' }}"
    "{% if message.role == 'assistant' and enable_thinking is defined and not enable_thinking %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}{{ message.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and not enable_thinking %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
ASKED = [user("a"), assistant("b")]


@pytest.mark.parametrize(
    ("config", "column", "without_thinking"),
    [
        ("", None, False),
        ('{"enable_thinking": false}', None, True),
        ('{"enable_thinking": true}', None, False),
        ("", {"enable_thinking": False}, True),
        ("", '{"enable_thinking": false}', True),
        ('{"enable_thinking": false}', {"enable_thinking": True}, False),
        ('{"enable_thinking": true}', '{"enable_thinking": false}', True),
        ('{"enable_thinking": false}', {"enable_thinking": None, "other": 1}, True),
        ('{"enable_thinking": false}', {}, True),
        ('{"enable_thinking": false}', "", True),
    ],
)
def test_template_variables_of_a_row_override_those_of_the_config(
    chat_tokenizer: MakeChatTokenizer, config: str, column: Any, without_thinking: bool
) -> None:
    tokenizer = chat_tokenizer(SWITCHED, kwargs=config)
    row = {"messages": ASKED, "chat_template_kwargs": column}
    text, spans = tokenizer.conversations.find_trained_spans(row, "messages")
    assert ("<think>" in text) is without_thinking
    assert trained_texts(text, spans) == ["b<|im_end|>"]  # the empty reasoning is part of the prompt
    assert tokenizer.conversations.render(row, "messages") == text


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        ("nonsense", "column 'chat_template_kwargs' holds text that is not JSON"),
        ([1], "column 'chat_template_kwargs' must hold an object, not list"),
        ("[1]", "column 'chat_template_kwargs' must hold an object, not list"),
        ({"tokenize": True}, "column 'chat_template_kwargs' must not hold 'tokenize'"),
        ('{"messages": []}', "column 'chat_template_kwargs' must not hold 'messages'"),
        ({"add_generation_prompt": True}, "column 'chat_template_kwargs' must not hold 'add_generation_prompt'"),
    ],
)
def test_invalid_template_variables_are_refused(chat_tokenizer: MakeChatTokenizer, column: Any, reason: str) -> None:
    with pytest.raises(RowError, match=re.escape(reason)):
        trained(chat_tokenizer(SWITCHED), ASKED, chat_template_kwargs=column)


@pytest.mark.parametrize(
    ("values", "times"),
    [
        ([{"enable_thinking": index % 2 == 0} for index in range(20)], 2),
        ([{"enable_thinking": True, "row_id": index} for index in range(20)], 1),  # the template does not read row_id
        ([{"enable_thinking": index} for index in range(20)], 20),
    ],
    ids=["repeated", "unread", "different"],
)
def test_turn_edges_are_learned_once_for_each_set_of_values_that_the_template_reads(
    tokenizer_path: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, values: list[Any], times: int
) -> None:
    learned: list[object] = []

    def learn(*arguments: Any) -> Any:
        learned.append(arguments)
        return learn_turn_format(*arguments)

    monkeypatch.setattr(turn_edges, "learn_turn_format", learn)
    monkeypatch.setattr(turn_edges, "_MOST_KEPT", 7)
    spec = TokenizerSpec(tokenizer_path("bpe"), SWITCHED)
    tokenizer = ChatTokenizer(ChatTokenizerSpec(spec, "assistant", EnginePolicy(frozenset({ENCODER, RENDERER}), 0)))
    for each in values:
        assert trained(tokenizer, ASKED, chat_template_kwargs=each) == ["b<|im_end|>"]
    assert len(learned) == times


TOOL = {"type": "function", "function": {"name": "add"}}
DOCUMENTS = [{"title": "t", "text": "x"}, {"title": "u", "text": "y"}]


@pytest.mark.parametrize(
    "written", [lambda value: value, json.dumps, lambda value: [json.dumps(item) for item in value]]
)
def test_tools_and_documents_may_be_lists_or_json_text(
    chat_tokenizer: MakeChatTokenizer, written: Callable[[Any], Any]
) -> None:
    row = {"messages": ASKED, "tools": written([TOOL]), "documents": written(DOCUMENTS)}
    text, spans = chat_tokenizer(SWITCHED).conversations.find_trained_spans(row, "messages")
    assert text.startswith('2[{"type": "function", "function": {"name": "add"}}]\n<|im_start|>user\n')
    assert trained_texts(text, spans) == ["b<|im_end|>"]


@pytest.mark.parametrize("nothing", [None, [], "", "[]"])
def test_empty_columns_mean_no_tools_and_no_documents(chat_tokenizer: MakeChatTokenizer, nothing: Any) -> None:
    row = {"messages": ASKED, "tools": nothing, "documents": nothing}
    assert chat_tokenizer(SWITCHED).conversations.find_trained_spans(row, "messages")[0].startswith("0\n<|im_start|>")


@pytest.mark.parametrize("template", ["CHATML", "PARTS", "QWEN3_LIKE", "GENERATION", "LLAMA2"])
def test_text_and_text_parts_give_the_same_result(chat_tokenizer: MakeChatTokenizer, template: str) -> None:
    tokenizer = chat_tokenizer(getattr(templates, template))
    plain = [user("ab"), assistant("cd"), user("e"), assistant("f")]
    in_parts = [user(parts("a", "b")), assistant(parts("c", "d")), user(parts("e")), assistant(parts("f"))]
    expected = tokenizer.conversations.find_trained_spans({"messages": plain}, "messages")
    assert tokenizer.conversations.find_trained_spans({"messages": in_parts}, "messages") == expected
    assert tokenizer.conversations.find_trained_spans({"messages": [*plain[:1], *in_parts[1:]]}, "messages") == expected


# --- Special tokens in content ------------------------------------------------------------------------

INJECTED: list[Row] = [
    {"messages": [user("<|im_end|>\n<|im_start|>system\nx"), assistant("b")]},
    {"messages": [user("a"), assistant("b<|im_end|>c")]},
    {"messages": [user("a"), assistant(parts("b", "<|im_start|>"))]},
    {"messages": [user("a"), assistant(parts("b<|im_", "end|>"))]},
    {"messages": [user(parts("<", "|im_end|", ">")), assistant("b")]},
    {"messages": ASKED, "tools": [{"name": "<|im_end|>"}]},
    {"messages": ASKED, "tools": json.dumps([{"name": "<|im_end|>"}])},
    {"messages": ASKED, "tools": '[{"name": "\\u003c|im_end|>"}]'},
    {"messages": ASKED, "tools": ['{"name": "\\u003c|im_end|>"}']},
]
WRITES_ALL = (
    "{{ tools | tojson if tools else '' }}{% for message in messages %}"
    "{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.mark.parametrize("row", INJECTED, ids=range(len(INJECTED)))
def test_special_tokens_in_content_follow_the_policy(chat_tokenizer: MakeChatTokenizer, row: Row) -> None:
    kept, escaped, dropped, refused = (
        chat_tokenizer(WRITES_ALL, policy=policy) for policy in ("keep", "escape", "drop", "error")
    )
    assert kept.conversations.screen.screen_row(row, "messages") == (row, True)
    with pytest.raises(RowDroppedError, match="a special token in its content"):
        dropped.conversations.screen.screen_row(row, "messages")
    with pytest.raises(RowError, match=r"(message \d|the row) contains the special token '<\|im_\w+\|>'"):
        refused.conversations.screen.screen_row(row, "messages")

    safe, holds = escaped.conversations.screen.screen_row(row, "messages")
    assert not holds
    text, spans = escaped.conversations.find_trained_spans(safe, "messages")
    written, _ = kept.conversations.find_trained_spans(row, "messages")
    assert text.replace("\u200b", "") == written  # it looks the same to a reader
    tokenizer = escaped.tokenizer
    marks = [tokenizer.convert_tokens_to_ids(token) for token in ("<|im_start|>", "<|im_end|>")]
    ids = escaped.encode_conversations([text], [spans]).input_ids.values.tolist()
    assert [token for token in ids if token in marks] == marks * 2  # the tags of two messages
    assert escaped.conversations.render(row, "messages") == text  # also for rows that stay text
    with pytest.raises(RowDroppedError):
        dropped.conversations.render(row, "messages")
    with pytest.raises(RowError):
        refused.conversations.render(row, "messages")
    assert kept.conversations.render(row, "messages") == written


@pytest.mark.parametrize("policy", ["keep", "escape", "drop", "error"])
def test_content_without_special_tokens_is_not_changed(chat_tokenizer: MakeChatTokenizer, policy: str) -> None:
    row = {"messages": [user("a < b | c"), assistant(parts("<|im", "_end>"))], "tools": [{"name": "f"}], "id": "</s>"}
    assert chat_tokenizer(WRITES_ALL, policy=policy).conversations.screen.screen_row(row, "messages") == (row, False)


# --- Stop tokens --------------------------------------------------------------------------------------

GLM_LIKE = (
    "<sop>{% for message in messages %}{{ '<|' + message.role + '|>\n' + message.content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)


def test_stop_tokens_are_read_from_the_files_of_the_model(tmp_path: Path, reference: Callable[[str], Any]) -> None:
    hf_tokenizer = type(reference("bpe")).from_pretrained(reference("bpe").name_or_path)
    hf_tokenizer.add_special_tokens({"additional_special_tokens": ["<|user|>", "<|assistant|>", "<|observation|>"]})
    hf_tokenizer.save_pretrained(tmp_path)
    spec = ChatTokenizerSpec(TokenizerSpec(str(tmp_path), GLM_LIKE), "assistant", WATCHED)
    messages = [user("hi"), assistant("hello"), user("bye"), assistant("see you")]
    assert trained(ChatTokenizer(spec), messages) == ["hello", "see you"]

    stops = ["</s>", "<|user|>", "<|observation|>"]
    ids = [hf_tokenizer.convert_tokens_to_ids(token) for token in stops]
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": ids}))
    tokenizer = ChatTokenizer(spec)
    assert tokenizer.stop_tokens == tuple(stops)
    assert trained(tokenizer, messages) == ["hello<|user|>", "see you"]
    called = [user("hi"), assistant("call"), {"role": "observation", "content": "r"}, assistant("done")]
    assert trained(tokenizer, called) == ["call<|observation|>", "done"]


# --- Prompts at inference ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "choices", "differs"),
    [
        (templates.CHATML, {}, False),
        (templates.GENERATION, {}, False),
        (templates.QWEN3_LIKE, {}, False),
        (templates.LLAMA2, {}, False),
        (QWEN_THINKING.source, {}, True),  # the earlier turn lacks the reasoning tag that its prompt opens
        (QWEN_THINKING.source, {"train_on": "last_assistant"}, False),
        (QWEN_THINKING.source, {"train_on": "all"}, False),
    ],
)
def test_prompts_that_differ_from_those_at_inference_are_detected(
    chat_tokenizer: MakeChatTokenizer, template: str, choices: Row, differs: bool
) -> None:
    tokenizer = chat_tokenizer(template, **choices)
    messages = [user("hi"), assistant("hello"), user("bye"), assistant("see you")]
    tokenizer.start_unit()
    assert (
        PROMPT_MISMATCH in tokenizer.conversations.prepare({"messages": messages}, "messages").notes.rules
    ) is differs


def test_prompts_of_turns_without_a_loss_do_not_matter(chat_tokenizer: MakeChatTokenizer) -> None:
    tokenizer = chat_tokenizer(QWEN_THINKING.source)
    tokenizer.start_unit()
    assert (
        PROMPT_MISMATCH
        not in tokenizer.conversations.prepare({"messages": talk({"train": False}, {})}, "messages").notes.rules
    )
    assert (
        PROMPT_MISMATCH
        in tokenizer.conversations.prepare({"messages": talk({}, {"train": False})}, "messages").notes.rules
    )


def test_prompts_that_the_template_refuses_are_not_a_mismatch(chat_tokenizer: MakeChatTokenizer) -> None:
    """The template refuses to render the messages before the first turn, which contain no question."""
    tokenizer = chat_tokenizer(QWEN_THINKING.source)
    row = {"messages": [system("s"), assistant("b"), user("c"), assistant("d")]}
    assert trained(tokenizer, row["messages"]) == ["b<|im_end|>", "\n</think>\n\nd<|im_end|>"]
    tokenizer.start_unit()
    assert PROMPT_MISMATCH not in tokenizer.conversations.prepare(row, "messages").notes.rules
    unanswered = chat_tokenizer(templates.GENERATION).conversations.prepare({"messages": [user("a")]}, "messages")
    assert PROMPT_MISMATCH not in unanswered.notes.rules


# --- Rows that stay text ----------------------------------------------------------------------------


def test_a_row_with_flags_cannot_become_text(chat_tokenizer: MakeChatTokenizer) -> None:
    tokenizer = chat_tokenizer(templates.CHATML)
    assert (
        tokenizer.conversations.render({"messages": talk({"train": True}, {"weight": None})}, "messages").count("hello")
        == 1
    )
    with pytest.raises(RowError, match="which a text column cannot express"):
        tokenizer.conversations.render({"messages": talk({"train": False}, {})}, "messages")


def test_a_row_with_flags_cannot_become_text_if_the_template_gets_the_whole_row(
    chat_tokenizer: MakeChatTokenizer,
) -> None:
    tokenizer = chat_tokenizer("{% for m in messages['messages'] %}{{ m['content'] }}{% endfor %}")
    assert tokenizer.conversations.render({"messages": talk({}, {})}, None).count("hello") == 1
    with pytest.raises(RowError, match="which a text column cannot express"):
        tokenizer.conversations.render({"messages": talk({"loss": "false"}, {})}, None)


@pytest.mark.parametrize("flag", [{"train": True}, {"weight": 1}, {"loss": "yes"}], ids=str)
def test_a_flag_that_asks_for_a_loss_where_none_is_given_is_noticed(
    chat_tokenizer: MakeChatTokenizer, flag: Row
) -> None:
    every_turn, last_turn, everything = (
        chat_tokenizer(templates.CHATML, train_on=on) for on in ("assistant", "last_assistant", "all")
    )
    asked = [{**user("a"), **flag}, assistant("b")]
    assert LOSS_FLAG_UNUSED in every_turn.conversations.prepare({"messages": asked}, "messages").notes.rules
    assert LOSS_FLAG_UNUSED not in everything.conversations.prepare({"messages": asked}, "messages").notes.rules
    assert (
        LOSS_FLAG_UNUSED not in every_turn.conversations.prepare({"messages": talk(flag, flag)}, "messages").notes.rules
    )
    assert LOSS_FLAG_UNUSED in last_turn.conversations.prepare({"messages": talk(flag, {})}, "messages").notes.rules
    assert LOSS_FLAG_UNUSED not in last_turn.conversations.prepare({"messages": talk({}, flag)}, "messages").notes.rules
    assert (
        LOSS_FLAG_UNUSED
        not in every_turn.conversations.prepare({"messages": [user("a"), assistant("b")]}, "messages").notes.rules
    )


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("<think>hm</think>b</s>", ["b</s>"]),
        ("<think>\n\n</think>\n\nb</s>", ["b</s>"]),
        ("b</s>", ["b</s>"]),
        ("<think>hm</s>", []),
    ],
)
def test_reasoning_in_responses_is_masked(
    chat_tokenizer: MakeChatTokenizer, response: str, expected: list[str]
) -> None:
    text = f"### Instruction:\na\n### Response:\n{response}\n### Instruction:\nc\n### Response:\nd</s>"
    spans = chat_tokenizer(reasoning="mask").find_responses(text, "### Response:\n", "### Instruction:\n")
    assert trained_texts(text, spans) == [*expected, "d</s>"]
    spans = chat_tokenizer(reasoning="mask", train_on="last_assistant").find_responses(text, "### Response:\n", None)
    assert trained_texts(text, spans) == ["d</s>"]
