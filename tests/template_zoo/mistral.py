"""Mistral: `[INST] ... [/INST]`, no header for answers, tools before the last question."""

from __future__ import annotations

from template_zoo.conversations import ADD, Conversation, assistant, user
from template_zoo.model import Case, Quarantined, Style, cases

_TOKENS = ("[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]")

# v1 (7B-Instruct v0.1 and v0.2): alternating roles, no system role.
MISTRAL1 = Style(
    "mistral-v1",
    r"""{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token}}{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}""",
    header="[INST] a [/INST]",
    stop="</s>",
)

# v3: tools before the last question, the system text in it (dropped if an answer follows), calls with ids.
MISTRAL3 = Style(
    "mistral-v3",
    r"""{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}

{#- This block checks for alternating user/assistant messages, skipping tool calling messages #}
{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for message in loop_messages %}
    {%- if not (message.role == "tool" or message.role == "tool_results" or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("After the optional system message, conversation roles must alternate user/assistant/user/assistant/...") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}

{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}
            {{- "[AVAILABLE_TOOLS] [" }}
            {%- for tool in tools %}
                {%- set tool = tool.function %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, val in tool.items() if key != "return" %}
                    {%- if val is string %}
                        {{- '"' + key + '": "' + val + '"' }}
                    {%- else %}
                        {{- '"' + key + '": ' + val|tojson }}
                    {%- endif %}
                    {%- if not loop.last %}
                        {{- ", " }}
                    {%- endif %}
                {%- endfor %}
                {{- "}}" }}
                {%- if not loop.last %}
                    {{- ", " }}
                {%- else %}
                    {{- "]" }}
                {%- endif %}
            {%- endfor %}
            {{- "[/AVAILABLE_TOOLS]" }}
        {%- endif %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\n\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message.tool_calls is defined and message.tool_calls is not none %}
        {{- "[TOOL_CALLS] [" }}
        {%- for tool_call in message.tool_calls %}
            {%- set out = tool_call.function|tojson %}
            {{- out[:-1] }}
            {%- if not tool_call.id is defined or tool_call.id|length != 9 %}
                {{- raise_exception("Tool call IDs should be alphanumeric strings with length 9!") }}
            {%- endif %}
            {{- ', "id": "' + tool_call.id + '"}' }}
            {%- if not loop.last %}
                {{- ", " }}
            {%- else %}
                {{- "]" + eos_token }}
            {%- endif %}
        {%- endfor %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token}}
    {%- elif message["role"] == "tool_results" or message["role"] == "tool" %}
        {%- if message.content is defined and message.content.content is defined %}
            {%- set content = message.content.content %}
        {%- else %}
            {%- set content = message.content %}
        {%- endif %}
        {{- '[TOOL_RESULTS] {"content": ' + content|string + ", " }}
        {{- '"call_id": "' + message.tool_call_id + '"}[/TOOL_RESULTS]' }}
    {%- else %}
        {{- raise_exception("Only user and assistant roles are supported, with the exception of an initial optional system message!") }}
    {%- endif %}
{%- endfor %}
""",
    _TOKENS,
    "[INST] a[/INST]",
    "</s>",
)

