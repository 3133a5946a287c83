"""Templates of plain words: no special token except the eos, or none."""

from __future__ import annotations

from template_zoo.conversations import Conversation, assistant, user
from template_zoo.model import Case, OrQuarantined, Style, cases

# Vicuna: the question writes the header of the answer.
VICUNA = Style(
    "vicuna",
    r"""{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] | trim + ' ' %}{% else %}{% set loop_messages = messages %}{% set system_message = '' %}{% endif %}{{ bos_token + system_message }}{% for message in loop_messages %}{% if message['role'] == 'user' %}{{ 'USER: ' + message['content'] | trim + ' ASSISTANT:' }}{% elif message['role'] == 'assistant' %}{{ ' ' + message['content'] | trim + eos_token }}{% endif %}{% endfor %}""",
    header="USER: a ASSISTANT:",
    stop="</s>",
)

# Vicuna written over several lines: the indentation is part of the text, and differs between prompt and turn.
VICUNA_INDENTED = Style(
    "vicuna-indented",
    r"""{% if messages[0]['role'] == 'system' %}
    {% set system_message = messages[0]['content'] | trim + '\n\n' %}
    {% set messages = messages[1:] %}
{% else %}
    {% set system_message = '' %}
{% endif %}

{{ bos_token + system_message }}
{% for message in messages %}
    {% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
    {% endif %}

    {% if message['role'] == 'user' %}
        {{ 'USER: ' + message['content'] | trim + '\n' }}
    {% elif message['role'] == 'assistant' %}
        {{ 'ASSISTANT: ' + message['content'] | trim + eos_token + '\n' }}
    {% endif %}
{% endfor %}

{% if add_generation_prompt %}
    {{ 'ASSISTANT:' }}
{% endif %}
""",
    header="        ASSISTANT: ",
    stop="</s>",
)

# Alpaca: literal headers between statements, trimmed contents, empty lines except after the last turn, no eos.
ALPACA = Style(
    "alpaca",
    r"""{{ bos_token -}}
{{ (messages|selectattr('role', 'equalto', 'system')|list|last).content|trim if (messages|selectattr('role', 'equalto', 'system')|list) else '' }}

{% for message in messages %}
{% if message['role'] == 'user' %}
### Instruction:
{{ message['content']|trim -}}
{% if not loop.last %}


{% endif %}
{% elif message['role'] == 'assistant' %}
### Response:
{{ message['content']|trim -}}
{% if not loop.last %}


{% endif %}
{% elif message['role'] == 'user_context' %}
### Input:
{{ message['content']|trim -}}
{% if not loop.last %}


{% endif %}
{% endif %}
{% endfor %}
{% if add_generation_prompt and messages[-1]['role'] != 'assistant' %}
### Response:
{% endif %}""",
    header="### Response:\n",
    stop="\n\n### Instruction:\n",
)

# Alpaca with an eos, for training.
ALPACA_EOS = Style(
    "alpaca-eos",
    r"""{% for message in messages %}{% if message['role'] == 'user' %}### Instruction:
{{ message['content'] }}

{% elif message['role'] == 'assistant' %}### Response:
{{ message['content'] }}{{ eos_token }}

{% else %}{{ message['content'] }}

{% endif %}{% endfor %}{% if add_generation_prompt %}### Response:
{% endif %}""",
    header="### Response:\n",
    stop="</s>\n\n",
)

# Alpaca for one turn, without a loop: messages by index.
ALPACA_SINGLE = Style(
    "alpaca-single",
    r"""{{ '### Instruction:\n' + messages[0]['content'] + '\n\n### Response:\n' }}{% if messages | length > 1 %}{{ messages[1]['content'] + eos_token }}{% endif %}""",
    header="### Response:\n",
    stop="</s>",
)

# SOLAR: like Alpaca, but all turns end with empty lines, and the prompt is in the last iteration.
SOLAR = Style(
    "solar",
    r"""{% for message in messages %}{% if message.role == 'system' %}{% if message.content%}### System:
{{ message.content }}

{% endif %}{% elif message.role == 'user' %}### User:
{{ message.content }}

{% elif message.role == 'assistant' %}### Assistant:
{{ message.content }}

{% endif %}{% if loop.last and add_generation_prompt %}### Assistant:
{% endif %}{% endfor %}""",
    header="### Assistant:\n",
    stop="\n\n### User:\n",
)

# Orion: the question writes the header, and an eos after it.
ORION = Style(
    "orion",
    r"""{% for message in messages %}{% if loop.first %}{{ bos_token }}{% endif %}{% if message['role'] == 'user' %}{{ 'Human: ' + message['content'] + '\n\nAssistant: ' + eos_token }}{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token }}{% endif %}{% endfor %}""",
    header="Human: a\n\nAssistant: </s>",
    stop="</s>",
)

