"""Families whose turn can be several messages of the format, each with a channel or recipient, with one stop."""

from __future__ import annotations

from template_zoo.conversations import Conversation, assistant, user
from template_zoo.model import Case, OrQuarantined, Style, cases

# HyperCLOVA X: the prompt ends within a line, and the model continues with answer, reasoning or call.
HYPERCLOVA = Style(
    "hyperclova",
    r"""{% if tools is not defined or tools is none %}
    {{- '<|im_start|>tool_list\n<|im_end|>\n' }}
{%- else %}
    {{- '<|im_start|>tool_list\n' + tools | tojson + '<|im_end|>\n' }}
{%- endif %}

{%- set ns = namespace(is_searching=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.is_searching and (message.role == 'user' or message.role == 'tool') %}
        {%- set ns.last_query_index = index %}
        {%- set ns.is_searching = false %}
    {%- endif %}
{%- endfor %}

{%- for message in messages %}
    {%- if loop.index0 == 0 and message.role != 'system' %}
        {{- '<|im_start|>system\n<|im_end|>\n' }}
    {%- endif %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- set reasoning_content = '' %}
    {%- if message.reasoning_content is defined and message.reasoning_content is not none %}
        {%- set reasoning_content = message.reasoning_content %}
    {%- endif %}
    {%- if message.role == "assistant" %}
        {%- if loop.index0 > ns.last_query_index %}
            {%- if reasoning_content %}
                {{- '<|im_start|>assistant/think\n' + reasoning_content.strip('\n') + '<|im_end|>\n' }}
            {%- endif %}
        {%- endif %}
        {%- if content %}
            {{- '<|im_start|>assistant\n' + content.strip('\n') + '<|im_end|>' }}
            {%- if message.tool_calls %}
                {{- '\n' }}
            {%- else %}
                {{- '<|endofturn|>\n' }}
            {%- endif %}
        {%- endif %}
        {%- if message.tool_calls %}
            {{- '<|im_start|>assistant -> tool/function_call\n[' }}
            {%- for tool_call in message.tool_calls %}
                {%- if not loop.first %}
                    {{- ', ' }}
                {%- endif %}
                {%- if tool_call.function %}
                    {%- set tool_call = tool_call.function %}
                {%- endif %}
                {{- '{"name": "' + tool_call.name + '", "arguments": ' + tool_call.arguments | tojson + '}' }}
            {%- endfor %}
            {{- ']<|im_end|><|stop|>\n' }}
        {%- endif %}
    {%- elif message.role == "tool" %}
        {{- '<|im_start|>tool/function_call\n' + content + '<|im_end|>\n' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\n' + content + '<|im_end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {%- if force_reasoning is defined and force_reasoning is true %}
        {{- '<|im_start|>assistant/think\n' }}
    {%- elif skip_reasoning is defined and skip_reasoning is true %}
        {{- '<|im_start|>assistant\n' }}
    {%- else %}
        {{- '<|im_start|>assistant' }}
    {%- endif %}
{%- endif %}
""",
    ("<|im_start|>", "<|im_end|>", "<|endofturn|>", "<|stop|>"),
    "<|im_start|>assistant\n",
    "<|im_end|><|endofturn|>",
)

