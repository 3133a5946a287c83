"""Ways to write a template that no family owns: filters around loops, text gathered in a variable, rows cut short."""

from __future__ import annotations

from template_zoo.conversations import Talk, assistant, system, user
from template_zoo.model import Case, OrRefused, Refused, Style, cases

_TOKENS = ("<|im_start|>", "<|im_end|>")
_OPEN, _STOP = "<|im_start|>assistant\n", "<|im_end|>"
_TURN = "'<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n'"
_PROMPT = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"

# OpenChat: roles in title case as words, the stop token of a tokenizer that has another eos.
OPENCHAT = Style(
    "openchat",
    r"""{{ bos_token }}{% for message in messages %}{{ 'GPT4 Correct ' + message['role'].title() + ': ' + message['content'] + '<|end_of_turn|>'}}{% endfor %}{% if add_generation_prompt %}{{ 'GPT4 Correct Assistant:' }}{% endif %}""",
    ("<|end_of_turn|>",),
    "GPT4 Correct Assistant: ",
    "<|end_of_turn|>",
)

# The text is gathered in a namespace and written once.
GATHERED = Style(
    "gathered",
    "{% set ns = namespace(text='') %}{% for message in messages %}{% set ns.text = ns.text + "
    + _TURN
    + " %}{% endfor %}{{ ns.text }}"
    + _PROMPT,
    _TOKENS,
    _OPEN,
    _STOP,
)

# A macro that is given the messages, and loops over them.
LOOP_IN_MACRO = Style(
    "loop-in-macro",
    "{% macro chat(turns) %}{% for message in turns %}{{ " + _TURN + " }}{% endfor %}{% endmacro %}"
    "{{ chat(messages) }}" + _PROMPT,
    _TOKENS,
    _OPEN,
    _STOP,
)

# A filter around the loop: white space at the ends is cut from the whole.
FILTERED = Style(
    "filter-around",
    "{% filter trim %}{% for message in messages %}{{ " + _TURN + " }}{% endfor %}{% endfilter %}"
    "{% if add_generation_prompt %}{{ '\\n<|im_start|>assistant\\n' }}{% endif %}",
    _TOKENS,
    _OPEN,
    _STOP,
)

# The loop chooses among the messages; the system text was written before.
CHOSEN = Style(
    "loop-with-if",
    "{% if messages[0].role == 'system' %}{{ 'System: ' + messages[0].content + '\\n' }}{% endif %}"
    "{% for message in messages if message.role != 'system' %}{{ " + _TURN + " }}{% endfor %}" + _PROMPT,
    _TOKENS,
    _OPEN,
    _STOP,
)
REJECTED = Style(
    "rejectattr",
    "{% set turns = messages | rejectattr('role', 'equalto', 'system') | list %}"
    "{% for message in turns %}{{ " + _TURN + " }}{% endfor %}" + _PROMPT,
    _TOKENS,
    _OPEN,
    _STOP,
)

# `continue` and `break`: other roles are passed over, and the loop ends at a message without content.
CONTINUES = Style(
    "loop-controls",
    "{% for message in messages %}{% if message.role == 'system' %}{% continue %}{% endif %}"
    "{% if not message.content %}{% break %}{% endif %}{{ " + _TURN + " }}{% endfor %}" + _PROMPT,
    _TOKENS,
    _OPEN,
    _STOP,
)

# Only the last messages are kept.
LAST_THREE = Style(
    "last-three",
    "{% for message in messages[-3:] %}{{ " + _TURN + " }}{% endfor %}" + _PROMPT,
    _TOKENS,
    _OPEN,
    _STOP,
)

# The content is reformatted: line by line, in capitals, with what is not wanted replaced.
REFORMATTED = Style(
    "reformatted",
    r"""{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\n' -}}
{%- for line in message.content.split('\n') -%}
{{- '> ' + line.strip() | upper | replace('HELLO', 'HI') + '\n' -}}
{%- endfor -%}
{{- '<|im_end|>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}""",
    _TOKENS,
    _OPEN,
    _STOP,
)

# Two loops: the system messages first, wherever they stand, then the others.
TWO_LOOPS = Style(
    "two-loops",
    "{% for message in messages %}{% if message.role == 'system' %}{{ " + _TURN + " }}{% endif %}{% endfor %}"
    "{% for message in messages %}{% if message.role != 'system' %}{{ "
    + _TURN
    + " }}{% endif %}{% endfor %}"
    + _PROMPT,
    _TOKENS,
    _OPEN,
    _STOP,
)