# v7 (tekken): a system prompt between tokens, contents as text or parts.
MISTRAL7 = Style(
    "mistral-v7",
    r"""{%- set today = strftime_now("%Y-%m-%d") %}
{%- set default_system_message = "You are a model. Today is " + today + "." %}

{{- bos_token }}

{%- if messages[0]['role'] == 'system' %}
    {%- if messages[0]['content'] is string %}
        {%- set system_message = messages[0]['content'] %}
    {%- else %}
        {%- set system_message = messages[0]['content'][0]['text'] %}
    {%- endif %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set system_message = default_system_message %}
    {%- set loop_messages = messages %}
{%- endif %}
{{- '[SYSTEM_PROMPT]' + system_message + '[/SYSTEM_PROMPT]' }}

{%- for message in loop_messages %}
    {%- if message['role'] == 'user' %}
        {%- if message['content'] is string %}
            {{- '[INST]' + message['content'] + '[/INST]' }}
        {%- else %}
            {{- '[INST]' }}
            {%- for block in message['content'] %}
                {%- if block['type'] == 'text' %}
                    {{- block['text'] }}
                {%- elif block['type'] in ['image', 'image_url'] %}
                    {{- '[IMG]' }}
                {%- else %}
                    {{- raise_exception('Only text and image blocks are supported in message content!') }}
                {%- endif %}
            {%- endfor %}
            {{- '[/INST]' }}
        {%- endif %}
    {%- elif message['role'] == 'system' %}
        {{- '[SYSTEM_PROMPT]' + message['content'] + '[/SYSTEM_PROMPT]' }}
    {%- elif message['role'] == 'assistant' %}
        {%- if message['content'] is string %}
            {{- message['content'] + eos_token }}
        {%- else %}
            {%- for block in message['content'] %}{{ block['text'] }}{% endfor %}
            {{- eos_token }}
        {%- endif %}
    {%- else %}
        {{- raise_exception('Only user, system and assistant roles are supported!') }}
    {%- endif %}
{%- endfor %}""",
    ("[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
    "[INST]a[/INST]",
    "</s>",
    content="both",
)

# v13 (Magistral 2509): reasoning as a part of the content, between [THINK] and [/THINK]; calls without ids.
MISTRAL13 = Style(
    "mistral-v13",
    r"""{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}
    {{- '[SYSTEM_PROMPT]' -}}
    {%- if messages[0]['content'] is string %}
        {{- messages[0]['content'] -}}
    {%- else %}
        {%- for block in messages[0]['content'] %}
            {%- if block['type'] == 'text' %}
                {{- block['text'] }}
            {%- elif block['type'] == 'thinking' %}
                {{- '[THINK]' + block['thinking'] + '[/THINK]' }}
            {%- endif %}
        {%- endfor %}
    {%- endif %}
    {{- '[/SYSTEM_PROMPT]' -}}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- if tools is defined and tools is not none and tools|length > 0 %}
    {{- '[AVAILABLE_TOOLS]' + (tools| tojson) + '[/AVAILABLE_TOOLS]' }}
{%- endif %}
{%- set ns = namespace(index=0) %}
{%- for message in loop_messages %}
    {%- if message.role == 'user' or (message.role == 'assistant' and (message.tool_calls is not defined or message.tool_calls is none or message.tool_calls | length == 0)) %}
        {%- if (message['role'] == 'user') != (ns.index % 2 == 0) %}
            {{- raise_exception('After the optional system message, conversation roles must alternate user and assistant roles except for tool calls and results.') }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}
{%- for message in loop_messages %}
    {%- if message['role'] == 'user' %}
        {%- if message['content'] is string %}
            {{- '[INST]' + message['content'] + '[/INST]' }}
        {%- elif message['content'] | length > 0 %}
            {{- '[INST]' }}
            {%- set sorted_blocks = message['content'] | sort(attribute='type') %}
            {%- for block in sorted_blocks %}
                {%- if block['type'] == 'text' %}
                    {{- block['text'] }}
                {%- endif %}
            {%- endfor %}
            {{- '[/INST]' }}
        {%- else %}
            {{- raise_exception('User message must have a string or a list of chunks in content') }}
        {%- endif %}
    {%- elif message['role'] == 'assistant' %}
        {%- if message['content'] is string and message['content'] | length > 0 %}
            {{- message['content'] }}
        {%- elif message['content'] | length > 0 %}
            {%- for block in message['content'] %}
                {%- if block['type'] == 'text' %}
                    {{- block['text'] }}
                {%- elif block['type'] == 'thinking' %}
                    {{- '[THINK]' + block['thinking'] + '[/THINK]' }}
                {%- else %}
                    {{- raise_exception('Only text and thinking chunks are supported in assistant message contents.') }}
                {%- endif %}
            {%- endfor %}
        {%- endif %}
        {%- if message['tool_calls'] is defined and message['tool_calls'] is not none and message['tool_calls']|length > 0 %}
            {%- for tool in message['tool_calls'] %}
                {%- set arguments = tool['function']['arguments'] %}
                {%- if arguments is not string %}
                    {%- set arguments = arguments|tojson|safe %}
                {%- elif arguments == '' %}
                    {%- set arguments = '{}' %}
                {%- endif %}
                {{- '[TOOL_CALLS]' + tool['function']['name'] + '[ARGS]' + arguments }}
            {%- endfor %}
        {%- endif %}
        {{- eos_token }}
    {%- elif message['role'] == 'tool' %}
        {{- '[TOOL_RESULTS]' + message['content']|string + '[/TOOL_RESULTS]' }}
    {%- else %}
        {{- raise_exception('Only user, assistant and tool roles are supported, got ' + message['role'] + '.') }}
    {%- endif %}
{%- endfor %}
""",
    (*_TOKENS, "[/TOOL_RESULTS]", "[ARGS]", "[THINK]", "[/THINK]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
    "[INST]a[/INST]",
    "</s>",
    content="both",
)

THOUGHTS = Conversation(
    [
        user("a"),
        assistant([{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "b"}]),
        user("c"),
        assistant([{"type": "thinking", "thinking": "ho"}, {"type": "text", "text": "d"}]),
    ],
    [ADD],
)

_CALL = '[TOOL_CALLS] [{"name": "add", "arguments": {"a": 1, "b": 2}, "id": "call00001"}]</s>'
_CALLS = (
    '[TOOL_CALLS] [{"name": "add", "arguments": {"a": 1, "b": 2}, "id": "call00001"}, '
    '{"name": "add", "arguments": {"a": 3, "b": 4}, "id": "call00002"}]</s>'
)
_ARGS = '[TOOL_CALLS]add[ARGS]{"a": 1, "b": 2}'
_ARGS_2 = '[TOOL_CALLS]add[ARGS]{"a": 3, "b": 4}'

CASES = [
    *cases(
        MISTRAL1,
        {
            "single": ["hello</s>"],
            "multi": ["hello</s>", "see you</s>"],
            "system": Quarantined,
            "same": ["same</s>", "same</s>"],
            "empty": ["</s>", "d</s>"],
            "empty last": ["b</s>", "</s>"],
            "blank": [" \n </s>", "d</s>"],
            "padded": ["  b \n</s>", "\n d</s>"],
            "twice": Quarantined,
            "first": Quarantined,
            "open": ["b</s>"],
            "parts": ["cd</s>", "d</s>"],
            "lookalike": ["[INST] a [/INST]x</s>", "d</s>e</s>"],
            "mimic": ["[INST] a [/INST]</s>", "</s></s>"],
        },
    ),
    *cases(
        MISTRAL3,
        {
            "trailing stop": [" x</s></s>", " </s></s>"],
            "single": [" hello</s>"],
            "multi": [" hello</s>", " see you</s>"],
            "system": [" hello</s>", " see you</s>"],
            "same": [" same</s>", " same</s>"],
            "empty": [" </s>", " d</s>"],
            "blank": [" </s>", " d</s>"],
            "padded": [" b</s>", " d</s>"],
            "twice": Quarantined,
            "first": Quarantined,
            "open": [" b</s>"],
            "lookalike": [" [INST] a[/INST]x</s>", " d</s>e</s>"],
            "tool": [_CALL, " It is 3.</s>"],
            "tool null": [_CALL, " It is 3.</s>"],
            "tool words": [_CALL, " It is 3.</s>"],
            "tool then more": [_CALL, " It is 3.</s>", " see you</s>"],
            "parallel": [_CALLS, " 3 and 7.</s>"],
            "same results": [_CALL, _CALL, " 3</s>"],
        },
    ),
    *cases(
        MISTRAL7,
        {
            "single": ["hello</s>"],
            "multi": ["hello</s>", "see you</s>"],
            "system": ["hello</s>", "see you</s>"],
            "same": ["same</s>", "same</s>"],
            "empty": ["</s>", "d</s>"],
            "blank": [" \n </s>", "d</s>"],
            "padded": ["  b \n</s>", "\n d</s>"],
            "twice": ["b</s>", "c</s>"],
            "open": ["b</s>"],
            "parts": ["cd</s>", "d</s>"],
            "lookalike": ["[INST]a[/INST]x</s>", "d</s>e</s>"],
        },
    ),
    *cases(
        MISTRAL13,
        {
            "single": ["hello</s>"],
            "multi": ["hello</s>", "see you</s>"],
            "system": ["hello</s>", "see you</s>"],
            "same": ["same</s>", "same</s>"],
            "empty": ["</s>", "d</s>"],
            "padded": ["  b \n</s>", "\n d</s>"],
            "twice": Quarantined,
            "open": ["b</s>"],
            "parts": ["cd</s>", "d</s>"],
            "tool": [_ARGS + "</s>", "It is 3.</s>"],
            "tool words": ["Let me see." + _ARGS + "</s>", "It is 3.</s>"],
            "tool then more": [_ARGS + "</s>", "It is 3.</s>", "see you</s>"],
            "parallel": [_ARGS + _ARGS_2 + "</s>", "3 and 7.</s>"],
        },
    ),
    Case(
        MISTRAL13,
        "thoughts in parts",
        THOUGHTS,
        ["[THINK]hm[/THINK]b</s>", "[THINK]ho[/THINK]d</s>"],
    ),
]