# GigaChat: messages by a macro, separators in a namespace, a separate role for calls.
GIGACHAT = Style(
    "gigachat",
    r"""{%- macro render_role_message(message, role=None) -%}
    {%- if not role -%}
        {%- set role = message["role"] -%}
    {%- endif -%}
    {%- set message_content = message['content'] or '' -%}
    {%- if message_content is not string -%}
        {%- set message_content = message_content | tojson(ensure_ascii=False) -%}
    {%- endif -%}
    {{- role + add_tokens.role_sep + message_content + add_tokens.message_sep -}}
{%- endmacro -%}
{%- macro render_function_call(message) -%}
    {%- set call = message['content'] -%}
    {%- if call.function -%}
        {%- set call = call.function -%}
    {%- endif -%}
    {{- render_role_message({
            'role': 'function call',
            'content': '{"name": "' ~ call['name'] ~ '", "arguments": ' ~ call['arguments'] | tojson ~ '}'
        }) -}}
{%- endmacro -%}
{%- set add_tokens = namespace(role_sep="<|role_sep|>\n", message_sep="<|message_sep|>\n\n") -%}
{{- bos_token -}}
{{- render_role_message({"role": "developer system", "content": "You are GigaChat."}) -}}
{%- if messages and messages[0]['role'] == 'system' -%}
    {{- render_role_message(messages[0]) -}}
    {%- set messages = messages[1:] -%}
{%- endif -%}
{%- if tools -%}
    {{- render_role_message({'role': 'function descriptions', 'content': tools | tojson}) -}}
{%- endif -%}
{%- for message in messages -%}
    {%- if message['role'] == 'tool' -%}
        {{- render_role_message(message, role='function result') -}}
    {%- elif message['role'] == 'assistant' -%}
        {%- if message.tool_calls is defined and message.tool_calls -%}
            {%- set function_call = message.tool_calls[0] -%}
        {%- else -%}
            {%- set function_call = None -%}
        {%- endif -%}
        {{- render_role_message({'role': 'assistant', 'content': message.content}) -}}
        {%- if function_call -%}
            {{- render_function_call({'role': 'function call', 'content': function_call}) -}}
        {%- endif -%}
    {%- else -%}
        {{- render_role_message(message) -}}
    {%- endif -%}
    {%- if loop.last and add_generation_prompt and message['role'] != 'assistant' -%}
        {{- 'assistant' + add_tokens.role_sep -}}
    {%- endif -%}
{%- endfor -%}
""",
    ("<|role_sep|>", "<|message_sep|>"),
    "assistant<|role_sep|>\n",
    "<|message_sep|>\n\n",
)

# Kimi K3: tokens as XML tags, written by macros with lists of pairs; the prompt opens the reasoning of every turn.
KIMI3 = Style(
    "kimi-k3",
    r"""{%- macro escape_attr(value) -%}
{{- value|string|replace('&', '&amp;')|replace('"', '&quot;') -}}
{%- endmacro -%}
{%- macro open_tag(tag, attrs=[]) -%}
{{- '<|open|>' + tag -}}
{%- for attr in attrs -%}
{{- ' ' + attr[0] + '="' -}}{{- escape_attr(attr[1]) -}}{{- '"' -}}
{%- endfor -%}
{{- '<|sep|>' -}}
{%- endmacro -%}
{%- macro close_tag(tag) -%}
{{- '<|close|>' + tag + '<|sep|>' -}}
{%- endmacro -%}
{%- macro render_content(content) -%}
{%- if content is string -%}
    {{- content -}}
{%- elif content is not none and content is defined -%}
    {%- for part in content -%}
        {{- part.text -}}
    {%- endfor -%}
{%- endif -%}
{%- endmacro -%}
{%- macro render_assistant(message) -%}
{%- if thinking -%}
    {%- set reasoning_content = message.get('reasoning_content') or message.get('reasoning') -%}
    {{- open_tag('think') -}}
    {%- if reasoning_content is not none and reasoning_content|string|trim -%}
        {{- reasoning_content -}}
    {%- endif -%}
    {{- close_tag('think') -}}
{%- endif -%}
{{- open_tag('response') -}}
{{- render_content(message.get('content')) -}}
{{- close_tag('response') -}}
{%- set tool_calls = message.get('tool_calls') -%}
{%- if tool_calls -%}
    {{- open_tag('tools') -}}
    {%- for tool_call in tool_calls -%}
        {%- set fn = tool_call.function -%}
        {{- open_tag('call', [('tool', fn.name), ('index', loop.index)]) -}}
        {%- for key, value in fn.arguments.items() -%}
            {{- open_tag('argument', [('key', key), ('type', 'number' if value is number else 'string')]) -}}
            {{- value -}}
            {{- close_tag('argument') -}}
        {%- endfor -%}
        {{- close_tag('call') -}}
    {%- endfor -%}
    {{- close_tag('tools') -}}
{%- endif -%}
{%- endmacro -%}
{%- if thinking is undefined -%}
    {%- set thinking = true -%}
{%- endif -%}
{%- if tools is defined and tools -%}
    {{- open_tag('message', [('role', 'system'), ('type', 'tool-declare')]) + tools | tojson + close_tag('message') -}}
    {{- '<|end_of_msg|>' -}}
{%- endif -%}
{%- for message in messages -%}
    {%- if message is mapping -%}
        {%- if message.role in ('user', 'system') -%}
            {{- open_tag('message', [('role', message.role)]) -}}
            {{- render_content(message.get('content')) -}}
            {{- close_tag('message') -}}
            {{- '<|end_of_msg|>' -}}
        {%- elif message.role == 'assistant' -%}
            {{- open_tag('message', [('role', 'assistant')]) -}}
            {{- render_assistant(message) -}}
            {{- close_tag('message') -}}
            {{- '<|end_of_msg|>' -}}
        {%- elif message.role == 'tool' and (loop.first or messages[loop.index0 - 1].role != 'tool') -%}
            {%- for candidate in messages[loop.index0:] -%}
                {%- if candidate is not mapping or candidate.role != 'tool' -%}{%- break -%}{%- endif -%}
                {{- open_tag('message', [('role', 'tool'), ('index', loop.index)]) -}}
                {{- render_content(candidate.get('content')) -}}
                {{- close_tag('message') -}}
                {{- '<|end_of_msg|>' -}}
            {%- endfor -%}
        {%- endif -%}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- open_tag('message', [('role', 'assistant')]) -}}
    {{- open_tag('think' if thinking else 'response') -}}
{%- endif -%}
""",
    ("<|open|>", "<|close|>", "<|sep|>", "<|end_of_msg|>"),
    '<|open|>message role="assistant"<|sep|><|open|>think<|sep|>',
    "<|close|>message<|sep|><|end_of_msg|>",
    content="both",
)

