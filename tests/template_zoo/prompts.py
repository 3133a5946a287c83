"""Turns that differ from their generation prompt: indented, without its end, after other text, or without any header."""

from __future__ import annotations

from template_zoo.conversations import ADD, ONE_CALL, Conversation, assistant, result, system, user
from template_zoo.model import Case, Quarantined, Style, cases

_CHATML = ("<|im_start|>", "<|im_end|>")

# Written over several lines, so that the indentation of a branch and the line end after it are part of the text.
GEMMA_INDENTED = Style(
    "gemma-indented",
    r"""{{ bos_token }}
{% for message in messages %}
    {% if message['role'] == 'assistant' %}
        {% set role = 'model' %}
    {% else %}
        {% set role = message['role'] %}
    {% endif %}

    {{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}
{% endfor %}

{% if add_generation_prompt %}
        {{ '<start_of_turn>model\n' }}
{% endif %}
""",
    ("<start_of_turn>", "<end_of_turn>"),
    "    <start_of_turn>model\n",
    "<end_of_turn>",
)
CHATQA = Style(
    "chatqa",
    r"""{{ bos_token }}
{% for message in messages %}
    {% if message['role'] == 'user' %}
        {{ '\n\nUser: ' + message['content'] | trim }}
    {% elif message['role'] == 'assistant' %}
        {{ '\n\nAssistant: '  + message['content'] | trim }}
    {% endif %}
{% endfor %}

{% if add_generation_prompt %}
    {{ '\n\nAssistant:' }}
{% endif %}
""",
    header="        \n\nAssistant: ",
    stop="\n        \n\nUser: ",
)

# Only questions that are asked with this role are answered by a bot.
SAIGA = Style(
    "saiga",
    r"""{% for message in messages %}
    {{ '<s>' + message['role'] + '\n' + message['content'] | trim + eos_token }}

    {% if loop.last and message['role'] == 'user' and add_generation_prompt %}
        {{ '<s>bot\n' }}
    {% endif %}
{% endfor %}
""",
    header="    <s>bot\n",
    stop="</s>",
)

# Qwen 1.5: the stop token of the last turn is written only with a generation prompt.
QWEN15 = Style(
    "qwen1.5",
    r"""{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nBe helpful.<|im_end|>\n' }}{% endif %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] }}{% if (loop.last and add_generation_prompt) or not loop.last %}{{ '<|im_end|>\n' }}{% endif %}{% endfor %}{% if add_generation_prompt and messages[-1]['role'] != 'assistant' %}{{ '<|im_start|>assistant\n' }}{% endif %}""",
    _CHATML,
    "<|im_start|>assistant\n",
    "<|im_end|>",
)

# R1-0528: questions write the header of the answer, and the text after tool results closes them instead.
R1_0528 = Style(
    "deepseek-r1-0528",
    r"""{% set ns = namespace(is_tool=false) %}{{ bos_token }}{%- for message in messages %}{%- if message['role'] == 'user' %}{%- set ns.is_tool = false %}{{ '<｜User｜>' + message['content'] + '<｜Assistant｜>' }}{%- elif message['role'] == 'tool' %}{%- if not ns.is_tool %}{{ '<｜tool▁outputs▁begin｜>' }}{%- endif %}{%- set ns.is_tool = true %}{{ '<｜tool▁output▁begin｜>' + message['content'] + '<｜tool▁output▁end｜>' }}{%- elif message['role'] == 'assistant' %}{%- if ns.is_tool %}{{ '<｜tool▁outputs▁end｜>' }}{%- endif %}{%- set ns.is_tool = false %}{{ message['content'] or '' }}{%- for call in message['tool_calls'] or [] %}{{ '<｜tool▁call▁begin｜>' + call['function']['name'] + '<｜tool▁call▁end｜>' }}{%- endfor %}{{ eos_token }}{%- endif %}{%- endfor %}{% if ns.is_tool %}{{ '<｜tool▁outputs▁end｜>' }}{% endif %}{% if add_generation_prompt and messages[-1]['role'] == 'assistant' %}{{ '<｜Assistant｜>' }}{% endif %}""",
    (
        "<｜User｜>",
        "<｜Assistant｜>",
        "<｜tool▁call▁begin｜>",
        "<｜tool▁call▁end｜>",
        "<｜tool▁outputs▁begin｜>",
        "<｜tool▁outputs▁end｜>",
        "<｜tool▁output▁begin｜>",
        "<｜tool▁output▁end｜>",
    ),
    "<｜User｜>a<｜Assistant｜>",
    "</s>",
)

