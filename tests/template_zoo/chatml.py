"""ChatML: `<|im_start|>role`, `<|im_end|>`, and the variants of other families."""

from __future__ import annotations

from template_zoo.model import OrQuarantined, Style, cases

_OPEN, _STOP = "<|im_start|>assistant\n", "<|im_end|>"
_TOKENS = ("<|im_start|>", "<|im_end|>")

# Yi, Hermes and many fine-tunes: one line; add_generation_prompt is set to false if it is not given.
YI = Style(
    "yi",
    r"""{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{% if messages[0]['role'] == 'system' %}{% set system_message = messages[0]['content'] %}{% endif %}{% if system_message is defined %}{{ system_message }}{% endif %}{% for message in messages %}{% set content = message['content'] %}{% if message['role'] == 'user' %}{{ '<|im_start|>user\n' + content + '<|im_end|>\n<|im_start|>assistant\n' }}{% elif message['role'] == 'assistant' %}{{ content + '<|im_end|>' + '\n' }}{% endif %}{% endfor %}""",
    _TOKENS,
    _OPEN,
    _STOP,
)
"""The user's turn writes the header of the answer; there is no generation prompt."""

# LFM2: reassigns `messages`, writes content other than text as JSON, tool results between tokens.
LFM2 = Style(
    "lfm2",
    r"""{{- bos_token -}}
{%- set system_prompt = "" -%}
{%- set ns = namespace(system_prompt="") -%}
{%- if messages[0]["role"] == "system" -%}
    {%- set ns.system_prompt = messages[0]["content"] -%}
    {%- set messages = messages[1:] -%}
{%- endif -%}
{%- if tools -%}
    {%- set ns.system_prompt = ns.system_prompt + ("\n" if ns.system_prompt else "") + "List of tools: <|tool_list_start|>[" -%}
    {%- for tool in tools -%}
        {%- if tool is not string -%}
            {%- set tool = tool | tojson -%}
        {%- endif -%}
        {%- set ns.system_prompt = ns.system_prompt + tool -%}
        {%- if not loop.last -%}
            {%- set ns.system_prompt = ns.system_prompt + ", " -%}
        {%- endif -%}
    {%- endfor -%}
    {%- set ns.system_prompt = ns.system_prompt + "]<|tool_list_end|>" -%}
{%- endif -%}
{%- if ns.system_prompt -%}
    {{- "<|im_start|>system\n" + ns.system_prompt + "<|im_end|>\n" -}}
{%- endif -%}
{%- for message in messages -%}
    {{- "<|im_start|>" + message["role"] + "\n" -}}
    {%- set content = message["content"] -%}
    {%- if content is not string -%}
        {%- set content = content | tojson -%}
    {%- endif -%}
    {%- if message["role"] == "tool" -%}
        {%- set content = "<|tool_response_start|>" + content + "<|tool_response_end|>" -%}
    {%- endif -%}
    {{- content + "<|im_end|>\n" -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- "<|im_start|>assistant\n" -}}
{%- endif -%}
""",
    (*_TOKENS, "<|tool_response_start|>", "<|tool_response_end|>"),
    _OPEN,
    _STOP,
)

# InternLM2: tools in a plugin's system turn, actions between special tokens, results in environment turns.
INTERNLM2 = Style(
    "internlm2",
    r"""{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}

{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}

{{- bos_token }}
{%- if system_message is defined %}
{{- "<|im_start|>system\n" + system_message + "<|im_end|>\n" }}
{%- endif %}
{%- if tools is not none %}
    {{- "<|im_start|>system name=<|plugin|>\n[" }}
    {%- for tool in tools %}
        {{- tool.function|tojson }}
        {%- if not loop.last %}
            {{- ", " }}
        {%- else %}
            {{- "]" }}
        {%- endif %}
    {%- endfor %}
    {{- "<|im_end|>\n" }}
{%- endif %}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {{- "<|im_start|>user\n" + message["content"] + "<|im_end|>\n"}}
    {%- elif message.tool_calls is defined and message.tool_calls is not none %}
        {%- set content = message["content"] if message["content"] else "" %}
        {{- "<|im_start|>assistant\n" + content }}
        {%- for tool_call in message.tool_calls %}
            {%- set function=tool_call.function %}
            {{- "<|action_start|><|plugin|>\n" }}
            {{- '{"name": "' + function.name + '", '}}
            {{- '"arguments": ' + function.arguments|string + '}' }}
            {{- "<|action_end|>" }}
        {%- endfor %}
        {{- "<|im_end|>\n" }}
    {%- elif message["role"] == "assistant" %}
        {{- "<|im_start|>assistant\n" + message["content"] + "<|im_end|>\n"}}
    {%- elif message["role"] == "tool_results" or message["role"] == "tool" or message["role"] == "function" %}
        {{- "<|im_start|>environment name=<|plugin|>\n" + message.content|string + "<|im_end|>\n" }}
    {%- else %}
        {{- raise_exception("Only user and assistant and tool roles are supported.") }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\n' }}
{%- endif %}""",
    (*_TOKENS, "<|action_start|>", "<|action_end|>", "<|plugin|>"),
    _OPEN,
    _STOP,
)