# Baichuan 2: reserved tokens as headers, no end of a turn; the system text is searched in all messages.
BAICHUAN = Style(
    "baichuan",
    r"""{{ (messages|selectattr('role', 'equalto', 'system')|list|last).content|trim if (messages|selectattr('role', 'equalto', 'system')|list) else '' }}

{%- for message in messages -%}
    {%- if message['role'] == 'user' -%}
        {{- '<reserved_106>' + message['content'] -}}
    {%- elif message['role'] == 'assistant' -%}
        {{- '<reserved_107>' + message['content'] -}}
    {%- endif -%}
{%- endfor -%}

{%- if add_generation_prompt and messages[-1]['role'] != 'assistant' -%}
    {{- '<reserved_107>' -}}
{% endif %}""",
    ("<reserved_106>", "<reserved_107>"),
    "<reserved_107>",
    "<reserved_106>",
)

# ChatGLM: numbered rounds, headers in Chinese.
CHATGLM = Style(
    "chatglm",
    r"""{{- bos_token -}}
{%- set counter = namespace(index=0) -%}
{%- for message in messages -%}
    {%- if message['role'] == 'user' -%}
        {{- '[Round ' + counter.index|string + ']\n问：' + message['content'] -}}
        {%- set counter.index = counter.index + 1 -%}
    {%- endif -%}
    {%- if message['role'] == 'assistant' -%}
        {{- '\n答：' + message['content'] -}}
        {%- if (loop.last and add_generation_prompt) or not loop.last -%}
            {{- '\n' -}}
        {%- endif -%}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt and messages[-1]['role'] != 'assistant' -%}
    {{- '\n答：' -}}
{%- endif -%}""",
    header="\n答：",
    stop="\n[Round 1]\n问：",
)

# Falcon: the line end before a header belongs to the turn before, or to the prompt.
FALCON = Style(
    "falcon",
    r"""{{- bos_token -}}
{%- for message in messages -%}
    {%- if message['role'] == 'user' -%}
        {{- 'User: ' + message['content'] -}}
    {%- elif message['role'] == 'assistant' -%}
        {{- 'Assistant: ' + message['content'] -}}
    {%- endif -%}
    {%- if (loop.last and add_generation_prompt) or not loop.last -%}
        {{- '\n' -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt and messages[-1]['role'] != 'assistant' -%}
    {{- 'Assistant:' -}}
{% endif %}""",
    header="Assistant: ",
    stop="\nUser: ",
)

# TeleFLM: the question writes the header; statements on separate lines, with their indentation and line ends.
TELEFLM = Style(
    "teleflm",
    r"""{% for message in messages %}
    {% if message['role'] == 'user' %}
        {{ '<_user>' + message['content'].strip() + '<_bot>' }}
    {% elif message['role'] == 'system' %}
        {{ '' }}
    {% elif message['role'] == 'assistant' %}
        {{ message['content'] }}
    {% endif %}{{ ' ' }}
{% endfor %}""",
    ("<_user>", "<_bot>"),
    "<_user>a<_bot>",
    "<_user>",
)

# Granite 20B functions: a space before the end; the header before calls lacks the space of the prompt.
GRANITE_FC = Style(
    "granite-fc",
    r"""{{- bos_token }}
{%- if messages[0]["role"] == "system" %}
    {%- set sys_prompt = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
    {% set sys_prompt = 'You are a helpful assistant.' %}
{%- endif %}

{{ 'SYSTEM: ' + sys_prompt }}
{% if tools is iterable and tools | length > 0 %}
<|function_call_library|>
    {%- for tool in tools %}
        {{- tool.function | tojson }}
        {%- if not loop.last %}
            {{- "\n" }}
        {%- endif %}
    {%- endfor %}
If none of the functions are relevant, please say so.
{%- endif %}



{% for message in loop_messages %}
    {% if message['role'] == 'user' %}
        {{- '\nUSER: ' + message['content'] }}
    {% elif message['role'] == 'assistant' and message.tool_calls is defined %}
        {{- '\nASSISTANT:'  }}
        {% for tc in message.tool_calls %}
            {{- '<function_call> ' + {'name': tc.function.name, 'arguments': tc.function.arguments}|tojson  }}
        {% endfor %}
        {{- eos_token  }}
    {% elif message['role'] == 'assistant' %}
        {{- '\nASSISTANT: ' + message['content'] + ' ' + eos_token  }}
    {% elif message['role'] == 'tool' %}
        {{- '<function_response> ' + message['content'] }}
    {%- else %}
        {{- raise_exception("Unexpected combination of role and message content") }}
    {% endif %}
    {% if loop.last and add_generation_prompt %}
        {{- '\nASSISTANT: ' }}
    {% endif %}
{% endfor %}
""",
    ("<function_call>",),
    "\nASSISTANT: ",
    " </s>",
)