# Command R7B with reasoning switched off: all answers begin with the same token, which is not in the prompt.
_COMMAND_TOKENS = tuple(
    f"<|{name}|>"
    for name in (
        *("START_OF_TURN_TOKEN", "END_OF_TURN_TOKEN", "USER_TOKEN", "CHATBOT_TOKEN", "SYSTEM_TOKEN"),
        *("START_THINKING", "END_THINKING", "START_RESPONSE", "END_RESPONSE"),
    )
)
_COMMAND = r"""{% for message in messages %}{{ '<|START_OF_TURN_TOKEN|>' }}{% if message.role == 'assistant' %}{{ '<|CHATBOT_TOKEN|>' }}{% if message.reasoning_content %}{{ '<|START_THINKING|>' + message.reasoning_content + '<|END_THINKING|>' }}{% endif %}{{ '<|START_RESPONSE|>' + message.content + '<|END_RESPONSE|>' }}{% else %}{{ '<|' + message.role | upper + '_TOKEN|>' + message.content }}{% endif %}{{ '<|END_OF_TURN_TOKEN|>' }}{% endfor %}"""
_COMMAND_PROMPT = "{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|><|START_THINKING|><|END_THINKING|>' }}"
COMMAND_SKIPPING = Style(
    "command-skipping-reasoning",
    _COMMAND + "{% if add_generation_prompt %}" + _COMMAND_PROMPT + "{% endif %}",
    _COMMAND_TOKENS,
    "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
    "<|END_OF_TURN_TOKEN|>",
)
COMMAND_ALWAYS_SKIPPING = Style(
    "command-always-skipping-reasoning",
    _COMMAND + _COMMAND_PROMPT,
    _COMMAND_TOKENS,
    "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
    "<|END_OF_TURN_TOKEN|>",
)

# Reinforcement learning of reasoning: the prompt opens the reasoning with a tag, half a tag, or words.
_PLAIN_TURNS = r"""{% for message in messages %}{% if message.role == 'assistant' %}{{ 'Assistant: ' + message.content + eos_token }}{% else %}{{ 'User: ' + message.content + '\n' }}{% endif %}{% endfor %}"""
THINKING_USER = Style(
    "user-assistant-think",
    _PLAIN_TURNS + "{% if add_generation_prompt %}{{ 'Assistant: <think>\\n' }}{% endif %}",
    header="Assistant: ",
    stop="</s>",
)
HALF_A_TAG = Style(
    "half-a-tag",
    _PLAIN_TURNS + "{% if add_generation_prompt %}{{ 'Assistant: <think' }}{% endif %}",
    header="Assistant: ",
    stop="</s>",
)
STEP_BY_STEP = Style(
    "step-by-step",
    _PLAIN_TURNS + "{% if add_generation_prompt %}{{ 'Assistant: Let me think step by step.\\n' }}{% endif %}",
    header="Assistant: ",
    stop="</s>",
)

# WizardCoder: each message writes the start of the next header.
HEADER_AHEAD = Style(
    "header-ahead",
    r"""{% for message in messages %}{% if loop.first %}{{ 'Follow the instruction.\n\n### ' }}{% endif %}{{ ('Response: ' if message.role == 'assistant' else 'Instruction: ') + message.content + '\n\n### ' }}{% endfor %}{% if add_generation_prompt %}{{ 'Response:' }}{% endif %}""",
    header="Response: ",
    stop="\n\n### Instruction: ",
)

