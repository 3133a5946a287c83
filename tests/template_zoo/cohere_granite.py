"""Cohere, Granite, Jamba, Apertus: roles between tokens, documents, prompts that are always written."""

from __future__ import annotations

from template_zoo.conversations import TWO_TURNS, Conversation, system
from template_zoo.model import Case, OrQuarantined, Quarantined, Style, cases

_TURN = ("<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>", "<|SYSTEM_TOKEN|>")
_CHATBOT = "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>"

# Command-R: an unreachable branch, contents stripped, alternating roles.
COMMAND_R = Style(
    "command-r",
    r"""{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}{% elif false == true %}{% set loop_messages = messages %}{% set system_message = 'You are Command-R.' %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% if system_message != false %}{{ '<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>' + system_message + '<|END_OF_TURN_TOKEN|>' }}{% endif %}{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% set content = message['content'] %}{% if message['role'] == 'user' %}{{ '<|START_OF_TURN_TOKEN|><|USER_TOKEN|>' + content.strip() + '<|END_OF_TURN_TOKEN|>' }}{% elif message['role'] == 'assistant' %}{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>'  + content.strip() + '<|END_OF_TURN_TOKEN|>' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}{% endif %}""",
    _TURN,
    _CHATBOT,
    "<|END_OF_TURN_TOKEN|>",
)

# Command-R7B, Command-A: reasoning, actions and responses between tokens, tool results collected by a loop over a slice
# of the messages with a break, and a generation prompt that is always written.
COMMAND_R7B = Style(
    "command-r7b",
    r"""{{ bos_token }}
{%- macro format_tool_message(tool_msg) -%}
    {"tool_call_id": "{{ tool_msg.tool_call_id }}", "results": {"0": {{ tool_msg.content|tojson }}}, "is_error": null}
{%- endmacro -%}
{%- if messages and messages[0]['role']|lower == 'system' %}{%- set developer_preamble = messages[0]['content'] %}{% endif %}
{%- set tool_idx = namespace(value=0) %}
{%- set tool_ids_seen = namespace(value=[]) %}
<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|># System Preamble
{% if tools %}
## Available Tools
{% for tool in tools %}
    {"name": "{{ tool['function']['name'] }}", "parameters": {{ tool['function']['parameters']|tojson }}}{%- if not loop.last %},{% endif %}

{% endfor %}
{% endif %}
# Default Preamble
- Your name is Command.
{%- if developer_preamble %}


# Developer Preamble
{{ developer_preamble }}
{%- endif -%}
<|END_OF_TURN_TOKEN|>
{%- for message in messages %}
    {%- if message.role|lower == 'system' and not (loop.first and developer_preamble)%}
<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>{{ message.content }}<|END_OF_TURN_TOKEN|>
    {%- elif message.role|lower == 'user' %}
<|START_OF_TURN_TOKEN|><|USER_TOKEN|>{{ message.content }}<|END_OF_TURN_TOKEN|>
    {%- elif message.role|lower == 'assistant' or message.role|lower == 'chatbot' %}
<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>{% if message.tool_calls %}<|START_THINKING|>{{message.reasoning_content}}<|END_THINKING|><|START_ACTION|>[
    {% for tc in message.tool_calls %}
    {"tool_call_id": "{{ tool_idx.value }}", "tool_name": "{{ tc['function']['name'] }}", "parameters": {{ tc['function']['arguments']|tojson }}}{% if not loop.last %},{% endif %}

    {% set tool_idx.value = tool_idx.value + 1 %}
    {% endfor %}
]<|END_ACTION|><|END_OF_TURN_TOKEN|>{% else %}<|START_RESPONSE|>{{message.content}}<|END_RESPONSE|><|END_OF_TURN_TOKEN|>{% endif %}
    {% elif message.role|lower == 'tool' and message.tool_call_id not in tool_ids_seen.value %}
<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|><|START_TOOL_RESULT|>[
{{ format_tool_message(message) }}
    {%- for msg in messages[loop.index0 + 1:] %}
        {%- if msg.role|lower == 'tool' %},
{{ format_tool_message(msg) }}
            {%- set tool_ids_seen.value = tool_ids_seen.value + [msg.tool_call_id] %}
        {%- else %}
            {%- break %}
        {%- endif %}
    {%- endfor %}

]<|END_TOOL_RESULT|><|END_OF_TURN_TOKEN|>
    {%- endif %}
{%- endfor %}<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>""",
    (
        *_TURN,
        "<|START_RESPONSE|>",
        "<|END_RESPONSE|>",
        "<|START_ACTION|>",
        "<|END_ACTION|>",
        "<|START_THINKING|>",
        "<|END_THINKING|>",
        "<|START_TOOL_RESULT|>",
        "<|END_TOOL_RESULT|>",
    ),
    _CHATBOT,
    "<|END_RESPONSE|><|END_OF_TURN_TOKEN|>",
)

