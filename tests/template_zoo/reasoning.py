"""Reasoning models: channels, separate fields for reasoning, prompts that close empty reasoning."""

from __future__ import annotations

from template_zoo.conversations import Conversation, assistant, user
from template_zoo.model import Case, OrQuarantined, Style, cases

# gpt-oss (harmony): channels, reasoning in `thinking`, <|return|> in the last turn, <|call|> after a call; a turn can be
# two messages of the format.
HARMONY = Style(
    "gpt-oss",
    r"""{%- macro render_tools(tools) %}
    {{- "namespace functions {\n\n" }}
    {%- for tool in tools %}
        {{- "// " + tool.function.description + "\ntype " + tool.function.name + " = (_: any) => any;\n\n" }}
    {%- endfor %}
    {{- "} // namespace functions" }}
{%- endmacro -%}
{{- "<|start|>system<|message|>You are ChatGPT.\n\n# Valid channels: analysis, commentary, final.<|end|>" }}
{%- if messages[0].role == "developer" or messages[0].role == "system" %}
    {%- set developer_message = messages[0].content %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set developer_message = "" %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- if developer_message or tools %}
    {{- "<|start|>developer<|message|>" }}
    {%- if developer_message %}
        {{- "# Instructions\n\n" + developer_message + "\n\n" }}
    {%- endif %}
    {%- if tools -%}
        {{- "# Tools\n\n" + render_tools(tools) }}
    {%- endif -%}
    {{- "<|end|>" }}
{%- endif %}
{%- set last_tool_call = namespace(name=none) %}
{%- for message in loop_messages -%}
    {%- if message.role == 'assistant' -%}
        {%- if "content" in message and message.content and "<|channel|>analysis<|message|>" in message.content %}
            {{- raise_exception("You have passed a message containing <|channel|> tags in the content field.") }}
        {%- endif %}
        {%- if "tool_calls" in message %}
            {%- set future_final_message = namespace(found=false) %}
            {%- for future_message in loop_messages[loop.index:] %}
                {%- if future_message.role == 'assistant' and "tool_calls" not in future_message %}
                    {%- set future_final_message.found = true %}
                {%- endif %}
            {%- endfor %}
            {%- set tool_call = message.tool_calls[0] %}
            {%- if tool_call.function %}
                {%- set tool_call = tool_call.function %}
            {%- endif %}
            {%- if message.content and message.thinking %}
                {{- raise_exception("Cannot pass both content and thinking in an assistant message with tool calls!") }}
            {%- elif message.content and not future_final_message.found %}
                {{- "<|start|>assistant<|channel|>analysis<|message|>" + message.content + "<|end|>" }}
            {%- elif message.thinking and not future_final_message.found %}
                {{- "<|start|>assistant<|channel|>analysis<|message|>" + message.thinking + "<|end|>" }}
            {%- endif %}
            {{- "<|start|>assistant to=" }}
            {{- "functions." + tool_call.name + "<|channel|>commentary " }}
            {{- (tool_call.content_type if tool_call.content_type is defined else "json") + "<|message|>" }}
            {{- tool_call.arguments|tojson }}
            {{- "<|call|>" }}
            {%- set last_tool_call.name = tool_call.name %}
        {%- elif loop.last and not add_generation_prompt %}
            {%- if "thinking" in message %}
                {{- "<|start|>assistant<|channel|>analysis<|message|>" + message.thinking + "<|end|>" }}
            {%- endif %}
            {{- "<|start|>assistant<|channel|>final<|message|>" + message.content + "<|return|>" }}
        {%- else %}
            {{- "<|start|>assistant<|channel|>final<|message|>" + message.content + "<|end|>" }}
            {%- set last_tool_call.name = none %}
        {%- endif %}
    {%- elif message.role == 'tool' -%}
        {%- if last_tool_call.name is none %}
            {{- raise_exception("Message has tool role, but there was no previous tool call!") }}
        {%- endif %}
        {{- "<|start|>functions." + last_tool_call.name }}
        {{- " to=assistant<|channel|>commentary<|message|>" + message.content|tojson + "<|end|>" }}
    {%- elif message.role == 'user' -%}
        {{- "<|start|>user<|message|>" + message.content + "<|end|>" }}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
<|start|>assistant
{%- endif -%}
""",
    ("<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|call|>", "<|return|>"),
    "<|start|>assistant<|channel|>final<|message|>",
    "<|end|>",
)