# Recipients after the role; the stop token says whether more follows; a default system text is written only with a
# generation prompt.
RECIPIENTS = Style(
    "recipients",
    r"""{{- bos_token -}}
{%- set ns = namespace(has_system=false) -%}
{%- for m in messages -%}
    {%- if m['role'] == 'system' -%}{%- set ns.has_system = true -%}{%- endif -%}
{%- endfor -%}
{%- if not ns.has_system and (add_generation_prompt or tools) -%}
    {{- '<|start|>system<|message|>You are a helpful AI assistant.<|eot|>' -}}
{%- endif -%}
{%- for message in messages -%}
    {%- set role = message['role'] -%}
    {%- set end_token = '<|eom|>' if (not loop.last and messages[loop.index0 + 1]['role'] == role) else '<|eot|>' -%}
    {%- if role == 'assistant' -%}
        {%- if message.get('reasoning_content') -%}
            {{- '<|start|>assistant to=self<|message|>' + message['reasoning_content'] + '<|eom|>' -}}
        {%- endif -%}
        {%- if message.get('tool_calls') -%}
            {%- for tc in message['tool_calls'] -%}
                {{- '<|start|>assistant to=' + tc.function.name + '<|message|>' + tc.function.arguments | tojson -}}
                {%- if loop.last -%}{{- end_token -}}{%- else -%}{{- '<|eom|>' -}}{%- endif -%}
            {%- endfor -%}
        {%- else -%}
            {{- '<|start|>assistant to=user<|message|>' + message['content'] + '<|eot|>' -}}
        {%- endif -%}
    {%- elif role == 'tool' -%}
        {{- '<|start|>tool ' + message.name + '<|message|>' + message['content'] + '<|eot|>' -}}
    {%- else -%}
        {{- '<|start|>' + role + '<|message|>' + message['content'] + '<|eot|>' -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|start|>assistant' -}}{%- endif -%}
""",
    ("<|start|>", "<|message|>", "<|eot|>", "<|eom|>"),
    "<|start|>assistant to=user<|message|>",
    "<|eot|>",
)

