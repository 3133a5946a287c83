"""Llama and its derivatives: `[INST]`, headers between tokens, tools in the first question."""

from __future__ import annotations

from template_zoo.conversations import CONVERSATIONS, Conversation, assistant, user
from template_zoo.model import Case, OrQuarantined, Quarantined, Style, cases

# Llama 2: system text in the first question, stripped contents, alternating roles, no generation prompt.
LLAMA2 = Style(
    "llama2",
    r"""{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\n' + system_message + '\n<</SYS>>\n\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}""",
    header="<s>[INST] a [/INST]",
    stop=" </s>",
)

# Llama 3: one expression per turn, `bos_token` before the first one.
LLAMA3 = Style(
    "llama3",
    r"""{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>

'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>

' }}{% endif %}""",
    ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "<|eot_id|>",
)

# Llama 3.1 and 3.2: the date, tools in the first question (outside the loop), one call per turn, `ipython` results.
LLAMA31 = Style(
    "llama3.1",
    r"""{{- bos_token }}
{%- if custom_tools is defined %}
    {%- set tools = custom_tools %}
{%- endif %}
{%- if not tools_in_user_message is defined %}
    {%- set tools_in_user_message = true %}
{%- endif %}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}

{#- The system message is taken out, to be put in the right place. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}

{{- "<|start_header_id|>system<|end_header_id|>\n\n" }}
{%- if tools is not none %}
    {{- "Environment: ipython\n" }}
{%- endif %}
{{- "Today Date: " + date_string + "\n\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}

{#- Tools are passed in a user message with some extra guidance. #}
{%- if tools_in_user_message and not tools is none %}
    {%- if messages | length != 0 %}
        {%- set first_user_message = messages[0]['content']|trim %}
        {%- set messages = messages[1:] %}
    {%- else %}
        {{- raise_exception("Cannot put tools in the first user message when there's no first user message!") }}
    {%- endif %}
    {{- '<|start_header_id|>user<|end_header_id|>\n\n' -}}
    {{- "Given the following functions, please respond with a JSON for a function call.\n\n" }}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\n\n" }}
    {%- endfor %}
    {{- first_user_message + "<|eot_id|>"}}
{%- endif %}

{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("This model only supports single tool-calls at once!") }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {%- if builtin_tools is defined and tool_call.name in builtin_tools %}
            {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' -}}
            {{- "<|python_tag|>" + tool_call.name + ".call(" }}
            {%- for arg_name, arg_val in tool_call.arguments | items %}
                {{- arg_name + '="' + arg_val + '"' }}
                {%- if not loop.last %}
                    {{- ", " }}
                {%- endif %}
            {%- endfor %}
            {{- ")" }}
        {%- else  %}
            {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' -}}
            {{- '{"name": "' + tool_call.name + '", ' }}
            {{- '"parameters": ' }}
            {{- tool_call.arguments | tojson }}
            {{- "}" }}
        {%- endif %}
        {%- if builtin_tools is defined %}
            {#- This means we're in ipython mode #}
            {{- "<|eom_id|>" }}
        {%- else %}
            {{- "<|eot_id|>" }}
        {%- endif %}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\n\n" }}
        {%- if message.content is mapping or message.content is iterable %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}
""",
    ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>", "<|python_tag|>"),
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "<|eot_id|>",
)

# Llama 3.1 with the code interpreter: calls end with <|eom_id|>, answers with <|eot_id|>.
LLAMA31_IPYTHON = Style(
    "llama3.1-ipython",
    r"""{%- set builtin_tools = ['add'] %}
{{- bos_token }}
{%- for message in messages %}
    {%- if 'tool_calls' in message %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' -}}
        {%- if message.content %}{{ message.content }}{% endif %}
        {%- for tool_call in message.tool_calls %}
            {{- "<|python_tag|>" + tool_call.function.name + ".call(" }}
            {%- for arg_name, arg_val in tool_call.function.arguments | items %}
                {{- arg_name ~ '="' ~ arg_val ~ '"' }}
                {%- if not loop.last %}
                    {{- ", " }}
                {%- endif %}
            {%- endfor %}
            {{- ")" }}
        {%- endfor %}
        {{- "<|eom_id|>" }}
    {%- elif message.role == 'tool' %}
        {{- '<|start_header_id|>ipython<|end_header_id|>\n\n' + message.content + '<|eot_id|>' }}
    {%- else %}
        {{- '<|start_header_id|>' + message.role + '<|end_header_id|>\n\n'+ message.content | trim + '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}
""",
    ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>", "<|python_tag|>"),
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "<|eot_id|>",
)