_ROLE = ("<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>", "<|tool_call|>")
_GRANITE = "<|start_of_role|>assistant<|end_of_role|>"

# Granite 3: a system text with the date, documents, the prompt in the last iteration, with controls in it.
GRANITE3 = Style(
    "granite3",
    r"""{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set system_message = "Knowledge Cutoff Date: April 2024.\nToday's Date: " + strftime_now('%B %d, %Y') + ".\nYou are Granite." %}
    {%- if thinking %}
        {%- set system_message = system_message + "\nThink, and write it between <think></think>." %}
    {%- endif %}
    {%- set loop_messages = messages %}
{%- endif %}
{{- '<|start_of_role|>system<|end_of_role|>' + system_message + '<|end_of_text|>\n' }}
{%- if tools %}
    {{- '<|start_of_role|>available_tools<|end_of_role|>' }}
    {{- tools | tojson(indent=4) }}
    {{- '<|end_of_text|>\n' }}
{%- endif %}
{%- if documents %}
    {%- for document in documents %}
        {{- '<|start_of_role|>document {"document_id": "' + document['doc_id'] | string + '"}<|end_of_role|>\n' }}
        {{- document['text'] }}
        {{- '<|end_of_text|>\n' }}
    {%- endfor %}
{%- endif %}
{%- for message in loop_messages %}
    {{- '<|start_of_role|>' + message['role'] + '<|end_of_role|>' + message['content'] + '<|end_of_text|>\n' }}
    {%- if loop.last and add_generation_prompt %}
        {{- '<|start_of_role|>assistant' }}
        {%- if controls %}
            {{- ' ' + controls | tojson() }}
        {%- endif %}
        {{- '<|end_of_role|>' }}
    {%- endif %}
{%- endfor %}""",
    _ROLE,
    _GRANITE,
    "<|end_of_text|>",
)

# Granite 3.2 and 3.3: calls after the content, reasoning of earlier turns removed by a split.
GRANITE33 = Style(
    "granite3.3",
    r"""{%- for message in messages %}
    {%- set content = message['content'] or '' %}
    {%- if message['role'] == 'assistant' and not loop.last and '</think>' in content %}
        {%- set content = content.split('</think>')[-1] | trim %}
    {%- endif %}
    {{- '<|start_of_role|>' + message['role'] + '<|end_of_role|>' + content }}
    {%- if message.tool_calls %}
        {{- '<|tool_call|>[' }}
        {%- for call in message.tool_calls %}
            {{- {'name': call.function.name, 'arguments': call.function.arguments} | tojson }}
            {{- ', ' if not loop.last }}
        {%- endfor %}
        {{- ']' }}
    {%- endif %}
    {{- '<|end_of_text|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_of_role|>assistant<|end_of_role|>' }}
{%- endif %}
""",
    _ROLE,
    _GRANITE,
    "<|end_of_text|>",
)

