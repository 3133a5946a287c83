"""Templates with `{% generation %}`, which is followed."""

from __future__ import annotations

from template_zoo.conversations import TWO_TURNS, Conversation, system
from template_zoo.model import Case, Style, cases

_OPEN, _STOP = "<|im_start|>assistant\n", "<|im_end|>"
_TOKENS = ("<|im_start|>", "<|im_end|>")

# SmolLM3: {% generation %} around the whole turn, including header and line end; the system text sets a mode.
SMOLLM3 = Style(
    "smollm3",
    r"""{%- if enable_thinking is not defined -%}
{%- set enable_thinking = true -%}
{%- endif -%}
{%- if enable_thinking -%}
  {%- set reasoning_mode = "/think" -%}
{%- else -%}
  {%- set reasoning_mode = "/no_think" -%}
{%- endif -%}
{{- "<|im_start|>system\n" -}}
{%- if messages[0].role == "system" -%}
  {%- set system_message = messages[0].content -%}
  {%- if "/no_think" in system_message -%}
    {%- set reasoning_mode = "/no_think" -%}
  {%- endif -%}
  {%- set custom_instructions = system_message.replace("/no_think", "").replace("/think", "").rstrip() -%}
  {{- custom_instructions + "\n\n" -}}
{%- endif -%}
{{- "Reasoning Mode: " + reasoning_mode + "<|im_end|>\n" -}}
{%- for message in messages -%}
    {%- set content = message.content if message.content is string else "" -%}
    {%- if message.role == "user" -%}
        {{ "<|im_start|>" + message.role + "\n"  + content + "<|im_end|>\n" }}
    {%- elif message.role == "assistant" -%}
        {% generation %}
        {%- if reasoning_mode == "/think" -%}
            {{ "<|im_start|>assistant\n" + content.lstrip("\n") + "<|im_end|>\n" }}
        {%- else -%}
            {{ "<|im_start|>assistant\n" + "<think>\n\n</think>\n" + content.lstrip("\n") + "<|im_end|>\n" }}
        {%- endif -%}
        {% endgeneration %}
    {%- elif message.role == "tool" -%}
        {{ "<|im_start|>" + "user\n"  + content + "<|im_end|>\n" }}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {%- if reasoning_mode == "/think" -%}
        {{ "<|im_start|>assistant\n" }}
    {%- else -%}
        {{ "<|im_start|>assistant\n" + "<think>\n\n</think>\n" }}
    {%- endif -%}
{%- endif -%}
""",
    _TOKENS,
    _OPEN,
    _STOP,
)

# The same without {% generation %}: its prompt depends on the system text.
SMOLLM3_UNMARKED = Style(
    "smollm3-unmarked",
    (SMOLLM3.source or "").replace("{% generation %}", "").replace("{% endgeneration %}", ""),
    _TOKENS,
    _OPEN,
    _STOP,
)

# A training template: {% generation %} around content, calls and stop, several blocks per turn.
GENERATION = Style(
    "generation",
    r"""{%- for message in messages %}
{%- if message.role == 'assistant' %}
{{- '<|im_start|>assistant\n' }}
{%- if message.reasoning_content %}
{%- generation %}{{- '<think>' + message.reasoning_content + '</think>' }}{%- endgeneration %}
{%- endif %}
{%- generation %}
{{- message.content }}
{%- for tool_call in message.tool_calls or [] %}
{{- '<tool_call>' + tool_call.function | tojson + '</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>' }}
{%- endgeneration %}
{{- '\n' }}
{%- else %}
{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}
""",
    _TOKENS,
    _OPEN,
    _STOP,
)

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

_NO_THINK = Conversation([system("be kind /no_think"), *TWO_TURNS])
_THINKING_OFF = Conversation(TWO_TURNS, variables={"enable_thinking": False})

CASES = [
    *cases(
        SMOLLM3,
        {
            "single": ["<|im_start|>assistant\nhello<|im_end|>\n"],
            "multi": ["<|im_start|>assistant\nhello<|im_end|>\n", "<|im_start|>assistant\nsee you<|im_end|>\n"],
            "system": ["<|im_start|>assistant\nhello<|im_end|>\n", "<|im_start|>assistant\nsee you<|im_end|>\n"],
            "empty": ["<|im_start|>assistant\n<|im_end|>\n", "<|im_start|>assistant\nd<|im_end|>\n"],
            "padded": ["<|im_start|>assistant\n  b \n<|im_end|>\n", "<|im_start|>assistant\n d<|im_end|>\n"],
            "first": ["<|im_start|>assistant\nb<|im_end|>\n", "<|im_start|>assistant\nd<|im_end|>\n"],
            "lookalike": [
                "<|im_start|>assistant\n<|im_start|>assistant\nx<|im_end|>\n",
                "<|im_start|>assistant\nd<|im_end|>e<|im_end|>\n",
            ],
        },
    ),
    *cases(
        SMOLLM3_UNMARKED,
        {
            **_PLAIN,
            **_IN_A_ROW,
            "padded": ["  b \n<|im_end|>", " d<|im_end|>"],
            "trailing stop": ["x<|im_end|> \n <|im_end|>", "<|im_end|><|im_end|>"],
        },
    ),
    Case(SMOLLM3_UNMARKED, "no think", _NO_THINK, ["hello<|im_end|>", "see you<|im_end|>"]),
    Case(SMOLLM3_UNMARKED, "thinking off", _THINKING_OFF, ["hello<|im_end|>", "see you<|im_end|>"]),
    Case(
        SMOLLM3,
        "no think",
        _NO_THINK,
        [
            "<|im_start|>assistant\n<think>\n\n</think>\nhello<|im_end|>\n",
            "<|im_start|>assistant\n<think>\n\n</think>\nsee you<|im_end|>\n",
        ],
    ),
    *cases(
        GENERATION,
        {
            **_PLAIN,
            **_IN_A_ROW,
            "reasoning": ["<think>hm</think>", "b<|im_end|>", "<think>ho</think>", "d<|im_end|>"],
            "tool": [
                '<tool_call>{"name": "add", "arguments": {"a": 1, "b": 2}}</tool_call><|im_end|>',
                "It is 3.<|im_end|>",
            ],
        },
    ),
]
