"""Chat templates of different kinds: how they find messages, and how turns start and end."""

from __future__ import annotations

import json
from typing import Any

import jinja2.ext
import jinja2.sandbox

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

CHATML_IN_LINES = """\
{#- a comment -#}
{%- for message in messages %}
    {%- if message.role == 'assistant' %}
<|im_start|>assistant
{{ message.content }}<|im_end|>
    {%- else %}
<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
    {%- endif %}
{% endfor %}
{%- if add_generation_prompt %}
<|im_start|>assistant
{% endif %}
"""

GENERATION = """\
{%- for message in messages %}
{%- if message.role == 'assistant' %}
{{- '<|im_start|>assistant\n' }}
{%- generation %}
{{- message.content + '<|im_end|>' }}
{%- endgeneration %}
{{- '\n' }}
{%- else %}
{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}
"""

LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}"
    "{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}"
    "{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}"
    "{% for message in loop_messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if loop.index0 == 0 and system_message != false %}"
    "{% set content = '<<SYS>>\n' + system_message + '\n<</SYS>>\n\n' + message['content'] %}"
    "{% else %}{% set content = message['content'] %}{% endif %}"
    "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}"
    "{% endfor %}"
)

RESPONSE = (
    "{% for message in messages %}"
    "{% if message.role == 'user' %}{{ '### Instruction:\n' + message.content + '\n\n' }}"
    "{% elif message.role == 'assistant' %}{{ '### Response:\n' + message.content + eos_token + '\n\n' }}"
    "{% else %}{{ message.content + '\n\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '### Response:\n' }}{% endif %}"
)

NO_PROMPT = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{% endfor %}"
)

BY_INDEX = (
    "{% for i in range(messages|length) %}"
    "{% set message = messages[i] %}"
    "{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

BY_INDEX_NO_PROMPT = BY_INDEX.split("{% if add_generation_prompt")[0]

QWEN3_LIKE = """\
{%- set ns = namespace(last_query=messages|length - 1, found=false) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if not ns.found and message.role == 'user' %}
        {%- set ns.found = true %}
        {%- set ns.last_query = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role == 'assistant' %}
        {{- '<|im_start|>assistant\n' }}
        {%- if loop.index0 > ns.last_query %}
            {{- '<think>\n\n</think>\n\n' }}
        {%- endif %}
        {{- message.content + '<|im_end|>\n' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}
"""

MERGES_SYSTEM = """\
{%- if messages[0].role == 'system' %}
    {%- set first_user_prefix = messages[0].content + '\n\n' %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set first_user_prefix = '' %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- for message in loop_messages %}
    {%- set role = 'model' if message.role == 'assistant' else message.role %}
    {{- '<start_of_turn>' + role + '\n' + (first_user_prefix if loop.first else '') }}
    {{- message.content | trim }}
    {{- '<end_of_turn>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<start_of_turn>model\n' }}
{%- endif %}
"""

PARTS = """\
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\n' }}
    {%- if message.content is string %}
        {{- message.content }}
    {%- else %}
        {%- for part in message.content %}
            {{- part.text }}
        {%- endfor %}
    {%- endif %}
    {{- '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}
"""

TOOLS = """\
{%- for tool in tools or [] %}
    {{- tool | tojson + '\n' }}
{%- endfor %}
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\n' + (message.content or '') }}
    {%- for call in message.tool_calls or [] %}
        {{- '<tool_call>' + call | tojson + '</tool_call>' }}
    {%- endfor %}
    {{- '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}
"""

NO_STOP = (
    "{% for message in messages %}"
    "{{ ('### Response:\n' if message.role == 'assistant' else '### Instruction:\n') + message.content + '\n\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '### Response:\n' }}{% endif %}"
)

CAPTURED = (
    "{% set body %}{% for message in messages %}"
    "{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{% endfor %}{% endset %}{{ body }}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

ESCAPES = """\
{% raw %}{{ not a variable }}{% endraw %}"quoted" \\n \\ \\" 'single' 你好 %} }}
{% for message in messages -%}
   {{ message.role }}:\t{{ message.content }}\\
{%- if loop.last %} END{% else %} ... {% endif %}
   {% for x in [] %}never{% else %}  empty {% endfor %}
{% endfor %}
 tail
"""

ALL = {
    name.lower(): value
    for name, value in dict(globals()).items()
    if name.isupper() and isinstance(value, str) and name != "ALL"
}

SEED = """\
{%- for message in messages['messages'] %}
 {%- if message['role'] == 'system' %}
   {{ '<|start_of_role|>system<|end_of_role|>' + message['content'] + '<|end_of_text|>\\n' }}
 {%- elif message['role'] == 'user' %}
   {{ '<|start_of_role|>user<|end_of_role|>' + message['content'] + '<|end_of_text|>\\n' }}
 {%- elif message['role'] == 'assistant' %}
   {{ '<|start_of_role|>assistant<|end_of_role|>' + message['content'] + '<|end_of_text|>\\n' }}
 {%- elif message['role'] == 'tools' %}
   {{ '<|start_of_role|>tools<|end_of_role|>' + message['content'] + '<|end_of_text|>\\n' }}
 {%- elif message['role'] == 'tool' %}
   {{ '<|start_of_role|>tool<|end_of_role|>' + message['content'] + '<|end_of_text|>\\n' }}
 {%- elif message['role'] == 'documents' %}
   {{ '<|start_of_role|>documents<|end_of_role|>' + message['content'] + '<|end_of_text|>\\n' }}
 {%- else %}
   {{ '<|start_of_role|>unknown<|end_of_role|>' + message['content'] + '<|end_of_text|>\\n' }}\x20
 {%- endif %}
{%- endfor %}
"""
"""The template of the seed document's second config: `messages` is the whole row."""


def plain_rendering(source: str, **values: Any) -> str:
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    return environment.from_string(source).render(**values)


OPENS_REASONING = """\
{%- set ns = namespace(tool=false) %}
{%- for message in messages %}
{%- if message.role == 'user' %}{% set ns.tool = false %}{{ '<|User|>' + message.content }}{% endif %}
{%- if message.role == 'tool' %}{% set ns.tool = true %}{{ '<|result|>' + message.content }}{% endif %}
{%- if message.role == 'assistant' %}
{%- if ns.tool %}{% set ns.tool = false %}{{ '<|results_end|>' }}{% else %}{{ '<|Assistant|>' }}{% endif %}
{{- message.content.split('</think>')[-1] + '<|end|>' }}
{%- endif %}
{%- endfor %}
{%- if ns.tool %}{{ '<|results_end|>' }}{% endif %}
{%- if add_generation_prompt and not ns.tool %}{{ '<|Assistant|><think>\\n' }}{% endif %}
"""