# The stop token is written when the next message starts, or after the last one.
STOP_LATER = Style(
    "stop-later",
    r"""{% set ns = namespace(is_open=false) %}{% for message in messages %}{% if message.role == 'assistant' %}{{ '<|assistant_start|>' + message.content }}{% set ns.is_open = true %}{% else %}{% if ns.is_open %}{{ '<|assistant_end|>' }}{% set ns.is_open = false %}{% endif %}{{ '<|user_start|>' + message.content + '<|user_end|>' }}{% endif %}{% endfor %}{% if ns.is_open %}{{ '<|assistant_end|>' }}{% endif %}{% if add_generation_prompt %}{{ '<|assistant_start|>' }}{% endif %}""",
    ("<|assistant_start|>", "<|assistant_end|>", "<|user_start|>", "<|user_end|>"),
    "<|assistant_start|>",
    "<|assistant_end|>",
)

# Command R+ with tools: instructions stand between the last message and the prompt.
REMINDED = Style(
    "reminded",
    r"""{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}{% endfor %}{{ '<|im_start|>system\nUse the tools.<|im_end|>\n' }}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}""",
    _CHATML,
    "<|im_start|>assistant\n",
    "<|im_end|>",
)

# LLaVA: contents are lists of parts only; questions end with the opening of the answer.
LLAVA = Style(
    "llava-next",
    r"""{% for message in messages %}{% if message['role'] == 'user' %}{{ '[INST] ' }}{% for part in message['content'] %}{{ part['text'] }}{% endfor %}{{ ' [/INST]' }}{% else %}{{ ' ' }}{% for part in message['content'] %}{{ part['text'] }}{% endfor %}{{ '</s> ' }}{% endif %}{% endfor %}""",
    header="[INST] a [/INST]",
    stop="</s> ",
    content="parts",
)

# A guard model: it answers to a prompt that quotes the conversation.
GUARD = Style(
    "guard",
    r"""{{ '<|user|>Is this conversation safe?\n\n' }}{% for message in messages %}{{ ('Agent: ' if message.role == 'assistant' else 'User: ') + message.content + '\n\n' }}{% endfor %}{{ 'Give your assessment.<|end|><|assistant|>' }}""",
    ("<|user|>", "<|assistant|>", "<|end|>"),
    "Agent: ",
    "\n\n",
)

# After tool results the template writes no prompt, and the turn no header.
CONTINUED = Style(
    "continued",
    r"""{% for message in messages %}{% if message.role == 'assistant' %}{{ '' if messages[loop.index0 - 1].role == 'tool' else '<|assistant|>' }}{{ message.content + eos_token }}{% else %}{{ '<|' + message.role + '|>' + message.content + '<|end|>' }}{% endif %}{% endfor %}{% if add_generation_prompt and messages[-1].role != 'tool' %}{{ '<|assistant|><think>\n' }}{% endif %}""",
    ("<|user|>", "<|assistant|>", "<|tool|>", "<|end|>"),
    "<|assistant|>",
    "</s>",
)

# Vicuna: the system text is part of the first turn, whichever that is.
SYSTEM_IN_TURN = Style(
    "system-in-turn",
    r"""{% set turns = messages[1:] if messages[0].role == 'system' else messages %}{% for message in turns %}{% if loop.first %}{{ messages[0].content if messages[0].role == 'system' else 'A chat.' }}{% endif %}{{ ' ASSISTANT: ' + message.content + eos_token if message.role == 'assistant' else ' USER: ' + message.content }}{% endfor %}{% if add_generation_prompt %}{{ ' ASSISTANT:' }}{% endif %}""",
    header=" ASSISTANT: ",
    stop="</s>",
)

# Kimi K2: the name of a message instead of its role.
NAMED = Style(
    "named",
    r"""{% for message in messages %}{{ '<|im_' + message.role + '|>' + (message.name or message.role) + '<|im_middle|>' + message.content + '<|im_end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_assistant|>assistant<|im_middle|>' }}{% endif %}""",
    ("<|im_user|>", "<|im_assistant|>", "<|im_middle|>", "<|im_end|>"),
    "<|im_assistant|>assistant<|im_middle|>",
    "<|im_end|>",
)