# Only role and content.
COLON = Style(
    "colon",
    r"""{% for message in messages %}{{ message.role ~ ': ' ~ message.content ~ '\n' }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}""",
    header="assistant: ",
    stop="\nuser: ",
)

# One eos after the loop, directly after the last content, or with a line end between.
EOS_AFTER_LOOP = Style(
    "eos-after-loop",
    r"""{% for message in messages %}{{ '### ' + message.role | title + ':\n' + message.content }}{% if not loop.last %}{{ '\n' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '\n### Assistant:\n' }}{% elif messages[-1].role == 'assistant' %}{{ eos_token }}{% endif %}""",
    header="### Assistant:\n",
    stop="\n### User:\n",
)
EOS_ON_ITS_LINE = Style(
    "eos-on-its-line",
    r"""{% for message in messages %}
### {{ message.role | title }}:
{{ message.content }}
{% endfor %}
{% if add_generation_prompt %}
### Assistant:
{% else %}
{{ eos_token }}
{% endif %}""",
    header="### Assistant:\n",
    stop="\n### User:\n",
)

# A stop token of the template, directly followed by the eos, in every turn.
TWO_STOPS = Style(
    "two-stops",
    r"""{% for message in messages %}{{ '<|' + message.role + '|>' + message.content + '<|eot|>' }}{% if message.role == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}""",
    ("<|user|>", "<|assistant|>", "<|system|>", "<|eot|>"),
    "<|assistant|>",
    "<|eot|></s>",
)
_CONTEXT = Conversation([user("a"), {"role": "user_context", "content": "b"}, assistant("c")])