# ERNIE 4.5: words as headers, default tokens in the template if the tokenizer has none.
ERNIE = Style(
    "ernie4.5",
    r"""{%- if not add_generation_prompt is defined -%}
    {%- set add_generation_prompt = true -%}
{%- endif -%}
{%- if not cls_token is defined -%}
    {%- set cls_token = "<|begin_of_sentence|>" -%}
{%- endif -%}
{{- cls_token -}}
{%- for message in messages -%}
    {%- if message["role"] == "user" -%}
        {{- "User: " + message["content"] + "
" -}}
    {%- elif message["role"] == "assistant" -%}
        {{- "Assistant: " + message["content"] + eos_token -}}
    {%- elif message["role"] == "system" -%}
        {{- message["content"] + "
" -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- "Assistant: " -}}
{%- endif -%}""",
    ("<|begin_of_sentence|>",),
    "Assistant: ",
    "</s>",
)

# Seed-OSS: tokens set by the template, line ends before contents, an empty answer is only a header.
SEED = Style(
    "seed-oss",
    r"""{# special token variables #}
{%- set bos_token              = '<seed:bos>'               -%}
{%- set eos_token              = '<seed:eos>'               -%}
{%- set toolcall_begin_token   = '<seed:tool_call>'         -%}
{%- set toolcall_end_token     = '</seed:tool_call>'        -%}
{%- set think_begin_token      = '<seed:think>'             -%}
{%- set think_end_token        = '</seed:think>'            -%}
{%- if not thinking_budget is defined %}
{%- set thinking_budget = -1 -%}
{%- endif -%}
{%- if messages[0]["role"] == "system" %}
{%- set system_message = messages[0]["content"] %}
{%- set loop_messages = messages[1:] %}
{%- else %}
{%- set loop_messages = messages %}
{%- endif %}
{%- if not tools is defined or tools is none %}
{%- set tools = [] %}
{%- endif %}
{%- if system_message is defined %}
{{ bos_token + "system\n" + system_message }}
{%- elif tools is iterable and tools | length > 0 %}
{{ bos_token + "system\nYou may call functions." }}
{%- endif %}
{%- for item in tools if item.type == "function" %}


Function:
def {{ item.function.name }}(
{%- for name, spec in item.function.parameters.properties.items() %}
        {{- name }}: {{ spec.type }}{% if not loop.last %},{% endif %}
{%- endfor %}):
{%- endfor %}
{%- if system_message is defined or tools | length > 0 %}
{{ eos_token }}
{%- endif %}
{%- for message in loop_messages %}
{%- if message.role == "assistant"
  and message.tool_calls is defined
  and message.tool_calls is iterable
  and message.tool_calls | length > 0 %}
{{ bos_token + message.role }}
{%- if message.reasoning_content is defined and message.reasoning_content is string and message.reasoning_content | trim | length > 0 %}
{{ "\n" + think_begin_token + message.reasoning_content | trim + think_end_token }}
{%- endif %}
{%- if message.content is defined and message.content is string and message.content | trim | length > 0 %}
{{ "\n" + message.content | trim + "\n" }}
{%- endif %}
{%- for tool_call in message.tool_calls %}
{%- if tool_call.function is defined %}{% set tool_call = tool_call.function %}{% endif %}
{{ "\n" + toolcall_begin_token + "\n<function=" + tool_call.name + ">\n" }}
{%- if tool_call.arguments is defined %}
{%- for arg_name, arg_value in tool_call.arguments | items %}
{{ "<parameter=" + arg_name + ">" }}
{%- set arg_value = arg_value if arg_value is string else arg_value | string %}
{{ arg_value+"</parameter>\n" }}
{%- endfor %}
{%- endif %}
{{ "</function>\n" + toolcall_end_token }}
{%- endfor %}
{{ eos_token }}
{%- elif message.role in ["user", "system"] %}
{{ bos_token + message.role + "\n" + message.content + eos_token }}
{%- elif message.role == "assistant" %}
{{ bos_token + message.role }}
{%- if message.reasoning_content is defined and message.reasoning_content is string and message.reasoning_content | trim | length > 0 %}
{{ "\n" + think_begin_token + message.reasoning_content | trim + think_end_token }}
{%- endif %}
{%- if message.content is defined and message.content is string and message.content | trim | length > 0 %}
{{ "\n" + message.content | trim + eos_token }}
{%- endif %}
{%- else %}
{{ bos_token + message.role + "\n" + message.content + eos_token }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{ bos_token+"assistant\n" }}
{%- if thinking_budget == 0 %}
{{ think_begin_token }}
{%- endif %}
{%- endif %}""",
    ("<seed:bos>", "<seed:eos>", "<seed:tool_call>", "</seed:tool_call>", "<seed:think>", "</seed:think>"),
    "<seed:bos>assistant\n",
    "<seed:eos>",
)