# OLMo 3: reassigns `messages` if there is a system text, trims, Python calls between XML tags.
OLMO3 = Style(
    "olmo3",
    r"""{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "You call functions." %}
{%- endif %}
{{- "<|im_start|>system\n" }}
{{- system_message }}
{%- if tools is not none and tools | length > 0 %}
{{- "\n<functions>\n" + tools | tojson + "\n</functions>" }}
{%- else %}
{{- "\nYou do not currently have access to any functions." }}
{%- endif %}
{{- "<|im_end|>\n" }}
{%- for message in messages %}
    {%- if message.role == "user" %}
        {{- "<|im_start|>user\n" + message.content|trim + "<|im_end|>\n" }}
    {%- elif message.role == "assistant" %}
        {%- if message.tool_calls is defined and message.tool_calls | length > 0 %}
            {{- "<|im_start|>assistant\n<function_calls>\n" }}
            {%- for tool_call in message.tool_calls %}
                {%- if tool_call.function is defined %}
                    {%- set tool_call = tool_call.function %}
                {%- endif %}
                {{- tool_call.name + "(" }}
                {%- for key, value in tool_call.arguments.items() %}
                    {{- key + "=" }}
                    {%- if value is string %}
                        {{- "'" + value + "'" }}
                    {%- else %}
                        {{- value | tojson }}
                    {%- endif %}
                    {%- if not loop.last %}
                        {{- ", " }}
                    {%- endif %}
                {%- endfor %}
                {{- ")" }}
                {%- if not loop.last %}
                    {{- "\n" }}
                {%- endif %}
            {%- endfor %}
            {{- "\n</function_calls><|im_end|>\n" }}
        {%- else %}
            {{- "<|im_start|>assistant\n" + message.content|trim + "<|im_end|>\n" }}
        {%- endif %}
    {%- elif message.role == "tool" %}
        {{- "<|im_start|>tool\n" }}
        {%- if message.name is defined %}
            {{- "Function " + message.name + " returned:\n" }}
        {%- endif %}
        {{- message.content|trim + "<|im_end|>\n" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- "<|im_start|>assistant\n" }}
{%- endif %}
""",
    _TOKENS,
    _OPEN,
    _STOP,
)

# A loop over indices, as in templates that look at neighboring messages.
BY_INDEX = Style(
    "by-index",
    r"""{%- for i in range(messages | length) %}
    {%- set message = messages[i] %}
    {%- if i == 0 or messages[i - 1].role != message.role %}
        {{- '<|im_start|>' + message.role + '\n' }}
    {%- else %}
        {{- '\n' }}
    {%- endif %}
    {{- message.content }}
    {%- if i + 1 == messages | length or messages[i + 1].role != message.role %}
        {{- '<|im_end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}
""",
    _TOKENS,
    _OPEN,
    _STOP,
)
"""Consecutive messages of one role become one turn."""

# An end-of-text token after the turns, as in some ChatML fine-tunes.
EOS_AFTER_CHATML = Style(
    "eos-after-chatml",
    r"""{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% else %}{{ eos_token }}{% endif %}
""",
    _TOKENS,
    _OPEN,
    _STOP,
)
_ACTION = '<|action_start|><|plugin|>\n{"name": "add", "arguments": {\'a\': 1, \'b\': 2}}<|action_end|>'
_ACTION_2 = '<|action_start|><|plugin|>\n{"name": "add", "arguments": {\'a\': 3, \'b\': 4}}<|action_end|>'

