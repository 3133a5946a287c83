"""GLM, Kimi and MiniMax: no stop token, or special tokens for everything."""

from __future__ import annotations

from template_zoo.conversations import TWO_TURNS, Conversation
from template_zoo.model import Case, OrQuarantined, Style, cases

# GLM-4: each role is a token, metadata before the content, messages without content are not written, no stop token.
GLM4 = Style(
    "glm4",
    r"""[gMASK]<sop>{% for item in messages %}{% if item['tools'] is defined %}<|system|>
{% for tool in item['tools'] %}{{ tool | tojson }}{% endfor %}{% endif %}{% if item['content'] %}<|{{ item['role'] }}|>{{ item['metadata'] }}
{{ item['content'] }}{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}""",
    ("[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"),
    "<|assistant|>\n",
    "<|user|>\n",
)

# GLM-4.5 and 4.6: every turn has reasoning, empty in earlier turns; XML calls with literal text between expressions.
GLM45 = Style(
    "glm4.5",
    r"""[gMASK]<sop>
{%- if tools -%}
<|system|>
# Tools
<tools>
{% for tool in tools %}
{{ tool | tojson(ensure_ascii=False) }}
{% endfor %}
</tools>{%- endif -%}
{%- macro visible_text(content) -%}
    {%- if content is string -%}
        {{- content }}
    {%- elif content is iterable and content is not mapping -%}
        {%- for item in content -%}
            {%- if item is mapping and item.type == 'text' -%}
                {{- item.text }}
            {%- elif item is string -%}
                {{- item }}
            {%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{- content }}
    {%- endif -%}
{%- endmacro -%}
{%- set ns = namespace(last_user_index=-1) %}
{%- for m in messages %}
    {%- if m.role == 'user' %}
        {% set ns.last_user_index = loop.index0 -%}
    {%- endif %}
{%- endfor %}
{% for m in messages %}
{%- if m.role == 'user' -%}<|user|>
{{ visible_text(m.content) }}
{{- '/nothink' if (enable_thinking is defined and not enable_thinking and not visible_text(m.content).endswith("/nothink")) else '' -}}
{%- elif m.role == 'assistant' -%}
<|assistant|>
{%- set reasoning_content = '' %}
{%- set content = visible_text(m.content) %}
{%- if m.reasoning_content is string %}
    {%- set reasoning_content = m.reasoning_content %}
{%- else %}
    {%- if '</think>' in content %}
        {%- set reasoning_content = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
        {%- set content = content.split('</think>')[-1].lstrip('\n') %}
    {%- endif %}
{%- endif %}
{%- if loop.index0 > ns.last_user_index and reasoning_content -%}
{{ '\n<think>' + reasoning_content.strip() +  '</think>'}}
{%- else -%}
{{ '\n<think></think>' }}
{%- endif -%}
{%- if content.strip() -%}
{{ '\n' + content.strip() }}
{%- endif -%}
{% if m.tool_calls %}
{% for tc in m.tool_calls %}
{%- if tc.function %}
    {%- set tc = tc.function %}
{%- endif %}
{{ '\n<tool_call>' + tc.name }}
{% set _args = tc.arguments or {} %}
{% for k, v in _args.items() %}
<arg_key>{{ k }}</arg_key>
<arg_value>{{ v | tojson(ensure_ascii=False) if v is not string else v }}</arg_value>
{% endfor %}
</tool_call>{% endfor %}
{% endif %}
{%- elif m.role == 'tool' -%}
{%- if m.content is string -%}
{%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}
    {{- '<|observation|>' }}
{%- endif %}
{{- '\n<tool_response>\n' }}
{{- m.content }}
{{- '\n</tool_response>' }}
{%- endif %}
{%- elif m.role == 'system' -%}
<|system|>
{{ visible_text(m.content) }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    <|assistant|>{{- '\n<think></think>' if (enable_thinking is defined and not enable_thinking) else '' -}}
{%- endif -%}
""",
    ("[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>", "<tool_call>", "</tool_call>"),
    "<|assistant|>\n<think></think>\n",
    "<|user|>\n",
    content="both",
)

