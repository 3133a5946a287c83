"""DeepSeek: no line ends, tool results that change how a turn opens, prompts that open or close the reasoning."""

from __future__ import annotations

from template_zoo.model import OrQuarantined, Style, cases

_TOKENS = (
    "<｜User｜>",
    "<｜Assistant｜>",
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁calls▁end｜>",
    "<｜tool▁call▁begin｜>",
    "<｜tool▁call▁end｜>",
    "<｜tool▁sep｜>",
    "<｜tool▁outputs▁begin｜>",
    "<｜tool▁outputs▁end｜>",
    "<｜tool▁output▁begin｜>",
    "<｜tool▁output▁end｜>",
)

# V2: headers of words, a prompt without the space that follows it in a turn.
V2 = Style(
    "deepseek-v2",
    r"""{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}{{ 'User: ' + message['content'] + '

' }}{% elif message['role'] == 'assistant' %}{{ 'Assistant: ' + message['content'] + eos_token }}{% elif message['role'] == 'system' %}{{ message['content'] + '

' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}""",
    header="Assistant: ",
    stop="</s>",
)

_LOOP = r"""{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{% set ns = namespace(is_first=false, is_tool=false, is_output_first=true, system_prompt='') %}{%- for message in messages %}{%- if message['role'] == 'system' %}{% set ns.system_prompt = message['content'] %}{%- endif %}{%- endfor %}{{bos_token}}{{ns.system_prompt}}{%- for message in messages %}{%- if message['role'] == 'user' %}{%- set ns.is_tool = false -%}{{'<｜User｜>' + message['content']}}{%- endif %}{%- if message['role'] == 'assistant' and 'tool_calls' in message and message['tool_calls'] %}{%- set ns.is_tool = false -%}{%- for tool in message['tool_calls']%}{%- if not ns.is_first %}{{'<｜Assistant｜>' + (message['content'] or '') + '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>' + tool['type'] + '<｜tool▁sep｜>' + tool['function']['name'] + '\n' + '```json' + '\n' + tool['function']['arguments'] | tojson + '\n' + '```' + '<｜tool▁call▁end｜>'}}{%- set ns.is_first = true -%}{%- else %}{{'\n' + '<｜tool▁call▁begin｜>' + tool['type'] + '<｜tool▁sep｜>' + tool['function']['name'] + '\n' + '```json' + '\n' + tool['function']['arguments'] | tojson + '\n' + '```' + '<｜tool▁call▁end｜>'}}{%- endif %}{%- endfor %}{%- set ns.is_first = false -%}{{'<｜tool▁calls▁end｜>' + eos_token}}{%- endif %}{%- if message['role'] == 'assistant' and not message['tool_calls'] %}{%- if ns.is_tool %}{{'<｜tool▁outputs▁end｜>' + message['content'] + eos_token}}{%- set ns.is_tool = false -%}{%- else %}CONTENT{{'<｜Assistant｜>' + content + eos_token}}{%- endif %}{%- endif %}{%- if message['role'] == 'tool' %}{%- set ns.is_tool = true -%}{%- if ns.is_output_first %}{{'<｜tool▁outputs▁begin｜><｜tool▁output▁begin｜>' + message['content'] + '<｜tool▁output▁end｜>'}}{%- set ns.is_output_first = false %}{%- else %}{{'\n<｜tool▁output▁begin｜>' + message['content'] + '<｜tool▁output▁end｜>'}}{%- endif %}{%- endif %}{%- endfor -%}{% if ns.is_tool %}{{'<｜tool▁outputs▁end｜>'}}{% endif %}"""

# V3: the turn after tool results closes them, or the end of the conversation does; then there is no prompt.
V3 = Style(
    "deepseek-v3",
    _LOOP.replace("CONTENT", "{% set content = message['content'] %}")
    + r"""{% if add_generation_prompt and not ns.is_tool %}{{'<｜Assistant｜>'}}{% endif %}""",
    _TOKENS,
    "<｜Assistant｜>",
    "</s>",
)