CASES = [
    *cases(
        VICUNA,
        {
            "trailing stop": [" x</s></s>", " </s></s>"],
            "single": [" hello</s>"],
            "multi": [" hello</s>", " see you</s>"],
            "system": [" hello</s>", " see you</s>"],
            "same": [" same</s>", " same</s>"],
            "empty": [" </s>", " d</s>"],
            "blank": [" </s>", " d</s>"],
            "padded": [" b</s>", " d</s>"],
            "open": [" b</s>"],
            "parts": [" cd</s>", " d</s>"],
            "lookalike": [" USER: a ASSISTANT:x</s>", " d</s>e</s>"],
        },
    ),
    *cases(
        VICUNA_INDENTED,
        {
            "single": [" hello</s>"],
            "multi": [" hello</s>", " see you</s>"],
            "system": [" hello</s>", " see you</s>"],
            "padded": [" b</s>", " d</s>"],
        },
    ),
    *cases(
        ALPACA,
        {
            "single": ["hello"],
            "multi": ["hello", "see you"],
            "system": ["hello", "see you"],
            "same": ["same", "same"],
            "empty": ["d"],
            "blank": ["d"],
            "padded": ["b", "d"],
            "twice": ["b", "c"],
            "first": ["b", "d"],
            "open": ["b"],
            "parts": ["cd", "d"],
            "lookalike": ["### Response:\nx", "d\n\n### Instruction:\ne"],
        },
    ),
    Case(ALPACA, "context", _CONTEXT, ["c"]),
    *cases(
        ALPACA_EOS,
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
            "lookalike": ["### Response:\nx</s>", "d</s>\n\ne</s>"],
            "mimic": ["### Response:\n</s>", "</s>\n\n</s>"],
        },
    ),
    *cases(
        ALPACA_SINGLE,
        {
            "single": ["hello</s>"],
            # The second pair is not rendered, so it cannot be trained.
            "multi": OrQuarantined(["hello</s>"]),
        },
    ),
    *cases(
        SOLAR,
        {
            "single": ["hello"],
            "multi": ["hello", "see you"],
            "system": ["hello", "see you"],
            "same": ["same", "same"],
            "empty": ["d"],
            "empty last": ["b"],
            "blank": [" \n ", "d"],
            "padded": ["  b \n", "\n d"],
            "twice": ["b", "c"],
            "first": ["b", "d"],
            "open": ["b"],
            "parts": ["cd", "d"],
            "lookalike": ["### Assistant:\nx", "d\n\n### User:\ne"],
            "mimic": ["### Assistant:\n", "\n\n### User:\n"],
        },
    ),
    *cases(
        ORION,
        {
            "single": ["hello</s>"],
            "multi": ["hello</s>", "see you</s>"],
            "system": ["hello</s>", "see you</s>"],
            "same": ["same</s>", "same</s>"],
            "empty": ["</s>", "d</s>"],
            "padded": ["  b \n</s>", "\n d</s>"],
            "twice": ["b</s>", "c</s>"],
            "first": ["b</s>", "d</s>"],
            "open": ["b</s>"],
            "lookalike": ["Human: a\n\nAssistant: </s>x</s>", "d</s>e</s>"],
        },
    ),
    *cases(
        BAICHUAN,
        {
            "single": ["hello"],
            "multi": ["hello", "see you"],
            "system": ["hello", "see you"],
            "same": ["same", "same"],
            "empty": ["d"],
            "blank": [" \n ", "d"],
            "padded": ["  b \n", "\n d"],
            "twice": ["b", "c"],
            "first": ["b", "d"],
            "open": ["b"],
            "parts": ["cd", "d"],
            "lookalike": ["<reserved_107>x", "d<reserved_106>e"],
            "mimic": ["<reserved_107>", "<reserved_106>"],
        },
    ),
    *cases(
        CHATGLM,
        {
            "single": ["hello"],
            "multi": ["hello", "see you"],
            "same": ["same", "same"],
            "empty": ["d"],
            "blank": [" \n ", "d"],
            "padded": ["  b \n", "\n d"],
            "open": ["b"],
            "parts": ["cd", "d"],
            "lookalike": ["\n答：x", "d\n[Round 1]\n问：e"],
            "mimic": ["\n答：", "\n[Round 1]\n问："],
        },
    ),
    *cases(
        FALCON,
        {
            "single": [" hello"],
            "multi": [" hello", " see you"],
            "same": [" same", " same"],
            "blank": ["  \n ", " d"],
            "padded": ["   b \n", " \n d"],
            "open": [" b"],
            "parts": [" cd", " d"],
            "lookalike": [" Assistant: x", " d\nUser: e"],
        },
    ),
    *cases(
        TELEFLM,
        {
            "single": ["        hello"],
            "multi": ["        hello", "        see you"],
            "system": ["        hello", "        see you"],
            "same": ["        same", "        same"],
            "open": ["        b"],
            "lookalike": ["        <_user>a<_bot>x", "        d<_user>e"],
        },
    ),
    *cases(
        GRANITE_FC,
        {
            # The prompt ends with a line end that no turn has.
            "single": OrQuarantined(["hello </s>"]),
            "multi": OrQuarantined(["hello </s>", "see you </s>"]),
            "system": OrQuarantined(["hello </s>", "see you </s>"]),
            "same": OrQuarantined(["same </s>", "same </s>"]),
            "empty": OrQuarantined([" </s>", "d </s>"]),
            "open": OrQuarantined(["b </s>"]),
            "tool": OrQuarantined(
                ['<function_call> {"name": "add", "arguments": {"a": 1, "b": 2}}</s>', "It is 3. </s>"]
            ),
        },
    ),
    *cases(
        COLON,
        {
            "single": ["hello"],
            "multi": ["hello", "see you"],
            "system": ["hello", "see you"],
            "same": ["same", "same"],
            "empty": ["d"],
            "blank": [" \n ", "d"],
            "padded": ["  b \n", "\n d"],
            "twice": ["b", "c"],
            "first": ["b", "d"],
            "open": ["b"],
            "lookalike": ["assistant: x", "d\nuser: e"],
        },
    ),
    *cases(
        EOS_AFTER_LOOP,
        {
            "single": ["hello</s>"],
            "multi": ["hello", "see you</s>"],
            "same": ["same", "same</s>"],
            "empty": ["d</s>"],
            "empty last": ["b", "</s>"],
            "padded": ["  b \n", "\n d</s>"],
            "open": ["b"],
            "lookalike": ["### Assistant:\nx", "d\n### User:\ne</s>"],
        },
    ),
    *cases(
        EOS_ON_ITS_LINE,
        {
            "single": ["hello\n</s>"],
            "multi": ["hello", "see you\n</s>"],
            "system": ["hello", "see you\n</s>"],
            "same": ["same", "same\n</s>"],
            "open": ["b"],  # the eos ends the question there
            "lookalike": ["### Assistant:\nx", "d\n### User:\ne\n</s>"],
        },
    ),
    *cases(
        TWO_STOPS,
        {
            "single": ["hello<|eot|></s>"],
            "multi": ["hello<|eot|></s>", "see you<|eot|></s>"],
            "empty": ["<|eot|></s>", "d<|eot|></s>"],
            "blank": [" \n <|eot|></s>", "d<|eot|></s>"],
            "twice": ["b<|eot|></s>", "c<|eot|></s>"],
            "open": ["b<|eot|></s>"],
            "lookalike": ["<|assistant|>x<|eot|></s>", "d<|eot|></s>e<|eot|></s>"],
        },
    ),
]