# The newest message first.
BACKWARDS = Style(
    "backwards",
    "{% for message in messages | reverse %}{{ " + _TURN + " }}{% endfor %}" + _PROMPT,
    _TOKENS,
    _OPEN,
    _STOP,
)

# A summary of the answers before the turns.
FORETOLD = Style(
    "foretold",
    "{{ 'Answers: ' + messages | selectattr('role', 'equalto', 'assistant') | map(attribute='content') | join(', ') }}"
    "{{ '\\n' }}{% for message in messages %}{{ " + _TURN + " }}{% endfor %}" + _PROMPT,
    _TOKENS,
    _OPEN,
    _STOP,
)

# Numbered turns: the header of a turn depends on its place.
NUMBERED = Style(
    "numbered",
    r"""{%- for message in messages -%}
{{- '[' ~ loop.index ~ ' of ' ~ messages | length ~ '] ' ~ message.role ~ ': ' ~ message.content ~ eos_token ~ '\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '[' ~ (messages | length + 1) ~ ' of ' ~ (messages | length + 1) ~ '] assistant: ' }}{%- endif -%}""",
    header="[2 of 2] assistant: ",
    stop="</s>\n",
)

# The header knows how long the answer is: it cannot be a prompt.
KNOWING = Style(
    "knowing-header",
    r"""{%- for message in messages -%}
{{- '<|im_start|>' ~ message.role ~ ' ' ~ message.content | length ~ '\n' ~ message.content ~ '<|im_end|>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant ' }}{%- endif -%}""",
    _TOKENS,
    "<|im_start|>assistant 1\n",
    _STOP,
)
"""The model writes the length, too: it stands after the prompt."""

# A weight or a name beside the role, and what was not asked for.
NAMES = Style(
    "names",
    r"""{%- for message in messages -%}
{{- '<|im_start|>' + message.role + (' name=' + message.name if message.name is defined else '') + '\n' + message.content + '<|im_end|>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}""",
    _TOKENS,
    _OPEN,
    _STOP,
)

# The reasoning in a field of another name than the families use, before the content.
THOUGHTS = Style(
    "thoughts",
    r"""{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\n' -}}
{%- if message.reasoning -%}{{ '<thought>' + message.reasoning + '</thought>' }}{%- endif -%}
{{- message.content + '<|im_end|>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}""",
    _TOKENS,
    _OPEN,
    _STOP,
)

# A reminder after the last question, before the answer: it is no part of the prompt that others get.
REMINDER = Style(
    "reminder",
    r"""{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\n' + message.content -}}
{%- if message.role == 'user' and (loop.last or loop.nextitem is not defined or messages[loop.index:] | selectattr('role', 'equalto', 'user') | list | length == 0) -%}
{{- '\nBe brief.' -}}
{%- endif -%}
{{- '<|im_end|>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}""",
    _TOKENS,
    _OPEN,
    _STOP,
)

# {% generation %} in some branches only: what has no mark of its own carries no loss.
SOME_GENERATION = Style(
    "some-generation",
    r"""{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\n' -}}
{%- if message.role == 'assistant' and loop.last -%}
{% generation %}{{ message.content + '<|im_end|>' }}{% endgeneration %}
{%- else -%}
{{- message.content + '<|im_end|>' -}}
{%- endif -%}
{{- '\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}""",
    _TOKENS,
    _OPEN,
    _STOP,
)

# Line ends of another system, and what Jinja would take for its own in literal text.
CRLF = Style(
    "crlf",
    "{% raw %}{{ raw }}{% endraw %}{% for message in messages %}\r\n"
    "<|im_start|>{{ message.role }}\r\n{{ message.content }}<|im_end|>\r\n{% endfor %}"
    "{% if add_generation_prompt %}\r\n<|im_start|>assistant\r\n{% endif %}",
    _TOKENS,
    "<|im_start|>assistant\n",
    _STOP,
)