# Llama 4: contents as text or parts, calls after the content, `<|eot|>`.
LLAMA4 = Style(
    "llama4",
    r"""{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}
    {%- if messages[0]['content'] is string %}
        {%- set system_message = messages[0]['content']|trim %}
    {%- else %}
        {%- set system_message = messages[0]['content'][0]['text']|trim %}
    {%- endif %}
    {%- set messages = messages[1:] %}
    {%- set user_supplied_system_message = true %}
{%- else %}
    {%- set system_message = "" %}
    {%- set user_supplied_system_message = false %}
{%- endif %}
{%- if user_supplied_system_message %}
    {{- "<|header_start|>system<|header_end|>\n\n" + system_message + "<|eot|>" }}
{%- endif %}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|header_start|>' + message['role'] + '<|header_end|>\n\n' }}
        {%- if message['content'] is string %}
            {{- message['content'] }}
        {%- else %}
            {%- for content in message['content'] %}
                {%- if content['type'] == 'image' %}
                    {{- '<|image|>' }}
                {%- elif content['type'] == 'text' %}
                    {{- content['text'] }}
                {%- endif %}
            {%- endfor %}
        {%- endif %}
        {{- "<|eot|>" }}
    {%- elif 'tool_calls' in message and message.tool_calls|length > 0 %}
        {{- '<|header_start|>assistant<|header_end|>\n\n' -}}
        {{- '<|python_start|>' }}
        {%- if message['content'] is string %}
            {{- message['content'] }}
        {%- endif %}
        {{- '<|python_end|>' }}
        {%- for tool_call in message.tool_calls %}
            {{- '{"name": "' + tool_call.function.name + '", ' }}
            {{- '"parameters": ' }}
            {{- tool_call.function.arguments | tojson }}
            {{- "}" }}
        {%- endfor %}
        {{- "<|eot|>" }}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "<|header_start|>ipython<|header_end|>\n\n" }}
        {{- message.content | tojson }}
        {{- "<|eot|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|header_start|>assistant<|header_end|>\n\n' }}
{%- endif %}
""",
    ("<|header_start|>", "<|header_end|>", "<|eot|>", "<|python_start|>", "<|python_end|>"),
    "<|header_start|>assistant<|header_end|>\n\n",
    "<|eot|>",
    content="both",
)

# Tulu 3, OLMo 2, Falcon 3: a line end after the stop except in the last turn, the prompt inside the loop.
TULU3 = Style(
    "tulu3",
    r"""{{ bos_token }}{% for message in messages %}{% if message['role'] == 'system' %}{{ '<|system|>\n' + message['content'] + '\n' }}{% elif message['role'] == 'user' %}{{ '<|user|>\n' + message['content'] + '\n' }}{% elif message['role'] == 'assistant' %}{% if not loop.last %}{{ '<|assistant|>\n'  + message['content'] + eos_token + '\n' }}{% else %}{{ '<|assistant|>\n'  + message['content'] + eos_token }}{% endif %}{% endif %}{% if loop.last and add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}{% endfor %}""",
    header="<|assistant|>\n",
    stop="</s>",
)

# OLMo: an end-of-text token ends only the last turn, a line end the others.
EOS_LAST = Style(
    "eos-last",
    r"""{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}{{ '<|user|>\n' + message['content'] }}{% elif message['role'] == 'assistant' %}{{ '<|assistant|>\n' + message['content'] }}{% if loop.last %}{{ eos_token }}{% endif %}{% endif %}{% if not loop.last %}{{ '\n' }}{% endif %}{% if loop.last and add_generation_prompt %}{{ '\n<|assistant|>\n' }}{% endif %}{% endfor %}""",
    header="<|assistant|>\n",
    stop="\n<|user|>\n",
)

# The opposite: the last turn has no end, so that it can be continued.
EOS_UNLESS_LAST = Style(
    "eos-unless-last",
    r"""{% for message in messages %}
{%- if message.role == 'assistant' %}
{{- 'Assistant: ' + message.content + ('' if loop.last else eos_token + '\n') }}
{%- else %}
{{- message.role | capitalize + ': ' + message.content + '\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ 'Assistant: ' }}{% endif %}""",
    header="Assistant: ",
    stop="</s>\n",
)

# Zephyr, StableLM: line ends between statements are kept, the prompt is written in the last iteration.
ZEPHYR = Style(
    "zephyr",
    r"""{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\n'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}""",
    header="<|assistant|>\n",
    stop="</s>",
)