# GLM-4.7: the same, with a prompt that always opens the reasoning, and only </think> in earlier turns.
GLM47 = Style(
    "glm4.7",
    r"""[gMASK]<sop>
{%- set ns = namespace(last_user_index=-1) %}
{%- for m in messages %}
    {%- if m.role == 'user' %}
        {%- set ns.last_user_index = loop.index0 %}
    {%- endif %}
{%- endfor %}
{%- for m in messages %}
{%- if m.role == 'user' -%}
<|user|>{{ m.content }}
{%- elif m.role == 'assistant' -%}
<|assistant|>
{%- set reasoning_content = m.reasoning_content if m.reasoning_content is string else '' %}
{%- if loop.index0 > ns.last_user_index and reasoning_content -%}
{{ '<think>' + reasoning_content.strip() + '</think>' }}
{%- else -%}
{{ '</think>' }}
{%- endif -%}
{%- if m.content.strip() -%}
{{ m.content.strip() }}
{%- endif -%}
{%- elif m.role == 'system' -%}
<|system|>{{ m.content }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
<|assistant|>{{ '</think>' if (enable_thinking is defined and not enable_thinking) else '<think>' }}
{%- endif -%}
""",
    ("[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<think>", "</think>"),
    "<|assistant|></think>",
    "<|user|>",
)

# Kimi K2: the header depends on the role, the content is written separately; calls in sections of tokens.
KIMI = Style(
    "kimi-k2",
    r"""{% if tools -%}
    {{ '<|im_system|>tool_declare<|im_middle|>' -}}
    {{- tools | tojson -}}
    {{ '<|im_end|>' -}}
{%- endif -%}
{%- for message in messages -%}
  {%- if loop.first and messages[0]['role'] != 'system' -%}
    {{ '<|im_system|>system<|im_middle|>You are a helpful assistant<|im_end|>' }}
  {%- endif -%}
  {%- if message['role'] == 'system' -%}
    {{ '<|im_system|>system<|im_middle|>' }}
  {%- elif message['role'] == 'user' -%}
    {{ '<|im_user|>user<|im_middle|>' }}
  {%- elif message['role'] == 'assistant' -%}
    {{ '<|im_assistant|>assistant<|im_middle|>' }}
  {%- elif message['role'] == 'tool' -%}
    {{ '<|im_system|>tool<|im_middle|>' }}
  {%- endif -%}
  {%- if message['role'] == 'tool' -%}
    {{- '## Return of ' + message['tool_call_id'] + '\n' -}}
  {%- endif -%}
  {%- if message['content'] is string -%}
    {{- message['content'] -}}
  {%- elif message['content'] is not none -%}
    {%- for content in message['content'] -%}
      {%- if content['type'] == 'image' or 'image' in content or 'image_url' in content -%}
        {{ '<|media_start|>image<|media_content|><|media_pad|><|media_end|>' }}
      {%- else -%}
        {{ content['text'] }}
      {%- endif -%}
    {%- endfor -%}
  {%- endif -%}
  {%- if message['tool_calls'] -%}
    {{- '<|tool_calls_section_begin|>' -}}
    {%- for tool_call in message['tool_calls'] -%}
      {{- '<|tool_call_begin|>' + tool_call['id'] + '<|tool_call_argument_begin|>' -}}
      {%- if tool_call['function']['arguments'] is string -%}
        {{ tool_call['function']['arguments'] }}
      {%- else -%}
        {{ tool_call['function']['arguments'] | tojson }}
      {%- endif -%}
      {{- '<|tool_call_end|>' -}}
    {%- endfor -%}
    {{- '<|tool_calls_section_end|>' -}}
  {%- endif -%}
  {{- '<|im_end|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{ '<|im_assistant|>assistant<|im_middle|>' }}
{%- endif -%}
""",
    ("<|im_end|>", "<|im_system|>", "<|im_user|>", "<|im_assistant|>", "<|im_middle|>", "<|tool_calls_section_end|>"),
    "<|im_assistant|>assistant<|im_middle|>",
    "<|im_end|>",
    content="both",
)

