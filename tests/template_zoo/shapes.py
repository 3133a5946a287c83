"""Other forms of messages and rows: contents in parts, other keys and roles, pairs, macros, the whole row."""

from __future__ import annotations

from template_zoo.conversations import Conversation, assistant, parts, user
from template_zoo.model import Case, Quarantined, Style, cases

# One text, captured before it is written.
CAPTURED = Style(
    "captured",
    r"""{%- set body -%}
{%- for message in messages -%}
{{ '[' + message.role | upper + ']' + message.content + '[END]\n' }}
{%- endfor -%}
{%- endset -%}
{{ body }}{% if add_generation_prompt %}{{ '[ASSISTANT]' }}{% endif %}""",
    ("[END]",),
    "[ASSISTANT]",
    "[END]\n",
)

# Messages written by a macro that the loop calls.
BY_MACRO = Style(
    "by-macro",
    r"""{%- macro turn(role, content, last) -%}
<{{ role }}>{{ content }}</{{ role }}>{% if not last %}{{ '\n' }}{% endif %}
{%- endmacro -%}
{%- for message in messages -%}
{{ turn(message.role, message.content, loop.last) }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '\n<assistant>' }}
{%- endif -%}""",
    ("</assistant>",),
    "<assistant>",
    "</assistant>",
)

# Pairs of messages: each iteration writes a question and its answer.
IN_PAIRS = Style(
    "in-pairs",
    r"""{%- for i in range(0, messages | length, 2) -%}
{{- 'Q: ' + messages[i].content + '\nA:' -}}
{%- if i + 1 < messages | length -%}
{{- ' ' + messages[i + 1].content + eos_token + '\n' -}}
{%- endif -%}
{%- endfor -%}""",
    header="A: ",
    stop="</s>\n",
)

# Content only as a list of parts.
PARTS_ONLY = Style(
    "parts-only",
    r"""{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\n' -}}
{%- for part in message.content -%}
{%- if part.type == 'text' -%}{{ part.text }}{%- endif -%}
{%- endfor -%}
{{- '<|im_end|>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}""",
    ("<|im_start|>", "<|im_end|>"),
    "<|im_start|>assistant\n",
    "<|im_end|>",
    content="parts",
)

# ShareGPT: other keys for role and content, other roles.
SHAREGPT = Style(
    "sharegpt",
    r"""{%- set names = {'human': 'user', 'gpt': 'assistant', 'system': 'system'} -%}
{%- for message in messages -%}
{{- '<|im_start|>' + names[message['from']] + '\n' + message['value'] + '<|im_end|>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}""",
    ("<|im_start|>", "<|im_end|>"),
    "<|im_start|>assistant\n",
    "<|im_end|>",
)

# Other names of roles, in upper case; unknown ones are an error.
OTHER_ROLES = Style(
    "other-roles",
    r"""{%- for message in messages -%}
{%- if message.role == 'bot' -%}
{{- 'BOT>' + message.content + eos_token + '\n' -}}
{%- elif message.role == 'human' -%}
{{- 'HUMAN>' + message.content + '\n' -}}
{%- else -%}
{{- raise_exception('Unknown role ' ~ message.role) -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ 'BOT>' }}{%- endif -%}""",
    header="BOT>",
    stop="</s>\n",
)

# `messages` is the whole row, as in fms-hf-tuning.
WHOLE_ROW = Style(
    "whole-row",
    r"""{%- for message in messages['messages'] %}
 {%- if message['role'] == 'system' %}
   {{ '<|start_of_role|>system<|end_of_role|>' + message['content'] + '<|end_of_text|>\n' }}
 {%- elif message['role'] == 'assistant' %}
   {{ '<|start_of_role|>assistant<|end_of_role|>' + message['content'] + '<|end_of_text|>\n' }}
 {%- else %}
   {{ '<|start_of_role|>user<|end_of_role|>' + message['content'] + '<|end_of_text|>\n' }}
 {%- endif %}
{%- endfor %}
""",
    ("<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>"),
    "<|start_of_role|>assistant<|end_of_role|>",
    "<|end_of_text|>",
    reads_row=True,
)