# Nemotron Nano 2: the last answer is written after the loop, and begins like the prompt.
NEMOTRON = Style(
    "nemotron-nano",
    r"""{%- set ns = namespace(enable_thinking=true) -%}
{%- for message in messages -%}
  {%- set content = message['content'] -%}
  {%- if message['role'] == 'user' or message['role'] == 'system' -%}
    {%- if '/no_think' in content -%}
      {%- set ns.enable_thinking = false -%}
    {%- endif -%}
  {%- endif -%}
{%- endfor -%}

{%- if messages[0]['role'] != 'system' -%}
  {{- '<SPECIAL_10>System\n' -}}
{%- else -%}
  {{- '<SPECIAL_10>System\n' + (messages[0]['content'] | default('', true)).replace('/no_think', '').strip() }}
{%- endif -%}
{{- '\n\n' -}}

{%- set messages = messages[1:] if messages[0]['role'] == 'system' else messages -%}
{%- if messages[-1]['role'] == 'assistant' -%}
  {%- set ns.last_turn_assistant_content = (messages[-1]['content'] | default('', true)).strip() -%}
  {%- set messages = messages[:-1] -%}
{%- endif -%}

{%- for message in messages %}
  {%- set content = message['content'] %}
  {%- if message['role'] == 'user' -%}
    {{- '<SPECIAL_11>User\n' + (content | default('', true)).replace('/no_think', '').strip() + '\n' }}
  {%- elif message['role'] == 'assistant' -%}
    {%- if content and '</think>' in content -%}
      {%- set content = (content.split('</think>')[1] | default('', true)).strip() %}
    {%- endif -%}
    {{- '<SPECIAL_11>Assistant\n' + ((content | default('', true)).strip() if content is not none else '') }}
    {{- '\n<SPECIAL_12>\n\n' -}}
  {%- endif -%}
{%- endfor -%}

{%- if add_generation_prompt -%}
  {{- '<SPECIAL_11>Assistant\n' -}}
  {%- if ns.enable_thinking is defined and ns.enable_thinking is false -%}
    {{- '<think></think>' -}}
  {%- else -%}
    {{- '<think>\n\n' -}}
  {%- endif -%}
  {%- if ns.last_turn_assistant_content is defined and ns.last_turn_assistant_content != '' -%}
    {{- ns.last_turn_assistant_content -}}
  {%- endif -%}
{%- else -%}
  {%- if ns.last_turn_assistant_content is defined and ns.last_turn_assistant_content != '' -%}
    {{- '<SPECIAL_11>Assistant\n' -}}
    {%- if ns.enable_thinking is defined and ns.enable_thinking is false -%}
      {{- '<think></think>' -}}
    {%- else -%}
      {{- '<think>\n\n' -}}
    {%- endif -%}
    {{- ns.last_turn_assistant_content -}}
    {{- '\n<SPECIAL_12>\n\n' -}}
  {%- endif -%}
{%- endif -%}
""",
    ("<SPECIAL_10>", "<SPECIAL_11>", "<SPECIAL_12>"),
    "<SPECIAL_11>Assistant\n",
    "\n<SPECIAL_12>\n\n",
)

_CALL = '{"name": "add", "parameters": {"a": 1, "b": 2}}'
_CALL_2 = '{"name": "add", "parameters": {"a": 3, "b": 4}}'

_IN_SYSTEM = {"tools_in_user_message": False, "date_string": "26 Jul 2024"}
_NO_THINK = Conversation([user("hi /no_think"), assistant("hello")])