# Granite 4: contents collected in a namespace, parts on separate lines, tool results merged into one user turn.
GRANITE4 = Style(
    "granite4",
    r"""{%- set sys_ns = namespace(text='') %}
{%- if messages[0].role == 'system' and messages[0].content is string %}
    {%- set sys_ns.text = messages[0].content %}
{%- endif %}
{%- if tools %}
    {%- set sys_ns.text = sys_ns.text + ('\n\n' if sys_ns.text else '') + '<tools>' %}
    {%- for tool in tools %}
        {%- set sys_ns.text = sys_ns.text + '\n' + (tool | tojson) %}
    {%- endfor %}
    {%- set sys_ns.text = sys_ns.text + '\n</tools>' %}
{%- endif %}
{%- if sys_ns.text %}
    {{- '<|start_of_role|>system<|end_of_role|>' + sys_ns.text + '<|end_of_text|>\n' }}
{%- endif %}
{%- for message in messages %}
    {%- set content = namespace(val='') %}
    {%- if message.content is string %}
        {%- set content.val = message.content %}
    {%- else %}
        {%- if message.content is iterable %}
            {%- for entry in message.content %}
                {%- if entry.type== 'text' %}
                    {%- if content.val != '' %}
                        {%- set content.val = content.val + '\n' %}
                    {%- endif %}
                    {%- set content.val = content.val + entry.text %}
                {%- endif %}
            {%- endfor %}
        {%- endif %}
    {%- endif %}
    {%- if (message.role == 'user') or (message.role == 'system' and not loop.first) %}
        {{- '<|start_of_role|>' + message.role + '<|end_of_role|>' + content.val + '<|end_of_text|>\n' }}
    {%- elif message.role == 'assistant' %}
        {{- '<|start_of_role|>' + message.role + '<|end_of_role|>' + content.val }}
        {%- if message.tool_calls %}
            {%- for tool_call in message.tool_calls %}
                {%- if (loop.first and content.val) or (not loop.first) %}
                    {{- '\n' }}
                {%- endif %}
                {%- if tool_call.function %}
                    {%- set tool_call = tool_call.function %}
                {%- endif %}
                {{- '<tool_call>\n{"name": "' }}
                {{- tool_call.name }}
                {{- '", "arguments": ' }}
                {%- if tool_call.arguments is string %}
                    {{- tool_call.arguments }}
                {%- else %}
                    {{- tool_call.arguments | tojson }}
                {%- endif %}
                {{- '}\n</tool_call>' }}
            {%- endfor %}
        {%- endif %}
        {{- '<|end_of_text|>\n' }}
    {%- elif message.role == 'tool' %}
        {%- if loop.first or (messages[loop.index0 - 1].role != 'tool') %}
            {{- '<|start_of_role|>user<|end_of_role|>' }}
        {%- endif %}
        {{- '\n<tool_response>\n' }}
        {{- content.val }}
        {{- '\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != 'tool') %}
            {{- '<|end_of_text|>\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_of_role|>assistant<|end_of_role|>' }}
{%- endif %}
""",
    (*_ROLE, "<tool_call>", "</tool_call>"),
    _GRANITE,
    "<|end_of_text|>",
    content="both",
)

# The shared tokenizers, with their templates.
GRANITE_REAL = Style("granite", None, (), "<|assistant|>\n", "<|end_of_text|>", tokenizer="granite")

# Jamba: a space after the header that is not in the prompt, contents by a macro.
JAMBA = Style(
    "jamba",
    r"""{{- bos_token -}}
{%- macro handle_role(role, content) -%}
    {{- '<|bom|><|' + role + '|> ' + content -}}
{%- endmacro -%}
{%- for message in messages -%}
    {%- if message.role == 'system' and not loop.first -%}
        {{- raise_exception('System messages come first.') -}}
    {%- endif -%}
    {{- handle_role(message.role, message.content or '') -}}
    {%- if message.tool_calls -%}
        {{- '<tool_calls>[\n  ' -}}
        {%- for call in message.tool_calls -%}
            {{- call.function | tojson -}}
            {{- ',\n  ' if not loop.last else '\n' -}}
        {%- endfor -%}
        {{- ']</tool_calls>' -}}
    {%- endif -%}
    {{- '<|eom|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|bom|><|assistant|>' -}}
{%- endif -%}
""",
    ("<|bom|>", "<|eom|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>"),
    "<|bom|><|assistant|> ",
    "<|eom|>",
)