# R1 and R1-0528: the prompt opens the reasoning; turns of the history lose theirs.
R1 = Style(
    "deepseek-r1",
    _LOOP.replace(
        "CONTENT",
        "{% set content = message['content'] %}"
        "{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}",
    )
    + r"""{% if add_generation_prompt and not ns.is_tool %}{{'<｜Assistant｜><think>\n'}}{% endif %}""",
    (*_TOKENS, "<think>", "</think>"),
    "<｜Assistant｜>",
    "</s>",
)

# V3.1: the prompt closes the reasoning, or opens it in thinking mode; so does every answer to a user.
V31 = Style(
    "deepseek-v3.1",
    r"""{% if not add_generation_prompt is defined -%}
  {%- set add_generation_prompt = false -%}
{%- endif -%}
{%- if not thinking is defined -%}
  {%- if enable_thinking is defined -%}
    {%- set thinking = enable_thinking -%}
  {%- else -%}
    {%- set thinking = false -%}
  {%- endif -%}
{%- endif -%}
{%- set ns = namespace(is_first=false, is_tool=false, system_prompt='', is_first_sp=true, is_last_user=false) -%}
{%- for message in messages -%}
  {%- if message['role'] == 'system' -%}
    {%- if ns.is_first_sp -%}
      {%- set ns.system_prompt = ns.system_prompt + message['content'] -%}
      {%- set ns.is_first_sp = false -%}
    {%- else -%}
      {%- set ns.system_prompt = ns.system_prompt + '\n\n' + message['content'] -%}
    {%- endif -%}
  {%- endif -%}
{%- endfor -%}
{{ bos_token }}{{ ns.system_prompt }}
{%- for message in messages -%}
  {%- if message['role'] == 'user' -%}
    {%- set ns.is_tool = false -%}
    {%- set ns.is_first = false -%}
    {%- set ns.is_last_user = true -%}
    {{'<｜User｜>' + message['content']}}
  {%- endif -%}
  {%- if message['role'] == 'assistant' and message['tool_calls'] is defined and message['tool_calls'] is not none -%}
    {%- if ns.is_last_user -%}
      {{'<｜Assistant｜></think>'}}
    {%- endif -%}
    {%- set ns.is_last_user = false -%}
    {%- set ns.is_first = false -%}
    {%- set ns.is_tool = false -%}
    {%- for tool in message['tool_calls'] -%}
      {%- if not ns.is_first -%}
        {{ (message['content'] or '') + '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>' + tool['function']['name'] + '<｜tool▁sep｜>' + tool['function']['arguments'] | tojson + '<｜tool▁call▁end｜>'}}
        {%- set ns.is_first = true -%}
      {%- else -%}
        {{'<｜tool▁call▁begin｜>' + tool['function']['name'] + '<｜tool▁sep｜>' + tool['function']['arguments'] | tojson + '<｜tool▁call▁end｜>'}}
      {%- endif -%}
    {%- endfor -%}
    {{'<｜tool▁calls▁end｜>' + eos_token}}
  {%- endif -%}
  {%- if message['role'] == 'assistant' and (message['tool_calls'] is not defined or message['tool_calls'] is none) -%}
    {%- if ns.is_last_user -%}
      {{'<｜Assistant｜>'}}
      {%- if message['prefix'] is defined and message['prefix'] and thinking -%}
        {{'<think>'}}
      {%- else -%}
        {{'</think>'}}
      {%- endif -%}
    {%- endif -%}
    {%- set ns.is_last_user = false -%}
    {%- if ns.is_tool -%}
      {{message['content'] + eos_token}}
      {%- set ns.is_tool = false -%}
    {%- else -%}
      {%- set content = message['content'] -%}
      {%- if '</think>' in content -%}
        {%- set content = content.split('</think>', 1)[1] -%}
      {%- endif -%}
      {{content + eos_token}}
    {%- endif -%}
  {%- endif -%}
  {%- if message['role'] == 'tool' -%}
    {%- set ns.is_last_user = false -%}
    {%- set ns.is_tool = true -%}
    {{'<｜tool▁output▁begin｜>' + message['content'] + '<｜tool▁output▁end｜>'}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt and ns.is_last_user and not ns.is_tool -%}
  {{'<｜Assistant｜>'}}
  {%- if not thinking -%}
    {{'</think>'}}
  {%- else -%}
    {{'<think>'}}
  {%- endif -%}
{%- endif -%}
""",
    (*_TOKENS, "<think>", "</think>"),
    "<｜Assistant｜></think>",
    "</s>",
)