_SHAREGPT = Conversation(
    [
        {"from": "human", "value": "hi"},
        {"from": "gpt", "value": "hello"},
        {"from": "human", "value": "hello"},
        {"from": "gpt", "value": "hello"},
    ]
)
_BOT = Conversation(
    [
        {"role": "human", "content": "hi"},
        {"role": "bot", "content": "hello"},
        {"role": "human", "content": "bye"},
        {"role": "bot", "content": "see you"},
    ]
)
_MIXED = Conversation([user("a"), assistant(parts("c", "d")), user(parts("e")), assistant("d")])

CASES = [
    *cases(
        CAPTURED,
        {
            "single": ["hello[END]"],
            "multi": ["hello[END]", "see you[END]"],
            "system": ["hello[END]", "see you[END]"],
            "same": ["same[END]", "same[END]"],
            "empty": ["[END]", "d[END]"],
            "padded": ["  b \n[END]", "\n d[END]"],
            "twice": ["b[END]", "c[END]"],
            "open": ["b[END]"],
            "lookalike": ["[ASSISTANT]x[END]", "d[END]\ne[END]"],
        },
    ),
    *cases(
        BY_MACRO,
        {
            "single": ["hello</assistant>"],
            "multi": ["hello</assistant>", "see you</assistant>"],
            "system": ["hello</assistant>", "see you</assistant>"],
            "same": ["same</assistant>", "same</assistant>"],
            "empty": ["</assistant>", "d</assistant>"],
            "padded": ["  b \n</assistant>", "\n d</assistant>"],
            "twice": ["b</assistant>", "c</assistant>"],
            "open": ["b</assistant>"],
            "lookalike": ["<assistant>x</assistant>", "d</assistant>e</assistant>"],
        },
    ),
    *cases(
        IN_PAIRS,
        {
            "single": [" hello</s>"],
            "multi": [" hello</s>", " see you</s>"],
            "same": [" same</s>", " same</s>"],
            "empty": [" </s>", " d</s>"],
            "open": [" b</s>"],
            "lookalike": [" A: x</s>", " d</s>\ne</s>"],
        },
    ),
    *cases(
        PARTS_ONLY,
        {
            "trailing eos": ["x</s> \n <|im_end|>"],
            "trailing stop": ["x<|im_end|> \n <|im_end|>", "\n<|im_end|><|im_end|>"],
            "single": ["hello<|im_end|>"],
            "multi": ["hello<|im_end|>", "see you<|im_end|>"],
            "same": ["same<|im_end|>", "same<|im_end|>"],
            "empty": ["<|im_end|>", "d<|im_end|>"],
            "padded": ["  b \n<|im_end|>", "\n d<|im_end|>"],
            "parts": ["cd<|im_end|>", "d<|im_end|>"],
            "lookalike": ["<|im_start|>assistant\nx<|im_end|>", "d<|im_end|>e<|im_end|>"],
        },
    ),
    Case(PARTS_ONLY, "text and parts", _MIXED, ["cd<|im_end|>", "d<|im_end|>"]),
    Case(SHAREGPT, "other keys", _SHAREGPT, ["hello<|im_end|>", "hello<|im_end|>"]),
    Case(OTHER_ROLES, "bot", _BOT, ["hello</s>", "see you</s>"]),
    *cases(OTHER_ROLES, {"single": Quarantined}),
    *cases(
        WHOLE_ROW,
        {
            "single": ["hello<|end_of_text|>"],
            "multi": ["hello<|end_of_text|>", "see you<|end_of_text|>"],
            "system": ["hello<|end_of_text|>", "see you<|end_of_text|>"],
            "same": ["same<|end_of_text|>", "same<|end_of_text|>"],
            "empty": ["<|end_of_text|>", "d<|end_of_text|>"],
            "twice": ["b<|end_of_text|>", "c<|end_of_text|>"],
            "open": ["b<|end_of_text|>"],
            "lookalike": [
                "<|start_of_role|>assistant<|end_of_role|>x<|end_of_text|>",
                "d<|end_of_text|>e<|end_of_text|>",
            ],
        },
    ),
]