# Apertus: the end of an answer is written before the next question, and never after the last answer; an answer
# continues after its tools within one turn.
APERTUS = Style(
    "apertus",
    r"""{{ bos_token }}
{%- set assistant_token = '<|assistant_start|>' -%}
{%- set end_assistant_token = eos_token -%}
{%- set ns = namespace(in_assistant=false, in_tool=false) -%}
{%- if messages and messages[0].role == 'system' -%}
    {{ '<|system_start|>' + messages[0].content + '<|system_end|>' }}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {{ '<|system_start|>You are Apertus.\nCurrent date: ' + strftime_now('%Y-%m-%d') + '<|system_end|>' }}
    {%- set loop_messages = messages -%}
{%- endif -%}
{{ '<|developer_start|>Deliberation: ' }}
{%- if enable_thinking is defined and enable_thinking -%}
    {{ 'enabled\n' }}
{%- else -%}
    {{ 'disabled\n' }}
{%- endif -%}
{{ '<|developer_end|>' }}
{%- for message in loop_messages -%}
    {%- if message.role == 'user' -%}
        {%- if ns.in_tool -%}
            {{ ']' }}
            {%- set ns.in_tool = false -%}
        {%- endif -%}
        {%- if ns.in_assistant -%}
            {{ end_assistant_token }}
            {%- set ns.in_assistant = false -%}
        {%- endif -%}
        {{ '<|user_start|>' + message.content + '<|user_end|>' }}
    {%- elif message.role == 'assistant' -%}
        {%- if not ns.in_assistant -%}
            {{ assistant_token }}
            {%- set ns.in_assistant = true -%}
        {%- endif -%}
        {%- if "content" in message and message.content -%}
            {%- if ns.in_tool -%}
                {{ ']' }}
                {%- set ns.in_tool = false -%}
            {%- endif -%}
            {{ message.content }}
        {%- endif -%}
        {%- if "tool_calls" in message and message.tool_calls -%}
            {{ '<|tools_prefix|>[' }}
            {%- for tool_call in message.tool_calls -%}
                {{- '{"' + tool_call.function.name + '": ' + tool_call.function.arguments | tojson + '}' }}
                {%- if not loop.last -%}
                    {{- ", " }}
                {%- endif -%}
            {%- endfor -%}
            {{ ']<|tools_suffix|>' }}
        {%- endif -%}
    {%- elif message.role == 'tool' -%}
        {%- if not ns.in_assistant -%}
            {{- raise_exception("Tool message outside of assistant") -}}
        {%- endif -%}
        {%- if not ns.in_tool -%}
            {{ '[' }}
            {%- set ns.in_tool = true -%}
        {%- else -%}
            {{ ", "}}
        {%- endif -%}
        {{ message.content }}
    {%- else -%}
        {{- raise_exception("Invalid message role") -}}
    {%- endif -%}
{%- endfor -%}
{%- if ns.in_tool -%}
    {{ ']' }}
{%- endif -%}
{%- if add_generation_prompt -%}
    {{ assistant_token }}
{%- endif -%}
""",
    ("<|assistant_start|>", "<|user_start|>", "<|user_end|>", "<|tools_prefix|>", "<|tools_suffix|>"),
    "<|assistant_start|>",
    "</s>",
)

_ANSWERED = "<|START_RESPONSE|>{}<|END_RESPONSE|><|END_OF_TURN_TOKEN|>".format
_ACTION = '    {"tool_call_id": "0", "tool_name": "add", "parameters": {"a": 1, "b": 2}}'
_THOUGHT = "<|START_THINKING|>{}<|END_THINKING|><|START_ACTION|>[\n".format
_CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call>'
_CALL_2 = '<tool_call>\n{"name": "add", "arguments": {"a": 3, "b": 4}}\n</tool_call>'
_LIST = '<|tool_call|>[{"name": "add", "arguments": {"a": 1, "b": 2}}]<|end_of_text|>'
_LISTS = (
    '<|tool_call|>[{"name": "add", "arguments": {"a": 1, "b": 2}}, {"name": "add", "arguments": {"a": 3, "b": 4}}]'
    "<|end_of_text|>"
)

TOOLS_IN_SYSTEM = Conversation([system("be kind"), *TWO_TURNS], [{"type": "function", "function": {"name": "add"}}])

_DOCUMENTS = Conversation(TWO_TURNS, documents=[{"doc_id": 1, "text": "hello"}])
_CONTROLLED = Conversation(TWO_TURNS, variables={"thinking": True, "controls": {"length": "short"}})