# V3.2: questions and tool results write the header of the answer, and open or close its reasoning.
V32 = Style(
    "deepseek-v3.2",
    r"""{%- set enable_thinking = enable_thinking | default(true) -%}
{%- set last_user_index = namespace(value=-1) -%}
{%- for msg in messages -%}
  {%- if msg.role in ["user", "developer"] -%}
    {%- set last_user_index.value = loop.index0 -%}
  {%- endif -%}
{%- endfor -%}
{{ bos_token }}
{%- set has_system = messages|length > 0 and messages[0].role == "system" -%}
{%- if has_system -%}
  {{ messages[0].get('content', '') }}
{%- endif -%}
{%- set start_idx = 1 if has_system else 0 -%}
{%- for message in messages[start_idx:] -%}
  {%- set msg_index = loop.index0 + start_idx -%}
  {%- if message.role == "user" -%}
    <｜User｜>{{ message.content }}<｜Assistant｜>
    {%- if msg_index == last_user_index.value and enable_thinking -%}
      {{ "<think>" }}
    {%- else -%}
      {{ "</think>" }}
    {%- endif -%}
  {%- elif message.role == "tool" -%}
    {%- if messages[msg_index - 1].role != "tool" -%}
      {{ "\n\n" }}<function_results>
    {%- endif -%}
    {{ "\n" }}<result>{{ message.content }}</result>
    {%- if loop.last or messages[msg_index + 1].role != "tool" -%}
      {{ "\n" }}</function_results>
      {%- if msg_index >= last_user_index.value and enable_thinking -%}
        {{ "\n\n" }}{{ "<think>" }}
      {%- else -%}
        {{ "\n\n" }}{{ "</think>" }}
      {%- endif -%}
    {%- endif -%}
  {%- elif message.role == "assistant" -%}
    {%- if enable_thinking and msg_index > last_user_index.value -%}
      {{ message.get('reasoning_content', '') }}{{ "</think>" }}
    {%- endif -%}
    {{ message.get('content', '') }}
    {%- if message.get('tool_calls') -%}
      {{ "\n\n" }}<calls>
      {%- for tool_call in message.tool_calls -%}
        {{ "\n" }}<invoke name="{{ tool_call.function.name }}">{{ tool_call.function.arguments | tojson }}</invoke>
      {%- endfor -%}
      {{ "\n" }}</calls>
    {%- endif -%}
    {{ eos_token }}
  {%- endif -%}
{%- endfor -%}
""",
    ("<｜User｜>", "<｜Assistant｜>", "<think>", "</think>"),
    "<｜User｜>a<｜Assistant｜></think>",
    "</s>",
)

_CALL = '<｜tool▁call▁begin｜>function<｜tool▁sep｜>add\n```json\n{"a": 1, "b": 2}\n```<｜tool▁call▁end｜>'
_CALL_2 = '<｜tool▁call▁begin｜>function<｜tool▁sep｜>add\n```json\n{"a": 3, "b": 4}\n```<｜tool▁call▁end｜>'
_TOOLS = {
    "tool": [f"<｜tool▁calls▁begin｜>{_CALL}<｜tool▁calls▁end｜></s>", "It is 3.</s>"],
    "tool words": [f"Let me see.<｜tool▁calls▁begin｜>{_CALL}<｜tool▁calls▁end｜></s>", "It is 3.</s>"],
    "tool then more": [f"<｜tool▁calls▁begin｜>{_CALL}<｜tool▁calls▁end｜></s>", "It is 3.</s>", "see you</s>"],
    "parallel": [f"<｜tool▁calls▁begin｜>{_CALL}\n{_CALL_2}<｜tool▁calls▁end｜></s>", "3 and 7.</s>"],
}
_SHORT = '<｜tool▁call▁begin｜>add<｜tool▁sep｜>{"a": 1, "b": 2}<｜tool▁call▁end｜>'
_SHORT_2 = '<｜tool▁call▁begin｜>add<｜tool▁sep｜>{"a": 3, "b": 4}<｜tool▁call▁end｜>'

