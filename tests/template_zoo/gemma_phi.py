"""Gemma (`model` for assistant, system text in the first question) and Phi (`<|end|>`, an end token after the loop)."""

from __future__ import annotations

from template_zoo.model import OrQuarantined, Quarantined, Style, cases

_TURNS = ("<start_of_turn>", "<end_of_turn>")

# Gemma 1 and 2: no system role, alternating roles, trimmed contents.
GEMMA1 = Style(
    "gemma1",
    r"""{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '
' + message['content'] | trim + '<end_of_turn>
' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model
'}}{% endif %}""",
    _TURNS,
    "<start_of_turn>model\n",
    "<end_of_turn>",
)

# Gemma 3: the system text before the first question, contents as text or parts.
GEMMA3 = Style(
    "gemma3",
    r"""{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set first_user_prefix = messages[0]['content'] + '

' -%}
    {%- else -%}
        {%- set first_user_prefix = messages[0]['content'][0]['text'] + '

' -%}
    {%- endif -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Conversation roles must alternate user/assistant/user/assistant/...") }}
    {%- endif -%}
    {%- if (message['role'] == 'assistant') -%}
        {%- set role = "model" -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<start_of_turn>' + role + '
' + (first_user_prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'image' -%}
                {{ '<start_of_image>' }}
            {%- elif item['type'] == 'text' -%}
                {{ item['text'] | trim }}
            {%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{ raise_exception("Invalid content type") }}
    {%- endif -%}
    {{ '<end_of_turn>
' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model
'}}
{%- endif -%}
""",
    _TURNS,
    "<start_of_turn>model\n",
    "<end_of_turn>",
    content="both",
)

# Gemma's later tool templates: a turn looks ahead for tool results, writes them inside the model's turn, and continues
# after them; contents are captured before they are written.
GEMMA_TOOLS = Style(
    "gemma-tools",
    r"""{%- macro format_argument(argument) -%}
    {%- if argument is string -%}
        {{- '<|"|>' + argument + '<|"|>' -}}
    {%- else -%}
        {{- argument -}}
    {%- endif -%}
{%- endmacro -%}
{%- macro strip_thinking(text) -%}
    {%- set ns = namespace(result='') -%}
    {%- for part in text.split('<channel|>') -%}
        {%- if '<|channel>' in part -%}
            {%- set ns.result = ns.result + part.split('<|channel>')[0] -%}
        {%- else -%}
            {%- set ns.result = ns.result + part -%}
        {%- endif -%}
    {%- endfor -%}
    {{- ns.result | trim -}}
{%- endmacro -%}
{%- set loop_messages = messages -%}
{{- bos_token -}}
{%- if tools or messages[0]['role'] in ['system', 'developer'] -%}
    {{- '<|turn>system\n' -}}
    {%- if messages[0]['role'] in ['system', 'developer'] -%}
        {{- messages[0]['content'] | trim -}}
        {%- set loop_messages = messages[1:] -%}
    {%- endif -%}
    {%- if tools -%}
        {%- for tool in tools %}
            {{- '<|tool>declaration:' + tool['function']['name'] + '<tool|>' -}}
        {%- endfor %}
    {%- endif -%}
    {{- '<turn|>\n' -}}
{%- endif %}
{%- for message in loop_messages -%}
    {%- if message['role'] != 'tool' -%}
    {%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}
    {%- set prev = namespace(role=None, found=false) -%}
    {%- if loop.index0 > 0 -%}
        {%- for j in range(loop.index0 - 1, -1, -1) -%}
            {%- if not prev.found -%}
                {%- if loop_messages[j]['role'] != 'tool' -%}
                    {%- set prev.role = loop_messages[j]['role'] -%}
                    {%- set prev.found = true -%}
                {%- endif -%}
            {%- endif -%}
        {%- endfor -%}
    {%- endif -%}
    {%- if not (role == 'model' and prev.role == 'assistant') -%}
        {{- '<|turn>' + role + '\n' }}
    {%- endif -%}
    {%- if message['tool_calls'] -%}
        {%- for tool_call in message['tool_calls'] -%}
            {%- set function = tool_call['function'] -%}
            {{- '<|tool_call>call:' + function['name'] + '{' -}}
            {%- for key, value in function['arguments'] | dictsort -%}
                {{- key -}}:{{- format_argument(value) -}}
                {%- if not loop.last %},{% endif -%}
            {%- endfor -%}
            {{- '}<tool_call|>' -}}
        {%- endfor -%}
        {%- set scan = namespace(stopped=false) -%}
        {%- for k in range(loop.index0 + 1, loop_messages | length) -%}
            {%- if scan.stopped -%}
            {%- elif loop_messages[k]['role'] != 'tool' -%}
                {%- set scan.stopped = true -%}
            {%- else -%}
                {{- '<|tool_response>response:{value:' + format_argument(loop_messages[k].get('content')) + '}<tool_response|>' -}}
            {%- endif -%}
        {%- endfor -%}
    {%- endif -%}
    {%- set captured_content -%}
        {%- if role == 'model' -%}
            {{- strip_thinking(message['content'] or '') -}}
        {%- else -%}
            {{- message['content'] | trim -}}
        {%- endif -%}
    {%- endset -%}
    {{- captured_content -}}
    {%- if not message['tool_calls'] -%}
        {{- '<turn|>\n' -}}
    {%- endif -%}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt and messages[-1]['role'] != 'tool' -%}
    {{- '<|turn>model\n' -}}
{%- endif -%}
""",
    ("<|turn>", "<turn|>", "<|tool_call>", "<tool_call|>", "<|tool_response>", "<tool_response|>"),
    "<|turn>model\n",
    "<turn|>",
)