_PLAIN = {
    "trailing stop": ["x<|im_end|> \n <|im_end|>", "\n<|im_end|><|im_end|>"],
    "single": ["hello<|im_end|>"],
    "multi": ["hello<|im_end|>", "see you<|im_end|>"],
    "system": ["hello<|im_end|>", "see you<|im_end|>"],
    "same": ["same<|im_end|>", "same<|im_end|>"],
    "empty": ["<|im_end|>", "d<|im_end|>"],
    "empty last": ["b<|im_end|>", "<|im_end|>"],
    "blank": [" \n <|im_end|>", "d<|im_end|>"],
    "padded": ["  b \n<|im_end|>", "\n d<|im_end|>"],
    "open": ["b<|im_end|>"],
    "parts": ["cd<|im_end|>", "d<|im_end|>"],
    "lookalike": ["<|im_start|>assistant\nx<|im_end|>", "d<|im_end|>e<|im_end|>"],
    "mimic": ["<|im_start|>assistant\n<|im_end|>", "<|im_end|><|im_end|>"],
    "think": ["<think>\nhm\n</think>\n\nb<|im_end|>", "<think>\nho\n</think>\n\nd<|im_end|>"],
}
"""For templates that write contents unchanged."""

_IN_A_ROW = {
    "twice": ["b<|im_end|>", "c<|im_end|>"],
    "first": ["b<|im_end|>", "d<|im_end|>"],
}
"""For templates that write a header for every turn."""

_TRIMMED = {
    "trailing eos": ["x</s><|im_end|>"],
    "trailing stop": ["x<|im_end|><|im_end|>", "<|im_end|><|im_end|>"],
    "single": ["hello<|im_end|>"],
    "multi": ["hello<|im_end|>", "see you<|im_end|>"],
    "system": ["hello<|im_end|>", "see you<|im_end|>"],
    "same": ["same<|im_end|>", "same<|im_end|>"],
    "empty": ["<|im_end|>", "d<|im_end|>"],
    "empty last": ["b<|im_end|>", "<|im_end|>"],
    "blank": ["<|im_end|>", "d<|im_end|>"],
    "padded": ["b<|im_end|>", "d<|im_end|>"],
    "twice": ["b<|im_end|>", "c<|im_end|>"],
    "first": ["b<|im_end|>", "d<|im_end|>"],
    "open": ["b<|im_end|>"],
    "parts": ["cd<|im_end|>", "d<|im_end|>"],
    "lookalike": ["<|im_start|>assistant\nx<|im_end|>", "d<|im_end|>e<|im_end|>"],
    "think": ["<think>\nhm\n</think>\n\nb<|im_end|>", "<think>\nho\n</think>\n\nd<|im_end|>"],
}

CASES = [
    *cases(
        YI,
        {
            **_PLAIN,
            "twice": ["b<|im_end|>", "c<|im_end|>"],  # nothing between them
            "first": ["b<|im_end|>", "d<|im_end|>"],
        },
    ),
    *cases(
        LFM2,
        {
            **{name: texts for name, texts in _PLAIN.items() if name != "parts"},
            **_IN_A_ROW,
        },
    ),
    *cases(
        INTERNLM2,
        {
            **_PLAIN,
            **_IN_A_ROW,
            "tool": [_ACTION + "<|im_end|>", "It is 3.<|im_end|>"],
            "tool null": [_ACTION + "<|im_end|>", "It is 3.<|im_end|>"],
            "tool words": ["Let me see." + _ACTION + "<|im_end|>", "It is 3.<|im_end|>"],
            "parallel": [_ACTION + _ACTION_2 + "<|im_end|>", "3 and 7.<|im_end|>"],
        },
    ),
    *cases(
        OLMO3,
        {
            **_TRIMMED,
            "tool": ["<function_calls>\nadd(a=1, b=2)\n</function_calls><|im_end|>", "It is 3.<|im_end|>"],
            "parallel": [
                "<function_calls>\nadd(a=1, b=2)\nadd(a=3, b=4)\n</function_calls><|im_end|>",
                "3 and 7.<|im_end|>",
            ],
        },
    ),
    *cases(
        BY_INDEX,
        {
            **_PLAIN,
            # One turn of two messages: the model writes both.
            "twice": OrQuarantined(["b", "c<|im_end|>"]),
            "first": ["b<|im_end|>", "d<|im_end|>"],
        },
    ),
    *cases(EOS_AFTER_CHATML, {**_PLAIN, **_IN_A_ROW}),
]