# Kimi K2 Thinking: two loops, over the history and over the messages after the last answer without calls.
KIMI_THINKING = Style(
    "kimi-thinking",
    r"""{%- macro set_roles(message) -%}
  {%- if message['role'] == 'user' -%}
    <|im_user|>user<|im_middle|>
  {%- elif message['role'] == 'assistant' -%}
    <|im_assistant|>assistant<|im_middle|>
  {%- else -%}
    <|im_system|>{{ message['role'] }}<|im_middle|>
  {%- endif -%}
{%- endmacro -%}
{%- macro render_toolcalls(message) -%}
  <|tool_calls_section_begin|>
  {%- for tool_call in message['tool_calls'] -%}
    <|tool_call_begin|>{{ tool_call['id'] }}<|tool_call_argument_begin|>{{ tool_call['function']['arguments'] | tojson }}<|tool_call_end|>
  {%- endfor -%}
  <|tool_calls_section_end|>
{%- endmacro -%}
{%- set ns = namespace(last_non_tool_call_assistant_msg=-1) -%}
{%- for idx in range(messages|length-1, -1, -1) -%}
    {%- if messages[idx]['role'] == 'assistant' and not messages[idx].get('tool_calls') and ns.last_non_tool_call_assistant_msg == -1 -%}
        {%- set ns.last_non_tool_call_assistant_msg = idx -%}
    {%- endif -%}
{%- endfor -%}
{%- set hist_msgs = messages[:ns.last_non_tool_call_assistant_msg+1] -%}
{%- set suffix_msgs = messages[ns.last_non_tool_call_assistant_msg+1:] -%}
{%- if tools -%}
  <|im_system|>tool_declare<|im_middle|>{{ tools | tojson }}<|im_end|>
{%- endif -%}
{%- for message in hist_msgs -%}
  {{set_roles(message)}}
  {%- if message['role'] == 'assistant' -%}
    <think></think>{{ message['content'] or '' }}
    {%- if message.get('tool_calls') -%}
      {{render_toolcalls(message)}}
    {%- endif -%}
  {%- elif message['role'] == 'tool' -%}
    ## Return of {{ message['tool_call_id'] }}
{{ message['content'] }}
  {%- elif message['content'] is not none -%}
    {{ message['content'] }}
  {%- endif -%}
  <|im_end|>
{%- endfor -%}
{%- for message in suffix_msgs -%}
  {{set_roles(message)}}
  {%- if message['role'] == 'assistant' -%}
    {%- set rc = message.get('reasoning_content', '') -%}
    <think>{{rc}}</think>{{ message['content'] or '' }}
    {%- if message.get('tool_calls') -%}
      {{render_toolcalls(message)}}
    {%- endif -%}
  {%- elif message['role'] == 'tool' -%}
    ## Return of {{ message['tool_call_id'] }}
{{ message['content'] }}
  {%- elif message['content'] is not none -%}
    {{ message['content'] }}
  {%- endif -%}
  <|im_end|>
{%- endfor -%}
{%- if add_generation_prompt -%}
  <|im_assistant|>assistant<|im_middle|>
{%- endif -%}
""",
    ("<|im_end|>", "<|im_system|>", "<|im_user|>", "<|im_assistant|>", "<|im_middle|>", "<|tool_calls_section_end|>"),
    "<|im_assistant|>assistant<|im_middle|>",
    "<|im_end|>",
)