_NAMES = Conversation([{**user("a"), "name": "Ann"}, assistant("Bot", name="Bot"), user("c"), assistant("d")])
_ANSWER_FIRST = Conversation([system("be kind"), assistant("b"), user("c"), assistant("d")])
_THINKS_AGAIN = Conversation([user("a"), assistant("b"), result(1, "3"), assistant("<think>\nhm\n</think>\n\nd")])
_BOT = Conversation([user("hi"), {"role": "bot", "content": "hello"}, user("a"), {"role": "bot", "content": "b"}])
_THINKS = Conversation([user("a"), assistant("<think>\nhm\n</think>\n\nb"), user("c"), assistant("<think>no")])
_TWO_STEPS = Conversation(
    [
        user("1+2?"),
        assistant("", tool_calls=ONE_CALL),
        result(1, "3"),
        assistant("", tool_calls=ONE_CALL),
        result(1, "3"),
        assistant("3"),
    ],
    [ADD],
)
_LIKE_HEADER = Conversation([user("b"), assistant("a")])
_STEPS = Conversation([user("a"), assistant("Let me think step by step.\nb"), user("c"), assistant("Let us see.")])
_ANSWER = "<|START_RESPONSE|>{}<|END_RESPONSE|><|END_OF_TURN_TOKEN|>".format
_CALL = "<｜tool▁call▁begin｜>add<｜tool▁call▁end｜></s>"