# A word in any message changes the prompt, and how every answer opens; the prompt is asked for in an expression, under
# another name, or by a macro.
_QUICK = (
    "{% set ns = namespace(opening='') %}{% for message in messages %}{% if '/quick' in message.content %}"
    "{% set ns.opening = '<think></think>' %}{% endif %}{% endfor %}"
    "{% macro header() %}{{ '<|im_start|>assistant\\n' + ns.opening }}{% endmacro %}"
    "{% for message in messages %}{% if message.role == 'assistant' %}{{ header() + message.content }}{% else %}"
    "{{ '<|im_start|>' + message.role + '\\n' + message.content }}{% endif %}{{ '<|im_end|>\\n' }}{% endfor %}"
)
QUICK_INLINE = Style(
    "quick-inline",
    _QUICK + "{{ '<|im_start|>assistant\\n' + ns.opening if add_generation_prompt else '' }}",
    _TOKENS,
    _OPEN,
    _STOP,
)
QUICK_RENAMED = Style(
    "quick-renamed",
    "{% set asked = add_generation_prompt %}"
    + _QUICK
    + "{% if asked %}{{ '<|im_start|>assistant\\n' + ns.opening }}{% endif %}",
    _TOKENS,
    _OPEN,
    _STOP,
)
QUICK_BY_MACRO = Style(
    "quick-by-macro",
    _QUICK + "{% if add_generation_prompt %}{{ header() }}{% endif %}",
    _TOKENS,
    _OPEN,
    _STOP,
)

_QUICK_TALK = Talk([user("a /quick"), assistant("b"), user("c"), assistant("d")])
_NAMED = [{**user("a"), "name": "Ann"}, {**assistant("b"), "name": "Bot"}, user("c"), assistant("d")]
_REASONED = [user("a"), {**assistant("b"), "reasoning": "hm"}, user("c"), assistant("d")]
_SYSTEM_LATE = Talk([user("a"), assistant("b"), system("be kind"), user("a"), assistant("b")])
_LINES = Talk([user("a"), assistant("one\n two \nhello"), user("c"), assistant("d")])

_PLAIN = {
    "single": ["hello<|im_end|>"],
    "multi": ["hello<|im_end|>", "see you<|im_end|>"],
    "same": ["same<|im_end|>", "same<|im_end|>"],
    "empty": ["<|im_end|>", "d<|im_end|>"],
    "blank": [" \n <|im_end|>", "d<|im_end|>"],
    "padded": ["  b \n<|im_end|>", "\n d<|im_end|>"],
    "twice": ["b<|im_end|>", "c<|im_end|>"],
    "open": ["b<|im_end|>"],
    "parts": ["cd<|im_end|>", "d<|im_end|>"],
    "lookalike": ["<|im_start|>assistant\nx<|im_end|>", "d<|im_end|>e<|im_end|>"],
}