# EXAONE 4: without thinking, the prompt closes empty reasoning, and so does the last turn.
EXAONE4 = Style(
    "exaone4",
    r"""{%- set ns = namespace(last_query_idx=-1) %}
{%- for i in range(messages | length - 1, -1, -1) %}
    {%- if ns.last_query_idx == -1 and messages[i].role == 'user' %}
        {%- set ns.last_query_idx = i %}
    {%- endif %}
{%- endfor %}
{%- for i in range(messages | length) %}
    {%- set msg = messages[i] %}
    {%- if loop.first and msg.role != 'system' %}
        {{- '[|system|]\n[|endofturn|]\n' }}
    {%- endif %}
    {%- if msg.role == 'assistant' %}
        {{- '[|assistant|]\n' }}
        {%- set content = msg.content %}
        {%- set reasoning_content = '' %}
        {%- if msg.reasoning_content is string %}
            {%- set reasoning_content = msg.reasoning_content %}
        {%- elif '</think>' in msg.content %}
            {%- set content = msg.content.split('</think>')[-1].lstrip('\n') %}
            {%- set reasoning_content = msg.content.split('</think>')[0].split('<think>')[-1].strip('\n') %}
        {%- endif %}
        {%- if i > ns.last_query_idx %}
            {%- if reasoning_content %}
                {{- '<think>\n' + reasoning_content + '\n</think>\n\n' }}
            {%- else %}
                {{- '<think>\n\n</think>\n\n' }}
            {%- endif %}
        {%- endif %}
        {{- content + '[|endofturn|]\n' }}
    {%- else %}
        {{- '[|' + msg.role + '|]\n' + msg.content + '[|endofturn|]\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '[|assistant|]\n' }}
    {%- if enable_thinking is defined and enable_thinking is true %}
        {{- '<think>\n' }}
    {%- else %}
        {{- '<think>\n\n</think>\n\n' }}
    {%- endif %}
{%- endif %}
""",
    ("[|system|]", "[|user|]", "[|assistant|]", "[|endofturn|]", "<think>", "</think>"),
    "[|assistant|]\n",
    "[|endofturn|]",
)

# Hunyuan A13B: no header, one expression per message, different ends of turns by role.
HUNYUAN = Style(
    "hunyuan",
    r"""{% set loop_messages = messages %}
{% set context = {'has_head': true} %}
{% for message in loop_messages %}
    {% if 'content' in message %}
        {% set content = message['content'] %}
    {% else %}
        {% set content = '' %}
    {% endif %}
    {% if loop.index0 == 0 and message['role'] == 'system' %}
        {% set content = '<|startoftext|>' + content + '<|extra_4|>' %}
    {% endif %}
    {% if message['role'] == 'user' %}
        {% if loop.index0 == 1 and context.has_head %}
            {% set content = content + '<|extra_0|>' %}
        {% else %}
            {% set content = '<|startoftext|>' + content + '<|extra_0|>' %}
        {% endif %}
    {% elif message['role'] == 'assistant' %}
        {% set content = content + '<|eos|>' %}
    {% elif message['role'] == 'tool' %}
        {% set content = content + '<|extra_0|>' %}
    {% endif %}
    {{- content -}}
{% endfor %}
{%- if enable_thinking is defined and enable_thinking is false %}
    {{- '<think>\n\n</think>\n' }}
{%- endif %}
""",
    ("<|startoftext|>", "<|extra_0|>", "<|extra_4|>", "<|eos|>"),
    "<|startoftext|>a<|extra_0|>",
    "<|eos|>",
)