CASES = [
    Case(
        LLAMA31,
        "tools in the system text",
        Conversation(CONVERSATIONS["tool"].messages, CONVERSATIONS["tool"].tools, variables=_IN_SYSTEM),
        [_CALL + "<|eot_id|>", "It is 3.<|eot_id|>"],
    ),
    Case(NEMOTRON, "no think", _NO_THINK, OrQuarantined(["hello\n<SPECIAL_12>"])),
    *cases(
        LLAMA2,
        {
            "trailing stop": [" x </s> </s>", " </s> </s>"],
            "single": [" hello </s>"],
            "multi": [" hello </s>", " see you </s>"],
            "system": [" hello </s>", " see you </s>"],
            "same": [" same </s>", " same </s>"],
            "empty": ["  </s>", " d </s>"],
            "blank": ["  </s>", " d </s>"],
            "padded": [" b </s>", " d </s>"],
            "twice": Quarantined,
            "first": Quarantined,
            "open": [" b </s>"],
            "parts": [" cd </s>", " d </s>"],
            "lookalike": [" <s>[INST] a [/INST]x </s>", " d </s>e </s>"],
            "think": [" <think>\nhm\n</think>\n\nb </s>", " <think>\nho\n</think>\n\nd </s>"],
        },
    ),
    *cases(
        LLAMA3,
        {
            "trailing eos": ["x</s><|eot_id|>"],
            "trailing stop": ["x<|eot_id|><|eot_id|>", "<|eot_id|><|eot_id|>"],
            "single": ["hello<|eot_id|>"],
            "multi": ["hello<|eot_id|>", "see you<|eot_id|>"],
            "system": ["hello<|eot_id|>", "see you<|eot_id|>"],
            "same": ["same<|eot_id|>", "same<|eot_id|>"],
            "empty": ["<|eot_id|>", "d<|eot_id|>"],
            "blank": ["<|eot_id|>", "d<|eot_id|>"],
            "padded": ["b<|eot_id|>", "d<|eot_id|>"],
            "twice": ["b<|eot_id|>", "c<|eot_id|>"],
            "first": ["b<|eot_id|>", "d<|eot_id|>"],
            "open": ["b<|eot_id|>"],
            "mimic": ["<|start_header_id|>assistant<|end_header_id|><|eot_id|>", "<|eot_id|><|eot_id|>"],
            "lookalike": [
                "<|start_header_id|>assistant<|end_header_id|>\n\nx<|eot_id|>",
                "d<|eot_id|>e<|eot_id|>",
            ],
        },
    ),
    *cases(
        LLAMA31,
        {
            "trailing stop": ["x<|eot_id|><|eot_id|>", "<|eot_id|><|eot_id|>"],
            "single": ["hello<|eot_id|>"],
            "multi": ["hello<|eot_id|>", "see you<|eot_id|>"],
            "system": ["hello<|eot_id|>", "see you<|eot_id|>"],
            "same": ["same<|eot_id|>", "same<|eot_id|>"],
            "empty": ["<|eot_id|>", "d<|eot_id|>"],
            "blank": ["<|eot_id|>", "d<|eot_id|>"],
            "padded": ["b<|eot_id|>", "d<|eot_id|>"],
            "twice": ["b<|eot_id|>", "c<|eot_id|>"],
            "first": ["b<|eot_id|>", "d<|eot_id|>"],
            "open": ["b<|eot_id|>"],
            "lookalike": [
                "<|start_header_id|>assistant<|end_header_id|>\n\nx<|eot_id|>",
                "d<|eot_id|>e<|eot_id|>",
            ],
            "tool": [_CALL + "<|eot_id|>", "It is 3.<|eot_id|>"],
            "tool null": [_CALL + "<|eot_id|>", "It is 3.<|eot_id|>"],
            "tool words": [_CALL + "<|eot_id|>", "It is 3.<|eot_id|>"],  # the template drops the words
            "tool then more": [_CALL + "<|eot_id|>", "It is 3.<|eot_id|>", "see you<|eot_id|>"],
            "same results": [_CALL + "<|eot_id|>", _CALL + "<|eot_id|>", "3<|eot_id|>"],
            "parallel": Quarantined,
        },
    ),
    *cases(
        LLAMA31_IPYTHON,
        {
            "multi": ["hello<|eot_id|>", "see you<|eot_id|>"],
            "tool": ['<|python_tag|>add.call(a="1", b="2")<|eom_id|>', "It is 3.<|eot_id|>"],
            "tool words": ['Let me see.<|python_tag|>add.call(a="1", b="2")<|eom_id|>', "It is 3.<|eot_id|>"],
            "parallel": [
                '<|python_tag|>add.call(a="1", b="2")<|python_tag|>add.call(a="3", b="4")<|eom_id|>',
                "3 and 7.<|eot_id|>",
            ],
            "tool last": ['<|python_tag|>add.call(a="1", b="2")<|eom_id|>'],
        },
    ),
    *cases(
        LLAMA4,
        {
            "trailing eos": ["x</s> \n <|eot|>"],
            "single": ["hello<|eot|>"],
            "multi": ["hello<|eot|>", "see you<|eot|>"],
            "system": ["hello<|eot|>", "see you<|eot|>"],
            "same": ["same<|eot|>", "same<|eot|>"],
            "empty": ["<|eot|>", "d<|eot|>"],
            "blank": [" \n <|eot|>", "d<|eot|>"],
            "padded": ["  b \n<|eot|>", "\n d<|eot|>"],
            "twice": ["b<|eot|>", "c<|eot|>"],
            "first": ["b<|eot|>", "d<|eot|>"],
            "open": ["b<|eot|>"],
            "parts": ["cd<|eot|>", "d<|eot|>"],
            "lookalike": ["<|header_start|>assistant<|header_end|>\n\nx<|eot|>", "d<|eot|>e<|eot|>"],
            "tool": ["<|python_start|><|python_end|>" + _CALL + "<|eot|>", "It is 3.<|eot|>"],
            "tool words": ["<|python_start|>Let me see.<|python_end|>" + _CALL + "<|eot|>", "It is 3.<|eot|>"],
            "parallel": ["<|python_start|><|python_end|>" + _CALL + _CALL_2 + "<|eot|>", "3 and 7.<|eot|>"],
        },
    ),
    *cases(
        TULU3,
        {
            "trailing stop": ["x</s> \n </s>", "\n</s></s>"],
            "single": ["hello</s>"],
            "multi": ["hello</s>", "see you</s>"],
            "system": ["hello</s>", "see you</s>"],
            "same": ["same</s>", "same</s>"],
            "empty": ["</s>", "d</s>"],
            "empty last": ["b</s>", "</s>"],
            "blank": [" \n </s>", "d</s>"],
            "padded": ["  b \n</s>", "\n d</s>"],
            "twice": ["b</s>", "c</s>"],
            "first": ["b</s>", "d</s>"],
            "open": ["b</s>"],
            "parts": ["cd</s>", "d</s>"],
            "lookalike": ["<|assistant|>\nx</s>", "d</s>e</s>"],
            "mimic": ["<|assistant|>\n</s>", "</s></s>"],
        },
    ),
    *cases(
        EOS_LAST,
        {
            "single": ["hello</s>"],
            "multi": ["hello", "see you</s>"],
            "same": ["same", "same</s>"],
            "empty": ["d</s>"],
            "empty last": ["b", "</s>"],
            "blank": [" \n ", "d</s>"],
            "padded": ["  b \n", "\n d</s>"],
            "open": ["b"],
            "parts": ["cd", "d</s>"],
            "lookalike": ["<|assistant|>\nx", "d\n<|user|>\ne</s>"],
        },
    ),
    *cases(
        EOS_UNLESS_LAST,
        {
            "single": ["hello"],
            "multi": ["hello</s>", "see you"],
            "system": ["hello</s>", "see you"],
            "same": ["same</s>", "same"],
            "empty": ["</s>", "d"],
            "empty last": ["b</s>"],
            "blank": [" \n </s>", "d"],
            "padded": ["  b \n</s>", "\n d"],
            "twice": ["b</s>", "c"],
            "first": ["b</s>", "d"],
            "open": ["b</s>"],
            "lookalike": ["Assistant: x</s>", "d</s>\ne"],
            "mimic": ["Assistant: </s>", "</s>\n"],  # the line end belongs to the content
        },
    ),
    *cases(
        ZEPHYR,
        {
            "single": ["hello</s>"],
            "multi": ["hello</s>", "see you</s>"],
            "system": ["hello</s>", "see you</s>"],
            "same": ["same</s>", "same</s>"],
            "empty": ["</s>", "d</s>"],
            "empty last": ["b</s>", "</s>"],
            "blank": [" \n </s>", "d</s>"],
            "padded": ["  b \n</s>", "\n d</s>"],
            "twice": ["b</s>", "c</s>"],
            "first": ["b</s>", "d</s>"],
            "open": ["b</s>"],
            "parts": ["cd</s>", "d</s>"],
            "lookalike": ["<|assistant|>\nx</s>", "d</s>e</s>"],
        },
    ),
    *cases(
        NEMOTRON,
        {
            "trailing stop": OrQuarantined(["x\n<SPECIAL_12>\n<SPECIAL_12>", "<SPECIAL_12>\n<SPECIAL_12>"]),
            "single": OrQuarantined(["hello\n<SPECIAL_12>"]),
            "multi": OrQuarantined(["hello\n<SPECIAL_12>", "see you\n<SPECIAL_12>"]),
            "system": OrQuarantined(["hello\n<SPECIAL_12>", "see you\n<SPECIAL_12>"]),
            "same": OrQuarantined(["same\n<SPECIAL_12>", "same\n<SPECIAL_12>"]),
            "padded": OrQuarantined(["b\n<SPECIAL_12>", "d\n<SPECIAL_12>"]),
            "open": ["b\n<SPECIAL_12>"],
            # The reasoning of the last turn follows the prompt's <think>, with another tag.
            "think": OrQuarantined(["b\n<SPECIAL_12>", "<think>\nho\n</think>\n\nd\n<SPECIAL_12>"]),
        },
    ),
]