_ANSWERS = {
    "single": ["hello</s>"],
    "multi": ["hello</s>", "see you</s>"],
    "system": ["hello</s>", "see you</s>"],
    "same": ["same</s>", "same</s>"],
    "empty": ["</s>", "d</s>"],
    "empty last": ["b</s>", "</s>"],
    "blank": [" \n </s>", "d</s>"],
    "padded": ["  b \n</s>", "\n d</s>"],
    "open": ["b</s>"],
    "parts": ["cd</s>", "d</s>"],
}

_INVOKE = '<invoke name="add">{"a": 1, "b": 2}</invoke>'

CASES = [
    *cases(
        V32,
        {
            # Earlier questions write `</think>`; as the last message they would have written `<think>`.
            "single": ["</think>hello</s>"],
            "multi": OrQuarantined(["hello</s>", "</think>see you</s>"]),
            "system": OrQuarantined(["hello</s>", "</think>see you</s>"]),
            "same": OrQuarantined(["same</s>", "</think>same</s>"]),
            "empty": OrQuarantined(["</s>", "</think>d</s>"]),
            "reasoning": OrQuarantined(["b</s>", "ho</think>d</s>"]),
            "tool thought": [f"hm</think>\n\n<calls>\n{_INVOKE}\n</calls></s>", "ho</think>It is 3.</s>"],
            "tool last": [f"hm</think>\n\n<calls>\n{_INVOKE}\n</calls></s>"],
        },
    ),
    *cases(
        V2,
        {
            "single": [" hello</s>"],
            "multi": [" hello</s>", " see you</s>"],
            "system": [" hello</s>", " see you</s>"],
            "same": [" same</s>", " same</s>"],
            "empty": [" </s>", " d</s>"],
            "empty last": [" b</s>", " </s>"],
            "blank": ["  \n </s>", " d</s>"],
            "padded": ["   b \n</s>", " \n d</s>"],
            "twice": [" b</s>", " c</s>"],
            "first": [" b</s>", " d</s>"],
            "open": [" b</s>"],
            "parts": [" cd</s>", " d</s>"],
            "lookalike": [" Assistant: x</s>", " d</s>e</s>"],
        },
    ),
    *cases(
        V3,
        {
            **_ANSWERS,
            **_TOOLS,
            "twice": ["b</s>", "c</s>"],
            "first": ["b</s>", "d</s>"],
            "lookalike": ["<｜Assistant｜>x</s>", "d</s>e</s>"],
            "think": ["<think>\nhm\n</think>\n\nb</s>", "<think>\nho\n</think>\n\nd</s>"],
        },
    ),
    *cases(
        R1,
        {
            "thought and stop": ["\n\nb</s></s>"],
            **_ANSWERS,
            **_TOOLS,
            "twice": ["b</s>", "c</s>"],
            "first": ["b</s>", "d</s>"],
            "lookalike": ["<｜Assistant｜>x</s>", "d</s>e</s>"],
            "mimic": ["<｜Assistant｜></s>", "</s></s>"],
            "think": ["\n\nb</s>", "\n\nd</s>"],
        },
    ),
    *cases(
        V31,
        {
            **_ANSWERS,
            "lookalike": ["x</s>", "d</s>e</s>"],  # the content is split at `</think>`
            "mimic": ["</s>", "</s></s>"],
            "twice": ["b</s>", "c</s>"],
            "first": ["b</s>", "d</s>"],
            "think": ["\n\nb</s>", "\n\nd</s>"],
            "tool": [f"<｜tool▁calls▁begin｜>{_SHORT}<｜tool▁calls▁end｜></s>", "It is 3.</s>"],
            "tool words": [f"Let me see.<｜tool▁calls▁begin｜>{_SHORT}<｜tool▁calls▁end｜></s>", "It is 3.</s>"],
            "tool then more": [
                f"<｜tool▁calls▁begin｜>{_SHORT}<｜tool▁calls▁end｜></s>",
                "It is 3.</s>",
                "see you</s>",
            ],
            "parallel": [f"<｜tool▁calls▁begin｜>{_SHORT}{_SHORT_2}<｜tool▁calls▁end｜></s>", "3 and 7.</s>"],
        },
    ),
]