# The first Phi 3: the question writes the header of the answer; system messages are dropped.
PHI3_FIRST = Style(
    "phi3-first",
    r"""{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') %}{{'<|user|>' + '
' + message['content'] + '<|end|>' + '
' + '<|assistant|>' + '
'}}{% elif (message['role'] == 'assistant') %}{{message['content'] + '<|end|>' + '
'}}{% endif %}{% endfor %}""",
    ("<|user|>", "<|assistant|>", "<|end|>"),
    "<|assistant|>\n",
    "<|end|>",
)

# Phi 3 and 3.5: an end-of-text token after the loop, without a generation prompt.
PHI3 = Style(
    "phi3",
    r"""{% for message in messages %}{% if message['role'] == 'system' and message['content'] %}{{'<|system|>
' + message['content'] + '<|end|>
'}}{% elif message['role'] == 'user' %}{{'<|user|>
' + message['content'] + '<|end|>
'}}{% elif message['role'] == 'assistant' %}{{'<|assistant|>
' + message['content'] + '<|end|>
'}}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>
' }}{% else %}{{ eos_token }}{% endif %}""",
    ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
    "<|assistant|>\n",
    "<|end|>",
)

# Phi 4 mini: no line ends, tools in the system turn.
PHI4_MINI = Style(
    "phi4-mini",
    r"""{%- for message in messages -%}
    {%- if message['role'] == 'system' and 'tools' in message and message['tools'] is not none -%}
        {{- '<|' + message['role'] + '|>' + message['content'] + '<|tool|>' + message['tools'] + '<|/tool|>' + '<|end|>' -}}
    {%- else -%}
        {{- '<|' + message['role'] + '|>' + message['content'] + '<|end|>' -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|assistant|>' -}}
{%- else -%}
    {{- eos_token -}}
{%- endif -%}""",
    ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
    "<|assistant|>",
    "<|end|>",
)
"""The model stops at `<|end|>`, as in earlier turns; the end-of-text token after it belongs to no turn."""

# Phi 4: a separator between role and content.
PHI4 = Style(
    "phi4",
    r"""{% for message in messages %}{% if (message['role'] == 'system') %}{{'<|im_start|>system<|im_sep|>' + message['content'] + '<|im_end|>'}}{% elif (message['role'] == 'user') %}{{'<|im_start|>user<|im_sep|>' + message['content'] + '<|im_end|>'}}{% elif (message['role'] == 'assistant') %}{{'<|im_start|>assistant<|im_sep|>' + message['content'] + '<|im_end|>'}}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}""",
    ("<|im_start|>", "<|im_end|>", "<|im_sep|>"),
    "<|im_start|>assistant<|im_sep|>",
    "<|im_end|>",
)

_END = {
    "single": ["hello<|end|>"],
    "multi": ["hello<|end|>", "see you<|end|>"],
    "system": ["hello<|end|>", "see you<|end|>"],
    "same": ["same<|end|>", "same<|end|>"],
    "empty": ["<|end|>", "d<|end|>"],
    "empty last": ["b<|end|>", "<|end|>"],
    "blank": [" \n <|end|>", "d<|end|>"],
    "padded": ["  b \n<|end|>", "\n d<|end|>"],
    "twice": ["b<|end|>", "c<|end|>"],
    "open": ["b<|end|>"],
    "parts": ["cd<|end|>", "d<|end|>"],
    "lookalike": ["<|assistant|>\nx<|end|>", "d<|end|>e<|end|>"],
    "mimic": ["<|assistant|>\n<|end|>", "<|end|><|end|>"],
}