# MiniMax M2: tokens in brackets, `ai` for assistant, the prompt opens the reasoning, XML calls on separate lines.
MINIMAX = Style(
    "minimax-m2",
    r"""{%- set toolcall_begin_token   = '<minimax:tool_call>'         -%}
{%- set toolcall_end_token     = '</minimax:tool_call>'        -%}
{%- macro visible_text(content) -%}
    {%- if content is string -%}
        {{ content }}
    {%- elif content is iterable and content is not mapping -%}
        {%- for item in content -%}
            {%- if item is mapping and item.type == 'text' -%}
                {{- item.text }}
            {%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{- content }}
    {%- endif -%}
{%- endmacro -%}
{%- set system_message = none -%}
{%- set conversation_messages = messages -%}
{%- if messages and messages[0].role == "system" -%}
    {%- set system_message = messages[0] -%}
    {%- set conversation_messages = messages[1:] -%}
{%- endif -%}
{%- set ns = namespace(last_user_index=-1) %}
{% for m in conversation_messages %}
    {%- if m.role == 'user' %}
        {% set ns.last_user_index = loop.index0 -%}
    {%- endif %}
{%- endfor %}
{{- ']~!b[' ~ ']~b]system' ~ '\n' }}
{{- visible_text(system_message.content) if system_message else 'You are a helpful assistant.' }}
{%- if tools -%}
    {{- '\n\n# Tools\n' }}
    {%- for tool in tools -%}
        <tool>{{ tool.function | tojson | string }}</tool>
    {% endfor -%}
{%- endif -%}
{{- '[e~[\n' }}
{%- set last_tool_call = namespace(name=none) -%}
{%- for message in conversation_messages -%}
    {%- if message.role == 'assistant' -%}
        {#- Only render reasoning_content if no user message follows -#}
        {{- ']~b]ai' ~ '\n' }}
        {%- set reasoning_content = '' %}
        {%- set content = visible_text(message.content) %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning_content = message.reasoning_content %}
        {%- else %}
            {%- if '</think>' in content %}
                {%- set reasoning_content = content.split('</think>')[0].strip('\n').split('<think>')[-1].strip('\n') %}
                {%- set content = content.split('</think>')[-1].strip('\n') %}
            {%- endif %}
        {%- endif %}
        {%- if reasoning_content and loop.index0 > ns.last_user_index -%}
            {{- '<think>' ~ '\n' ~ reasoning_content ~ '\n' ~ '</think>' ~ '\n\n' }}
        {%- endif -%}
        {%- if content -%}
            {{- content }}
        {%- endif -%}
        {%- if message.tool_calls -%}
            {{- '\n' ~ toolcall_begin_token ~ '\n' }}
            {%- for tool_call in message.tool_calls -%}
                {%- if tool_call.function %}
                    {%- set tool_call = tool_call.function %}
                {%- endif %}
                {{- '<invoke name="' + tool_call.name + '">' }}
                {%- set _args = tool_call.arguments %}
                {%- for k, v in _args.items() %}
                {{- '\n<parameter name="' + k + '">' }}
                {{- v | tojson(ensure_ascii=False) if v is not string else v }}
                {{- '</parameter>' }}
                {%- endfor %}
                {{- '\n</invoke>' ~ '\n' }}
            {%- endfor -%}
            {{- toolcall_end_token}}
            {%- set last_tool_call.name = message.tool_calls[-1].name -%}
        {%- else -%}
            {%- set last_tool_call.name = none -%}
        {%- endif -%}
        {{- '[e~[' ~ '\n' }}
    {%- elif message.role == 'tool' -%}
        {%- if loop.first or (conversation_messages[loop.index0 - 1].role != 'tool') -%}
            {{- ']~b]tool' }}
        {%- endif -%}
        {{- '\n<response>' ~ message.content ~ '</response>' }}
        {%- if loop.last or (conversation_messages[loop.index0 + 1].role != 'tool') -%}
            {{- '[e~[\n' -}}
        {%- endif -%}
    {%- elif message.role == 'user' -%}
        {{- ']~b]user' ~ '\n' }}
        {{- visible_text(message.content) }}
        {{- '[e~[' ~ '\n' }}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- ']~b]ai' ~ '\n' ~ '<think>' ~ '\n' }}
{%- endif -%}
""",
    ("]~!b[", "]~b]", "[e~[", "<think>", "</think>"),
    "]~b]ai\n",
    "[e~[\n",
    content="both",
)
_ARGS = "<arg_key>a</arg_key>\n<arg_value>1</arg_value>\n<arg_key>b</arg_key>\n<arg_value>2</arg_value>\n"
_ARGS_2 = "<arg_key>a</arg_key>\n<arg_value>3</arg_value>\n<arg_key>b</arg_key>\n<arg_value>4</arg_value>\n"
_GLM_CALL = f"\n<tool_call>add\n{_ARGS}</tool_call>"
_GLM_CALL_2 = f"\n<tool_call>add\n{_ARGS_2}</tool_call>"
_KIMI_CALL = '<|tool_call_begin|>call00001<|tool_call_argument_begin|>{"a": 1, "b": 2}<|tool_call_end|>'
_KIMI_CALL_2 = '<|tool_call_begin|>call00002<|tool_call_argument_begin|>{"a": 3, "b": 4}<|tool_call_end|>'
_KIMI_ONE = f"<|tool_calls_section_begin|>{_KIMI_CALL}<|tool_calls_section_end|><|im_end|>"
_KIMI_TWO = f"<|tool_calls_section_begin|>{_KIMI_CALL}{_KIMI_CALL_2}<|tool_calls_section_end|><|im_end|>"
_INVOKE = '<invoke name="add">\n<parameter name="a">1</parameter>\n<parameter name="b">2</parameter>\n</invoke>\n'
_INVOKE_2 = '<invoke name="add">\n<parameter name="a">3</parameter>\n<parameter name="b">4</parameter>\n</invoke>\n'