CASES = [
    *cases(
        GEMMA_INDENTED,
        {
            "single": ["hello<end_of_turn>"],
            "multi": ["hello<end_of_turn>", "see you<end_of_turn>"],
            "same": ["same<end_of_turn>", "same<end_of_turn>"],
            "padded": ["b<end_of_turn>", "d<end_of_turn>"],
            "open": ["b<end_of_turn>"],
            "lookalike": ["<start_of_turn>model\nx<end_of_turn>", "d<end_of_turn>e<end_of_turn>"],
        },
    ),
    *cases(
        CHATQA,
        {
            "single": [" hello"],
            "multi": [" hello", " see you"],
            "same": [" same", " same"],
            "padded": [" b", " d"],
            "open": [" b"],
        },
    ),
    Case(SAIGA, "bot", _BOT, ["hello</s>", "b</s>"]),
    # The prompt names another role than these turns.
    *cases(SAIGA, {"single": Quarantined, "multi": Quarantined}),
    Case(SAIGA, "content like the header", _LIKE_HEADER, Quarantined),
    *cases(
        QWEN15,
        {
            "single": ["hello"],
            "multi": ["hello<|im_end|>", "see you"],
            "system": ["hello<|im_end|>", "see you"],
            "same": ["same<|im_end|>", "same"],
            "empty": ["<|im_end|>", "d"],
            "padded": ["  b \n<|im_end|>", "\n d"],
            "first": ["b<|im_end|>", "d"],
            "open": ["b<|im_end|>"],
            "lookalike": ["<|im_start|>assistant\nx<|im_end|>", "d<|im_end|>e"],
        },
    ),
    *cases(
        R1_0528,
        {
            "single": ["hello</s>"],
            "multi": ["hello</s>", "see you</s>"],
            "same": ["same</s>", "same</s>"],
            "empty": ["</s>", "d</s>"],
            "first": ["b</s>", "d</s>"],
            "open": ["b</s>"],
            "tool": [_CALL, "It is 3.</s>"],
            "tool words": ["Let me see." + _CALL, "It is 3.</s>"],
            "tool then more": [_CALL, "It is 3.</s>", "see you</s>"],
        },
    ),
    Case(R1_0528, "two steps", _TWO_STEPS, [_CALL, _CALL, "3</s>"]),
    *[
        case
        for style in (COMMAND_SKIPPING, COMMAND_ALWAYS_SKIPPING)
        for case in cases(
            style,
            {
                "single": [_ANSWER("hello")],
                "multi": [_ANSWER("hello"), _ANSWER("see you")],
                "system": [_ANSWER("hello"), _ANSWER("see you")],
                "same": [_ANSWER("same"), _ANSWER("same")],
                "empty": [_ANSWER(""), _ANSWER("d")],
                "twice": [_ANSWER("b"), _ANSWER("c")],
                "first": [_ANSWER("b"), _ANSWER("d")],
                # The prompt has opened the reasoning.
                "reasoning": ["hm<|END_THINKING|>" + _ANSWER("b"), "ho<|END_THINKING|>" + _ANSWER("d")],
            },
        )
    ],
    *cases(
        THINKING_USER,
        {
            "single": ["hello</s>"],
            "multi": ["hello</s>", "see you</s>"],
            "same": ["same</s>", "same</s>"],
            "empty": ["</s>", "d</s>"],
            "first": ["b</s>", "d</s>"],
        },
    ),
    Case(THINKING_USER, "thinks", _THINKS, ["hm\n</think>\n\nb</s>", "no</s>"]),
    *cases(
        HALF_A_TAG, {"single": ["hello</s>"], "multi": ["hello</s>", "see you</s>"], "same": ["same</s>", "same</s>"]}
    ),
    Case(HALF_A_TAG, "thinks", _THINKS, [">\nhm\n</think>\n\nb</s>", ">no</s>"]),
    *cases(STEP_BY_STEP, {"single": ["hello</s>"], "multi": ["hello</s>", "see you</s>"], "empty": ["</s>", "d</s>"]}),
    Case(STEP_BY_STEP, "thinks", _THINKS, ["<think>\nhm\n</think>\n\nb</s>", "<think>no</s>"]),
    # The second answer begins as the prompt goes on, and then differs.
    Case(STEP_BY_STEP, "steps", _STEPS, Quarantined),
    *cases(
        HEADER_AHEAD,
        {
            "single": [" hello"],
            "multi": [" hello", " see you"],
            "same": [" same", " same"],
            "open": [" b"],
        },
    ),
    *cases(
        STOP_LATER,
        {
            "single": ["hello<|assistant_end|>"],
            "multi": ["hello<|assistant_end|>", "see you<|assistant_end|>"],
            "same": ["same<|assistant_end|>", "same<|assistant_end|>"],
            "open": ["b<|assistant_end|>"],
            "padded": ["  b \n<|assistant_end|>", "\n d<|assistant_end|>"],
        },
    ),
    *cases(
        REMINDED,
        {
            "single": ["hello<|im_end|>"],
            "multi": ["hello<|im_end|>", "see you<|im_end|>"],
            "same": ["same<|im_end|>", "same<|im_end|>"],
            "empty": ["<|im_end|>", "d<|im_end|>"],
            "open": ["b<|im_end|>"],
        },
    ),
    *cases(
        LLAVA,
        {
            "single": [" hello</s>"],
            "multi": [" hello</s>", " see you</s>"],
            "parts": [" cd</s>", " d</s>"],
            "first": [" b</s>", " d</s>"],
            "empty": [" </s>", " d</s>"],
        },
    ),
    *cases(CONTINUED, {"multi": ["hello</s>", "see you</s>"], "tool": ["</s>", "It is 3.</s>"]}),
    Case(CONTINUED, "thinks again", _THINKS_AGAIN, ["b</s>", "<think>\nhm\n</think>\n\nd</s>"]),
    *cases(SYSTEM_IN_TURN, {"multi": [" hello</s>", " see you</s>"], "first": [" b</s>", " d</s>"]}),
    Case(SYSTEM_IN_TURN, "system and answer", _ANSWER_FIRST, [" b</s>", " d</s>"]),
    *cases(NAMED, {"multi": ["hello<|im_end|>", "see you<|im_end|>"], "first": ["b<|im_end|>", "d<|im_end|>"]}),
    Case(NAMED, "names", _NAMES, ["Bot<|im_end|>", "d<|im_end|>"]),
    *cases(GUARD, {"single": Quarantined, "multi": Quarantined, "open": Quarantined}),
]