CASES = [
    *cases(
        OPENCHAT,
        {
            "single": [" hello<|end_of_turn|>"],
            "multi": [" hello<|end_of_turn|>", " see you<|end_of_turn|>"],
            "system": [" hello<|end_of_turn|>", " see you<|end_of_turn|>"],
            "same": [" same<|end_of_turn|>", " same<|end_of_turn|>"],
            "empty": [" <|end_of_turn|>", " d<|end_of_turn|>"],
            "padded": ["   b \n<|end_of_turn|>", " \n d<|end_of_turn|>"],
            "twice": [" b<|end_of_turn|>", " c<|end_of_turn|>"],
            "lookalike": [" GPT4 Correct Assistant: x<|end_of_turn|>", " d<|end_of_turn|>e<|end_of_turn|>"],
        },
    ),
    *cases(GATHERED, _PLAIN),
    *cases(LOOP_IN_MACRO, _PLAIN),
    *cases(
        FILTERED,
        {
            "single": ["hello<|im_end|>"],
            "multi": ["hello<|im_end|>", "see you<|im_end|>"],
            "same": ["same<|im_end|>", "same<|im_end|>"],
            "empty": ["<|im_end|>", "d<|im_end|>"],
            "lookalike": ["<|im_start|>assistant\nx<|im_end|>", "d<|im_end|>e<|im_end|>"],
        },
    ),
    *cases(CHOSEN, {**_PLAIN, "system": ["hello<|im_end|>", "see you<|im_end|>"]}),
    *cases(REJECTED, {**_PLAIN, "system": ["hello<|im_end|>", "see you<|im_end|>"]}),
    *cases(
        CONTINUES,
        {
            "single": ["hello<|im_end|>"],
            "multi": ["hello<|im_end|>", "see you<|im_end|>"],
            "system": ["hello<|im_end|>", "see you<|im_end|>"],
            "same": ["same<|im_end|>", "same<|im_end|>"],
            "empty last": ["b<|im_end|>"],  # the loop ends before the empty answer
            # Nothing is rendered from the empty answer on; a template that drops "d" drops its loss with it.
            "empty": OrRefused([]),
        },
    ),
    Case(CONTINUES, "late system", _SYSTEM_LATE, ["b<|im_end|>", "b<|im_end|>"]),
    *cases(
        LAST_THREE,
        {
            "single": ["hello<|im_end|>"],
            "multi": OrRefused(["hello<|im_end|>", "see you<|im_end|>"]),
            "twice": OrRefused(["b<|im_end|>", "c<|im_end|>"]),
            "same": OrRefused(["same<|im_end|>", "same<|im_end|>"]),
            "lookalike": OrRefused(["<|im_start|>assistant\nx<|im_end|>", "d<|im_end|>e<|im_end|>"]),
        },
    ),
    *cases(
        REFORMATTED,
        {
            "single": ["> HI\n<|im_end|>"],
            "multi": ["> HI\n<|im_end|>", "> SEE YOU\n<|im_end|>"],
            "same": ["> SAME\n<|im_end|>", "> SAME\n<|im_end|>"],
            "empty": ["> \n<|im_end|>", "> D\n<|im_end|>"],
            "padded": ["> B\n> \n<|im_end|>", "> \n> D\n<|im_end|>"],
        },
    ),
    Case(REFORMATTED, "lines", _LINES, ["> ONE\n> TWO\n> HI\n<|im_end|>", "> D\n<|im_end|>"]),
    *cases(TWO_LOOPS, {**_PLAIN, "system": ["hello<|im_end|>", "see you<|im_end|>"]}),
    Case(TWO_LOOPS, "late system", _SYSTEM_LATE, ["b<|im_end|>", "b<|im_end|>"]),
    # In this order no answer comes after its question: nothing can be asked for that way.
    *cases(BACKWARDS, {"multi": Refused, "same": Refused}),
    *cases(
        FORETOLD,
        {
            "single": OrRefused(["hello<|im_end|>"]),
            "multi": OrRefused(["hello<|im_end|>", "see you<|im_end|>"]),
        },
    ),
    *cases(
        NUMBERED,
        {
            "single": ["hello</s>"],
            # A later header counts the messages that follow; the prompt of the first answer cannot have said so.
            "multi": OrRefused(["hello</s>", "see you</s>"]),
        },
    ),
    *cases(
        KNOWING,
        {
            "single": ["5\nhello<|im_end|>"],
            "multi": ["5\nhello<|im_end|>", "7\nsee you<|im_end|>"],
            "same": ["4\nsame<|im_end|>", "4\nsame<|im_end|>"],
        },
    ),
    *cases(NAMES, _PLAIN),
    Case(NAMES, "names", Talk(_NAMED), OrRefused(["b<|im_end|>", "d<|im_end|>"])),
    *cases(THOUGHTS, _PLAIN),
    Case(THOUGHTS, "reasoning by its third name", Talk(_REASONED), ["<thought>hm</thought>b<|im_end|>", "d<|im_end|>"]),
    *cases(REMINDER, _PLAIN),
    *cases(
        SOME_GENERATION,
        {
            "single": ["hello<|im_end|>"],
            "multi": ["see you<|im_end|>"],
            "same": ["same<|im_end|>"],
            "lookalike": ["d<|im_end|>e<|im_end|>"],
        },
    ),
    *cases(CRLF, _PLAIN),
    *cases(QUICK_INLINE, _PLAIN),
    *cases(QUICK_RENAMED, _PLAIN),
    *cases(QUICK_BY_MACRO, _PLAIN),
    Case(QUICK_INLINE, "quick", _QUICK_TALK, ["b<|im_end|>", "d<|im_end|>"]),
    Case(QUICK_RENAMED, "quick", _QUICK_TALK, ["b<|im_end|>", "d<|im_end|>"]),
    Case(QUICK_BY_MACRO, "quick", _QUICK_TALK, ["b<|im_end|>", "d<|im_end|>"]),
]