CASES = [
    Case(GRANITE3, "documents", _DOCUMENTS, ["hello<|end_of_text|>", "see you<|end_of_text|>"]),
    # Only the prompt has controls: no turn of the history begins with it.
    Case(GRANITE3, "controls", _CONTROLLED, OrQuarantined(["hello<|end_of_text|>", "see you<|end_of_text|>"])),
    *cases(
        COMMAND_R,
        {
            "trailing eos": ["x</s><|END_OF_TURN_TOKEN|>"],
            "trailing stop": [
                "x<|END_OF_TURN_TOKEN|><|END_OF_TURN_TOKEN|>",
                "<|END_OF_TURN_TOKEN|><|END_OF_TURN_TOKEN|>",
            ],
            "single": ["hello<|END_OF_TURN_TOKEN|>"],
            "multi": ["hello<|END_OF_TURN_TOKEN|>", "see you<|END_OF_TURN_TOKEN|>"],
            "system": ["hello<|END_OF_TURN_TOKEN|>", "see you<|END_OF_TURN_TOKEN|>"],
            "same": ["same<|END_OF_TURN_TOKEN|>", "same<|END_OF_TURN_TOKEN|>"],
            "empty": ["<|END_OF_TURN_TOKEN|>", "d<|END_OF_TURN_TOKEN|>"],
            "blank": ["<|END_OF_TURN_TOKEN|>", "d<|END_OF_TURN_TOKEN|>"],
            "padded": ["b<|END_OF_TURN_TOKEN|>", "d<|END_OF_TURN_TOKEN|>"],
            "twice": Quarantined,
            "first": Quarantined,
            "open": ["b<|END_OF_TURN_TOKEN|>"],
            "parts": ["cd<|END_OF_TURN_TOKEN|>", "d<|END_OF_TURN_TOKEN|>"],
            "lookalike": [
                "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>x<|END_OF_TURN_TOKEN|>",
                "d<|END_OF_TURN_TOKEN|>e<|END_OF_TURN_TOKEN|>",
            ],
        },
    ),
    *cases(
        COMMAND_R7B,
        {
            "single": ["<|START_RESPONSE|>hello<|END_RESPONSE|><|END_OF_TURN_TOKEN|>"],
            "multi": [_ANSWERED("hello"), _ANSWERED("see you")],
            "system": [_ANSWERED("hello"), _ANSWERED("see you")],
            "same": [_ANSWERED("same"), _ANSWERED("same")],
            "empty": [_ANSWERED(""), _ANSWERED("d")],
            "blank": [_ANSWERED(" \n "), _ANSWERED("d")],
            "padded": [_ANSWERED("  b \n"), _ANSWERED("\n d")],
            "twice": [_ANSWERED("b"), _ANSWERED("c")],
            "open": [_ANSWERED("b")],
            "lookalike": [
                _ANSWERED("<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>x"),
                _ANSWERED("d<|END_RESPONSE|><|END_OF_TURN_TOKEN|>e"),
            ],
            "tool thought": [
                _THOUGHT("hm") + _ACTION + "\n]<|END_ACTION|><|END_OF_TURN_TOKEN|>",
                _ANSWERED("It is 3."),
            ],
            "parallel": [
                _THOUGHT("")
                + _ACTION
                + ',\n    {"tool_call_id": "1", "tool_name": "add", "parameters": {"a": 3, "b": 4}}'
                + "\n]<|END_ACTION|><|END_OF_TURN_TOKEN|>",
                _ANSWERED("3 and 7."),
            ],
        },
    ),
    *cases(
        GRANITE3,
        {
            "single": ["hello<|end_of_text|>"],
            "multi": ["hello<|end_of_text|>", "see you<|end_of_text|>"],
            "system": ["hello<|end_of_text|>", "see you<|end_of_text|>"],
            "same": ["same<|end_of_text|>", "same<|end_of_text|>"],
            "empty": ["<|end_of_text|>", "d<|end_of_text|>"],
            "blank": [" \n <|end_of_text|>", "d<|end_of_text|>"],
            "padded": ["  b \n<|end_of_text|>", "\n d<|end_of_text|>"],
            "twice": ["b<|end_of_text|>", "c<|end_of_text|>"],
            "first": ["b<|end_of_text|>", "d<|end_of_text|>"],
            "open": ["b<|end_of_text|>"],
            "parts": ["cd<|end_of_text|>", "d<|end_of_text|>"],
            "mimic": ["<|start_of_role|>assistant<|end_of_role|><|end_of_text|>", "<|end_of_text|><|end_of_text|>"],
            "lookalike": [
                "<|start_of_role|>assistant<|end_of_role|>x<|end_of_text|>",
                "d<|end_of_text|>e<|end_of_text|>",
            ],
        },
    ),
    *cases(
        GRANITE33,
        {
            "multi": ["hello<|end_of_text|>", "see you<|end_of_text|>"],
            "think": ["b<|end_of_text|>", "<think>\nho\n</think>\n\nd<|end_of_text|>"],
            "tool": [_LIST, "It is 3.<|end_of_text|>"],
            "tool null": [_LIST, "It is 3.<|end_of_text|>"],
            "tool words": ["Let me see." + _LIST, "It is 3.<|end_of_text|>"],
            "parallel": [_LISTS, "3 and 7.<|end_of_text|>"],
        },
    ),
    *cases(
        GRANITE4,
        {
            "single": ["hello<|end_of_text|>"],
            "multi": ["hello<|end_of_text|>", "see you<|end_of_text|>"],
            "system": ["hello<|end_of_text|>", "see you<|end_of_text|>"],
            "same": ["same<|end_of_text|>", "same<|end_of_text|>"],
            "empty": ["<|end_of_text|>", "d<|end_of_text|>"],
            "padded": ["  b \n<|end_of_text|>", "\n d<|end_of_text|>"],
            "twice": ["b<|end_of_text|>", "c<|end_of_text|>"],
            "first": ["b<|end_of_text|>", "d<|end_of_text|>"],
            "parts": ["c\nd<|end_of_text|>", "d<|end_of_text|>"],
            "tool": [_CALL + "<|end_of_text|>", "It is 3.<|end_of_text|>"],
            "tool null": [_CALL + "<|end_of_text|>", "It is 3.<|end_of_text|>"],
            "tool words": ["Let me see.\n" + _CALL + "<|end_of_text|>", "It is 3.<|end_of_text|>"],
            "parallel": [_CALL + "\n" + _CALL_2 + "<|end_of_text|>", "3 and 7.<|end_of_text|>"],
        },
    ),
    *cases(
        GRANITE_REAL,
        {
            "single": ["hello<|end_of_text|>"],
            "multi": ["hello<|end_of_text|>", "see you<|end_of_text|>"],
            "system": ["hello<|end_of_text|>", "see you<|end_of_text|>"],
            "same": ["same<|end_of_text|>", "same<|end_of_text|>"],
            "empty": ["<|end_of_text|>", "d<|end_of_text|>"],
            "blank": [" \n <|end_of_text|>", "d<|end_of_text|>"],
            "padded": ["  b \n<|end_of_text|>", "\n d<|end_of_text|>"],
            "twice": ["b<|end_of_text|>", "c<|end_of_text|>"],
            "first": ["b<|end_of_text|>", "d<|end_of_text|>"],
            "open": ["b<|end_of_text|>"],
            "parts": ["cd<|end_of_text|>", "d<|end_of_text|>"],
            "lookalike": ["<|assistant|>\nx<|end_of_text|>", "d<|end_of_text|>e<|end_of_text|>"],
        },
    ),
    *cases(
        JAMBA,
        {
            "single": [" hello<|eom|>"],
            "multi": [" hello<|eom|>", " see you<|eom|>"],
            "system": [" hello<|eom|>", " see you<|eom|>"],
            "same": [" same<|eom|>", " same<|eom|>"],
            "empty": [" <|eom|>", " d<|eom|>"],
            "blank": ["  \n <|eom|>", " d<|eom|>"],
            "padded": ["   b \n<|eom|>", " \n d<|eom|>"],
            "twice": [" b<|eom|>", " c<|eom|>"],
            "first": [" b<|eom|>", " d<|eom|>"],
            "open": [" b<|eom|>"],
            "lookalike": [" <|bom|><|assistant|> x<|eom|>", " d<|eom|>e<|eom|>"],
            "tool": [
                ' <tool_calls>[\n  {"name": "add", "arguments": {"a": 1, "b": 2}}\n]</tool_calls><|eom|>',
                " It is 3.<|eom|>",
            ],
        },
    ),
    *cases(
        APERTUS,
        {
            "single": ["hello"],
            "multi": ["hello</s>", "see you"],
            "system": ["hello</s>", "see you"],
            "same": ["same</s>", "same"],
            "empty": ["</s>", "d"],
            "padded": ["  b \n</s>", "\n d"],
            "open": ["b</s>"],
            "lookalike": ["<|assistant_start|>x</s>", "d</s>e"],
            "mimic": ["<|assistant_start|></s>", "</s>"],
            "tool last": ['<|tools_prefix|>[{"add": {"a": 1, "b": 2}}]<|tools_suffix|>'],
            "tool": OrQuarantined(['<|tools_prefix|>[{"add": {"a": 1, "b": 2}}]<|tools_suffix|>', "It is 3."]),
        },
    ),
    Case(
        GRANITE_REAL,
        "tools that nobody calls",
        TOOLS_IN_SYSTEM,
        ["hello<|end_of_text|>", "see you<|end_of_text|>"],
    ),
]