# Apriel: the template always adds the generation prompt, which begins the reasoning in words; the last turn has no
# end.
APRIEL = Style(
    "apriel",
    r"""{%- set add_thoughts = true -%}
{%- set add_generation_prompt = true -%}
{%- set reasoning_asst_turn_start = 'Here are my reasoning steps:\n' -%}
{%- if messages|length > 0 and messages[0]['role'] != 'system' -%}
    {{ bos_token + '<|begin_system|>\nAnalyze each question.\n' }}
{%- endif -%}
{%- for message in messages -%}
    {%- if message['role'] == 'user' -%}
        {{ '<|begin_user|>\n' + message['content'] }}
    {%- elif message['role'] == 'system' -%}
        {{ bos_token + '<|begin_system|>\nAnalyze each question.\n' + message.get('content', '') + '\n' }}
    {%- elif message['role'] == 'assistant' -%}
        {{ '\n<|begin_assistant|>\n' }}
        {%- if add_thoughts and message.get('reasoning_content') and loop.last -%}
            {{ message['reasoning_content'] + '\n[BEGIN FINAL RESPONSE]\n' }}
        {%- endif -%}
        {%- set asst_text = message.get('content', '') -%}
        {%- if not loop.last and '[BEGIN FINAL RESPONSE]' in asst_text -%}
            {{- asst_text.split('[BEGIN FINAL RESPONSE]')[-1] | trim -}}
        {%- else -%}
            {{- asst_text -}}
        {%- endif -%}
        {%- set training_prompt = training_prompt if (training_prompt is defined) else false -%}
        {%- if not loop.last or training_prompt -%}
            {{ '\n<|end|>\n' }}
        {%- endif -%}
    {%- endif -%}
    {%- if loop.last and add_generation_prompt and message['role'] != 'assistant' -%}
        {{ '\n<|begin_assistant|>\n' + reasoning_asst_turn_start }}
    {%- endif -%}
{%- endfor -%}
""",
    ("<|begin_system|>", "<|begin_user|>", "<|begin_assistant|>", "<|end|>"),
    "\n<|begin_assistant|>\n",
    "\n<|end|>\n",
)

_END = "<|im_end|><|endofturn|>"
_ADD = '{"name": "add", "arguments": {"a": 1, "b": 2}}'
_ADD_2 = '{"name": "add", "arguments": {"a": 3, "b": 4}}'
_TO_TOOL = f" -> tool/function_call\n[{_ADD}]<|im_end|><|stop|>"
_RESPONSE = "<|close|>think<|sep|><|open|>response<|sep|>"
_DONE = "<|close|>response<|sep|><|close|>message<|sep|><|end_of_msg|>"
_ARGUMENTS = '<|open|>argument key="a" type="number"<|sep|>{}<|close|>argument<|sep|><|open|>argument key="b" type="number"<|sep|>{}<|close|>argument<|sep|>'.format
_K3_CALL = f'<|open|>call tool="add" index="1"<|sep|>{_ARGUMENTS(1, 2)}<|close|>call<|sep|>'
_K3_CALL_2 = f'<|open|>call tool="add" index="2"<|sep|>{_ARGUMENTS(3, 4)}<|close|>call<|sep|>'
_K3_TOOLS = (
    "<|close|>response<|sep|><|open|>tools<|sep|>{}<|close|>tools<|sep|><|close|>message<|sep|><|end_of_msg|>".format
)
_TO_USER = " to=user<|message|>"
_TO_ADD = ' to=add<|message|>{"a": 1, "b": 2}'

_QUICK = Conversation([user("hi"), assistant("hello")], variables={"thinking": False})
_TRAINING = Conversation([user("hi"), assistant("hello")], variables={"training_prompt": True})