_THINKING_OFF = Conversation(TWO_TURNS, variables={"enable_thinking": False})

CASES = [
    Case(GLM45, "thinking off", _THINKING_OFF, ["\nhello", "\nsee you"]),
    Case(GLM47, "thinking off", _THINKING_OFF, ["hello", "see you"]),
    *cases(
        GLM4,
        {
            "single": ["\nhello"],
            "multi": ["\nhello", "\nsee you"],
            "system": ["\nhello", "\nsee you"],
            "same": ["\nsame", "\nsame"],
            "empty": OrQuarantined(["\nd"]),
            "empty last": OrQuarantined(["\nb"]),
            "blank": ["\n \n ", "\nd"],
            "padded": ["\n  b \n", "\n\n d"],
            "twice": ["\nb", "\nc"],
            "first": ["\nb", "\nd"],
            "open": ["\nb"],
            "lookalike": ["\n<|assistant|>\nx", "\nd<|user|>\ne"],
            "mimic": ["\n<|assistant|>\n", "\n<|user|>\n"],
        },
    ),
    *cases(
        GLM45,
        {
            "single": ["\n<think></think>\nhello"],
            "multi": ["\n<think></think>\nhello", "\n<think></think>\nsee you"],
            "system": ["\n<think></think>\nhello", "\n<think></think>\nsee you"],
            "same": ["\n<think></think>\nsame", "\n<think></think>\nsame"],
            "empty": ["\n<think></think>", "\n<think></think>\nd"],
            "empty last": ["\n<think></think>\nb", "\n<think></think>"],
            "blank": ["\n<think></think>", "\n<think></think>\nd"],
            "padded": ["\n<think></think>\nb", "\n<think></think>\nd"],
            "twice": ["\n<think></think>\nb", "\n<think></think>\nc"],
            "first": ["\n<think></think>\nb", "\n<think></think>\nd"],
            "open": ["\n<think></think>\nb"],
            "parts": ["\n<think></think>\ncd", "\n<think></think>\nd"],
            "think": ["\n<think></think>\nb", "\n<think>ho</think>\nd"],
            "reasoning": ["\n<think></think>\nb", "\n<think>ho</think>\nd"],
            "thinking": ["\n<think></think>\nb", "\n<think>ho</think>\nd"],
            "tool": ["\n<think></think>" + _GLM_CALL, "\n<think></think>\nIt is 3."],
            "tool words": ["\n<think></think>\nLet me see." + _GLM_CALL, "\n<think></think>\nIt is 3."],
            "tool thought": ["\n<think>hm</think>" + _GLM_CALL, "\n<think>ho</think>\nIt is 3."],
            "tool last": ["\n<think>hm</think>" + _GLM_CALL],
            "tool then more": [
                "\n<think></think>" + _GLM_CALL,
                "\n<think></think>\nIt is 3.",
                "\n<think></think>\nsee you",
            ],
            "parallel": ["\n<think></think>" + _GLM_CALL + _GLM_CALL_2, "\n<think></think>\n3 and 7."],
        },
    ),
    *cases(
        GLM47,
        {
            # The prompt without thinking ends like the beginning of these turns.
            "single": ["hello"],
            "multi": ["hello", "see you"],
            "system": ["hello", "see you"],
            "same": ["same", "same"],
            "empty": ["d"],
            "padded": ["b", "d"],
            "open": ["b"],
            "lookalike": ["<|assistant|></think>x", "d<|user|>e"],
            "reasoning": ["b", "ho</think>d"],
        },
    ),
    *cases(
        KIMI,
        {
            "single": ["hello<|im_end|>"],
            "multi": ["hello<|im_end|>", "see you<|im_end|>"],
            "system": ["hello<|im_end|>", "see you<|im_end|>"],
            "same": ["same<|im_end|>", "same<|im_end|>"],
            "empty": ["<|im_end|>", "d<|im_end|>"],
            "blank": [" \n <|im_end|>", "d<|im_end|>"],
            "padded": ["  b \n<|im_end|>", "\n d<|im_end|>"],
            "twice": ["b<|im_end|>", "c<|im_end|>"],
            "first": ["b<|im_end|>", "d<|im_end|>"],
            "open": ["b<|im_end|>"],
            "parts": ["cd<|im_end|>", "d<|im_end|>"],
            "lookalike": ["<|im_assistant|>assistant<|im_middle|>x<|im_end|>", "d<|im_end|>e<|im_end|>"],
            "tool": [_KIMI_ONE, "It is 3.<|im_end|>"],
            "tool null": [_KIMI_ONE, "It is 3.<|im_end|>"],
            "tool words": ["Let me see." + _KIMI_ONE, "It is 3.<|im_end|>"],
            "parallel": [_KIMI_TWO, "3 and 7.<|im_end|>"],
        },
    ),
    *cases(
        KIMI_THINKING,
        {
            "single": ["<think></think>hello<|im_end|>"],
            "multi": ["<think></think>hello<|im_end|>", "<think></think>see you<|im_end|>"],
            "system": ["<think></think>hello<|im_end|>", "<think></think>see you<|im_end|>"],
            "same": ["<think></think>same<|im_end|>", "<think></think>same<|im_end|>"],
            "empty": ["<think></think><|im_end|>", "<think></think>d<|im_end|>"],
            "padded": ["<think></think>  b \n<|im_end|>", "<think></think>\n d<|im_end|>"],
            "open": ["<think></think>b<|im_end|>"],
            "reasoning": ["<think></think>b<|im_end|>", "<think></think>d<|im_end|>"],
            "tool": ["<think></think>" + _KIMI_ONE, "<think></think>It is 3.<|im_end|>"],
            "tool last": ["<think>hm</think>" + _KIMI_ONE],
        },
    ),
    *cases(
        MINIMAX,
        {
            "thought and stop": ["h\n</think>\n\nb[e~[[e~["],
            "stop in reasoning": ["h[e~[\n\n</think>\n\n[e~["],
            "single": ["hello[e~["],
            "multi": ["hello[e~[", "see you[e~["],
            "system": ["hello[e~[", "see you[e~["],
            "same": ["same[e~[", "same[e~["],
            "empty": ["[e~[", "d[e~["],
            "blank": [" \n [e~[", "d[e~["],
            "padded": ["  b \n[e~[", "\n d[e~["],
            "twice": ["b[e~[", "c[e~["],
            "first": ["b[e~[", "d[e~["],
            "open": ["b[e~["],
            "parts": ["cd[e~[", "d[e~["],
            "lookalike": ["]~b]ai\nx[e~[", "d[e~[\ne[e~["],
            "think": ["b[e~[", "ho\n</think>\n\nd[e~["],
            "reasoning": ["b[e~[", "ho\n</think>\n\nd[e~["],
            "tool": [f"\n<minimax:tool_call>\n{_INVOKE}</minimax:tool_call>[e~[", "It is 3.[e~["],
            "tool words": [f"Let me see.\n<minimax:tool_call>\n{_INVOKE}</minimax:tool_call>[e~[", "It is 3.[e~["],
            "tool thought": [
                f"hm\n</think>\n\n\n<minimax:tool_call>\n{_INVOKE}</minimax:tool_call>[e~[",
                "ho\n</think>\n\nIt is 3.[e~[",
            ],
            "parallel": [f"\n<minimax:tool_call>\n{_INVOKE}{_INVOKE_2}</minimax:tool_call>[e~[", "3 and 7.[e~["],
        },
    ),
]