CASES = [
    *cases(
        GEMMA1,
        {
            "trailing eos": ["x</s><end_of_turn>"],
            "trailing stop": ["x<end_of_turn><end_of_turn>", "<end_of_turn><end_of_turn>"],
            "single": ["hello<end_of_turn>"],
            "multi": ["hello<end_of_turn>", "see you<end_of_turn>"],
            "system": Quarantined,
            "same": ["same<end_of_turn>", "same<end_of_turn>"],
            "empty": ["<end_of_turn>", "d<end_of_turn>"],
            "blank": ["<end_of_turn>", "d<end_of_turn>"],
            "padded": ["b<end_of_turn>", "d<end_of_turn>"],
            "twice": Quarantined,
            "first": Quarantined,
            "open": ["b<end_of_turn>"],
            "parts": ["cd<end_of_turn>", "d<end_of_turn>"],
            "lookalike": ["<start_of_turn>model\nx<end_of_turn>", "d<end_of_turn>e<end_of_turn>"],
        },
    ),
    *cases(
        GEMMA3,
        {
            "trailing eos": ["x</s><end_of_turn>"],
            "trailing stop": ["x<end_of_turn><end_of_turn>", "<end_of_turn><end_of_turn>"],
            "single": ["hello<end_of_turn>"],
            "multi": ["hello<end_of_turn>", "see you<end_of_turn>"],
            "system": ["hello<end_of_turn>", "see you<end_of_turn>"],
            "same": ["same<end_of_turn>", "same<end_of_turn>"],
            "empty": ["<end_of_turn>", "d<end_of_turn>"],
            "blank": ["<end_of_turn>", "d<end_of_turn>"],
            "padded": ["b<end_of_turn>", "d<end_of_turn>"],
            "twice": Quarantined,
            "first": Quarantined,
            "open": ["b<end_of_turn>"],
            "parts": ["cd<end_of_turn>", "d<end_of_turn>"],
            "lookalike": ["<start_of_turn>model\nx<end_of_turn>", "d<end_of_turn>e<end_of_turn>"],
        },
    ),
    *cases(
        GEMMA_TOOLS,
        {
            "trailing stop": ["x<turn|><turn|>", "<turn|><turn|>"],
            "single": ["hello<turn|>"],
            "multi": ["hello<turn|>", "see you<turn|>"],
            "system": ["hello<turn|>", "see you<turn|>"],
            "same": ["same<turn|>", "same<turn|>"],
            "empty": ["<turn|>", "d<turn|>"],
            "padded": ["b<turn|>", "d<turn|>"],
            "open": ["b<turn|>"],
            "lookalike": ["<|turn>model\nx<turn|>", "d<turn|>e<turn|>"],
            # The tool result is in the same span as the call, and must not be trained.
            "tool": OrQuarantined(["<|tool_call>call:add{a:1,b:2}<tool_call|>", "It is 3.<turn|>"]),
            "tool then more": OrQuarantined(
                ["<|tool_call>call:add{a:1,b:2}<tool_call|>", "It is 3.<turn|>", "see you<turn|>"]
            ),
            "parallel": OrQuarantined(
                [
                    "<|tool_call>call:add{a:1,b:2}<tool_call|><|tool_call>call:add{a:3,b:4}<tool_call|>",
                    "3 and 7.<turn|>",
                ]
            ),
            "tool last": ["<|tool_call>call:add{a:1,b:2}<tool_call|>"],
        },
    ),
    *cases(PHI3_FIRST, {**_END, "first": ["b<|end|>", "d<|end|>"]}),
    *cases(PHI3, {**_END, "first": ["b<|end|>", "d<|end|>"]}),
    *cases(
        PHI4_MINI,
        {
            "single": ["hello<|end|>"],
            "multi": ["hello<|end|>", "see you<|end|>"],
            "system": ["hello<|end|>", "see you<|end|>"],
            "same": ["same<|end|>", "same<|end|>"],
            "empty": ["<|end|>", "d<|end|>"],
            "blank": [" \n <|end|>", "d<|end|>"],
            "padded": ["  b \n<|end|>", "\n d<|end|>"],
            "twice": ["b<|end|>", "c<|end|>"],
            "first": ["b<|end|>", "d<|end|>"],
            "open": ["b<|end|>"],
            "parts": ["cd<|end|>", "d<|end|>"],
            "lookalike": ["<|assistant|>x<|end|>", "d<|end|>e<|end|>"],
        },
    ),
    *cases(
        PHI4,
        {
            "single": ["hello<|im_end|>"],
            "multi": ["hello<|im_end|>", "see you<|im_end|>"],
            "system": ["hello<|im_end|>", "see you<|im_end|>"],
            "same": ["same<|im_end|>", "same<|im_end|>"],
            "empty": ["<|im_end|>", "d<|im_end|>"],
            "padded": ["  b \n<|im_end|>", "\n d<|im_end|>"],
            "twice": ["b<|im_end|>", "c<|im_end|>"],
            "first": ["b<|im_end|>", "d<|im_end|>"],
            "open": ["b<|im_end|>"],
            "lookalike": ["<|im_start|>assistant<|im_sep|>x<|im_end|>", "d<|im_end|>e<|im_end|>"],
        },
    ),
]