_FINAL = "<|channel|>final<|message|>"
_TO_ADD = ' to=functions.add<|channel|>commentary json<|message|>{"a": 1, "b": 2}<|call|>'
_SEED_CALL = "<seed:tool_call>\n<function=add>\n<parameter=a>1</parameter>\n<parameter=b>2</parameter>\n</function>\n</seed:tool_call>"
_SEED_CALL_2 = "<seed:tool_call>\n<function=add>\n<parameter=a>3</parameter>\n<parameter=b>4</parameter>\n</function>\n</seed:tool_call>"
_THINKING_ON = Conversation(
    [user("a"), assistant("b", reasoning_content="hm"), user("c"), assistant("d", reasoning_content="ho")],
    variables={"enable_thinking": True},
)
_NOTHING_TO_THINK = Conversation([user("hi"), assistant("hello")], variables={"enable_thinking": True})

CASES = [
    Case(EXAONE4, "thinking on", _THINKING_ON, ["b[|endofturn|]", "ho\n</think>\n\nd[|endofturn|]"]),
    Case(EXAONE4, "nothing to think", _NOTHING_TO_THINK, ["\n</think>\n\nhello[|endofturn|]"]),
    *cases(
        HARMONY,
        {
            "single": ["<|channel|>final<|message|>hello<|return|>"],
            "multi": [_FINAL + "hello<|end|>", _FINAL + "see you<|return|>"],
            "system": [_FINAL + "hello<|end|>", _FINAL + "see you<|return|>"],
            "same": [_FINAL + "same<|end|>", _FINAL + "same<|return|>"],
            "empty": [_FINAL + "<|end|>", _FINAL + "d<|return|>"],
            "empty last": [_FINAL + "b<|end|>", _FINAL + "<|return|>"],
            "blank": [_FINAL + " \n <|end|>", _FINAL + "d<|return|>"],
            "padded": [_FINAL + "  b \n<|end|>", _FINAL + "\n d<|return|>"],
            "twice": [_FINAL + "b<|end|>", _FINAL + "c<|return|>"],
            "first": [_FINAL + "b<|end|>", _FINAL + "d<|return|>"],
            "open": [_FINAL + "b<|end|>"],
            "parts": [_FINAL + "cd<|end|>", _FINAL + "d<|return|>"],
            "lookalike": [
                _FINAL + "<|start|>assistant<|channel|>final<|message|>x<|end|>",
                _FINAL + "d<|end|>e<|return|>",
            ],
            "mimic": [_FINAL + "<|start|>assistant<|channel|>final<|message|><|end|>", _FINAL + "<|end|><|return|>"],
            "thinking": [
                _FINAL + "b<|end|>",
                "<|channel|>analysis<|message|>ho<|end|><|start|>assistant" + _FINAL + "d<|return|>",
            ],
            "reasoning": [
                _FINAL + "b<|end|>",
                "<|channel|>analysis<|message|>ho<|end|><|start|>assistant" + _FINAL + "d<|return|>",
            ],
            "tool": [_TO_ADD, _FINAL + "It is 3.<|return|>"],
            "tool null": [_TO_ADD, _FINAL + "It is 3.<|return|>"],
            "tool words": [_TO_ADD, _FINAL + "It is 3.<|return|>"],  # dropped, because an answer follows
            "tool thought": [
                _TO_ADD,
                "<|channel|>analysis<|message|>ho<|end|><|start|>assistant" + _FINAL + "It is 3.<|return|>",
            ],
            "tool last": ["<|channel|>analysis<|message|>hm<|end|><|start|>assistant" + _TO_ADD],
            "tool then more": [_TO_ADD, _FINAL + "It is 3.<|end|>", _FINAL + "see you<|return|>"],
            "same results": [_TO_ADD, _TO_ADD, _FINAL + "3<|return|>"],
        },
    ),
    *cases(
        ERNIE,
        {
            "single": ["hello</s>"],
            "multi": ["hello</s>", "see you</s>"],
            "system": ["hello</s>", "see you</s>"],
            "same": ["same</s>", "same</s>"],
            "empty": ["</s>", "d</s>"],
            "blank": [" \n </s>", "d</s>"],
            "padded": ["  b \n</s>", "\n d</s>"],
            "twice": ["b</s>", "c</s>"],
            "first": ["b</s>", "d</s>"],
            "open": ["b</s>"],
            "parts": ["cd</s>", "d</s>"],
            "lookalike": ["Assistant: x</s>", "d</s>e</s>"],
        },
    ),
    *cases(
        SEED,
        {
            "trailing eos": ["x</s><seed:eos>"],
            "trailing stop": ["x<seed:eos><seed:eos>", "<seed:eos><seed:eos>"],
            "stop in reasoning": OrQuarantined(["<seed:think>h<seed:eos></seed:think>"]),
            "single": ["hello<seed:eos>"],
            "multi": ["hello<seed:eos>", "see you<seed:eos>"],
            "system": ["hello<seed:eos>", "see you<seed:eos>"],
            "same": ["same<seed:eos>", "same<seed:eos>"],
            "empty": OrQuarantined(["d<seed:eos>"]),
            "blank": OrQuarantined(["d<seed:eos>"]),
            "padded": ["b<seed:eos>", "d<seed:eos>"],
            "twice": ["b<seed:eos>", "c<seed:eos>"],
            "first": ["b<seed:eos>", "d<seed:eos>"],
            "open": ["b<seed:eos>"],
            "lookalike": ["<seed:bos>assistant\nx<seed:eos>", "d<seed:eos>e<seed:eos>"],
            "reasoning": ["<seed:think>hm</seed:think>\nb<seed:eos>", "<seed:think>ho</seed:think>\nd<seed:eos>"],
            "tool": [_SEED_CALL + "<seed:eos>", "It is 3.<seed:eos>"],
            "tool words": ["Let me see.\n\n" + _SEED_CALL + "<seed:eos>", "It is 3.<seed:eos>"],
            "tool thought": [
                "<seed:think>hm</seed:think>\n" + _SEED_CALL + "<seed:eos>",
                "<seed:think>ho</seed:think>\nIt is 3.<seed:eos>",
            ],
            "parallel": [_SEED_CALL + "\n" + _SEED_CALL_2 + "<seed:eos>", "3 and 7.<seed:eos>"],
        },
    ),
    *cases(
        EXAONE4,
        {
            "stop in reasoning": OrQuarantined(["h[|endofturn|]\n</think>\n\n[|endofturn|]"]),
            "single": ["hello[|endofturn|]"],
            "multi": ["hello[|endofturn|]", "see you[|endofturn|]"],
            "system": ["hello[|endofturn|]", "see you[|endofturn|]"],
            "same": ["same[|endofturn|]", "same[|endofturn|]"],
            "empty": ["[|endofturn|]", "d[|endofturn|]"],
            "blank": [" \n [|endofturn|]", "d[|endofturn|]"],
            "padded": ["  b \n[|endofturn|]", "\n d[|endofturn|]"],
            "twice": ["b[|endofturn|]", "c[|endofturn|]"],
            "open": ["b[|endofturn|]"],
            "lookalike": ["[|assistant|]\nx[|endofturn|]", "d[|endofturn|]e[|endofturn|]"],
            # The prompt with thinking ends with `<think>` and a line end.
            "think": OrQuarantined(["b[|endofturn|]", "ho\n</think>\n\nd[|endofturn|]"]),
            "reasoning": OrQuarantined(["b[|endofturn|]", "ho\n</think>\n\nd[|endofturn|]"]),
        },
    ),
    *cases(
        HUNYUAN,
        {
            "single": ["hello<|eos|>"],
            "multi": ["hello<|eos|>", "see you<|eos|>"],
            "system": ["hello<|eos|>", "see you<|eos|>"],
            "same": ["same<|eos|>", "same<|eos|>"],
            "empty": ["<|eos|>", "d<|eos|>"],
            "blank": [" \n <|eos|>", "d<|eos|>"],
            "padded": ["  b \n<|eos|>", "\n d<|eos|>"],
            "twice": ["b<|eos|>", "c<|eos|>"],
            "first": ["b<|eos|>", "d<|eos|>"],
            "open": ["b<|eos|>"],
            "parts": ["cd<|eos|>", "d<|eos|>"],
            "lookalike": ["<|startoftext|>a<|extra_0|>x<|eos|>", "d<|eos|>e<|eos|>"],
        },
    ),
]