CASES = [
    *cases(
        HYPERCLOVA,
        {
            "trailing eos": ["\nx</s> \n " + _END],
            "trailing stop": ["\nx<|im_end|><|endofturn|> \n " + _END, "\n<|im_end|><|endofturn|>" + _END],
            "single": ["\nhello" + _END],
            "multi": ["\nhello" + _END, "\nsee you" + _END],
            "system": ["\nhello" + _END, "\nsee you" + _END],
            "same": ["\nsame" + _END, "\nsame" + _END],
            "empty": OrQuarantined(["\nd" + _END]),
            "blank": ["\n \n " + _END, "\nd" + _END],
            "padded": ["\n  b " + _END, "\n d" + _END],
            "twice": ["\nb" + _END, "\nc" + _END],
            "open": ["\nb" + _END],
            "lookalike": ["\n<|im_start|>assistant\nx" + _END, "\nd<|im_end|><|endofturn|>e" + _END],
            "reasoning": ["\nb" + _END, "/think\nho<|im_end|>\n<|im_start|>assistant\nd" + _END],
            "tool": [_TO_TOOL, "\nIt is 3." + _END],
            "tool words": ["\nLet me see.<|im_end|>\n<|im_start|>assistant" + _TO_TOOL, "\nIt is 3." + _END],
            "tool last": ["/think\nhm<|im_end|>\n<|im_start|>assistant" + _TO_TOOL],
            "parallel": [f" -> tool/function_call\n[{_ADD}, {_ADD_2}]<|im_end|><|stop|>", "\n3 and 7." + _END],
            "same results": [_TO_TOOL, _TO_TOOL, "\n3" + _END],
        },
    ),
    *cases(
        GIGACHAT,
        {
            "single": ["hello<|message_sep|>"],
            "multi": ["hello<|message_sep|>", "see you<|message_sep|>"],
            "system": ["hello<|message_sep|>", "see you<|message_sep|>"],
            "same": ["same<|message_sep|>", "same<|message_sep|>"],
            "empty": ["<|message_sep|>", "d<|message_sep|>"],
            "blank": [" \n <|message_sep|>", "d<|message_sep|>"],
            "padded": ["  b \n<|message_sep|>", "\n d<|message_sep|>"],
            "twice": ["b<|message_sep|>", "c<|message_sep|>"],
            "open": ["b<|message_sep|>"],
            "lookalike": ["assistant<|role_sep|>\nx<|message_sep|>", "d<|message_sep|>\n\ne<|message_sep|>"],
            "tool": [f"<|message_sep|>\n\nfunction call<|role_sep|>\n{_ADD}<|message_sep|>", "It is 3.<|message_sep|>"],
            "tool words": [
                f"Let me see.<|message_sep|>\n\nfunction call<|role_sep|>\n{_ADD}<|message_sep|>",
                "It is 3.<|message_sep|>",
            ],
        },
    ),
    *cases(
        KIMI3,
        {
            "single": [_RESPONSE + "hello" + _DONE],
            "multi": [_RESPONSE + "hello" + _DONE, _RESPONSE + "see you" + _DONE],
            "system": [_RESPONSE + "hello" + _DONE, _RESPONSE + "see you" + _DONE],
            "same": [_RESPONSE + "same" + _DONE, _RESPONSE + "same" + _DONE],
            "empty": [_RESPONSE + _DONE, _RESPONSE + "d" + _DONE],
            "padded": [_RESPONSE + "  b \n" + _DONE, _RESPONSE + "\n d" + _DONE],
            "twice": [_RESPONSE + "b" + _DONE, _RESPONSE + "c" + _DONE],
            "open": [_RESPONSE + "b" + _DONE],
            "parts": [_RESPONSE + "cd" + _DONE, _RESPONSE + "d" + _DONE],
            "reasoning": ["hm" + _RESPONSE + "b" + _DONE, "ho" + _RESPONSE + "d" + _DONE],
            "tool thought": ["hm" + _RESPONSE + _K3_TOOLS(_K3_CALL), "ho" + _RESPONSE + "It is 3." + _DONE],
            "parallel": [_RESPONSE + _K3_TOOLS(_K3_CALL + _K3_CALL_2), _RESPONSE + "3 and 7." + _DONE],
        },
    ),
    Case(KIMI3, "thinking off", _QUICK, ["hello" + _DONE]),
    *cases(
        RECIPIENTS,
        {
            # The generation prompt adds a system text that these rows do not have.
            "single": OrQuarantined([_TO_USER + "hello<|eot|>"]),
            "multi": OrQuarantined([_TO_USER + "hello<|eot|>", _TO_USER + "see you<|eot|>"]),
            "system": [_TO_USER + "hello<|eot|>", _TO_USER + "see you<|eot|>"],
            "tool": [_TO_ADD + "<|eot|>", _TO_USER + "It is 3.<|eot|>"],
            "tool thought": [
                " to=self<|message|>hm<|eom|><|start|>assistant" + _TO_ADD + "<|eot|>",
                " to=self<|message|>ho<|eom|><|start|>assistant" + _TO_USER + "It is 3.<|eot|>",
            ],
            "parallel": [
                _TO_ADD + '<|eom|><|start|>assistant to=add<|message|>{"a": 3, "b": 4}<|eot|>',
                _TO_USER + "3 and 7.<|eot|>",
            ],
        },
    ),
    *cases(
        APRIEL,
        {
            "single": OrQuarantined(["hello"]),
            "multi": OrQuarantined(["hello\n<|end|>", "see you"]),
            "same": OrQuarantined(["same\n<|end|>", "same"]),
            "open": OrQuarantined(["b\n<|end|>"]),
            "reasoning": OrQuarantined(["b\n<|end|>", "ho\n[BEGIN FINAL RESPONSE]\nd"]),
        },
    ),
    Case(APRIEL, "training", _TRAINING, OrQuarantined(["hello\n<|end|>"])),
]
