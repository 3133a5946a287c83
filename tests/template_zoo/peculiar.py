"""Unusual templates of no family: filters around loops, text collected in a variable, dropped messages."""

from __future__ import annotations

from template_zoo.conversations import Conversation, assistant, system, user
from template_zoo.model import Case, OrQuarantined, Quarantined, Style, cases

_TOKENS = ("<|im_start|>", "<|im_end|>")
_OPEN, _STOP = "<|im_start|>assistant\n", "<|im_end|>"
_TURN = "'<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n'"
_PROMPT = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"

# OpenChat: roles as words in title case, a stop token other than the eos of the tokenizer.
OPENCHAT = Style(
    "openchat",
    r"""{{ bos_token }}{% for message in messages %}{{ 'GPT4 Correct ' + message['role'].title() + ': ' + message['content'] + '<|end_of_turn|>'}}{% endfor %}{% if add_generation_prompt %}{{ 'GPT4 Correct Assistant:' }}{% endif %}""",
    ("<|end_of_turn|>",),
    "GPT4 Correct Assistant: ",
    "<|end_of_turn|>",
)

# The text is collected in a namespace and written once.
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

# A macro that takes the messages and loops over them.
LOOP_IN_MACRO = Style(
    "loop-in-macro",
    "{% macro chat(turns) %}{% for message in turns %}{{ " + _TURN + " }}{% endfor %}{% endmacro %}"
    "{{ chat(messages) }}" + _PROMPT,
    _TOKENS,
    _OPEN,
    _STOP,
)

# A filter around the loop: white space at both ends of the text is removed.
FILTERED = Style(
    "filter-around",
    "{% filter trim %}{% for message in messages %}{{ " + _TURN + " }}{% endfor %}{% endfilter %}"
    "{% if add_generation_prompt %}{{ '\\n<|im_start|>assistant\\n' }}{% endif %}",
    _TOKENS,
    _OPEN,
    _STOP,
)

# A filter in the loop; the system text is written before it.
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

# `continue` and `break`: other roles are skipped, and the loop ends at a message without content.
CONTINUES = Style(
    "loop-controls",
    "{% for message in messages %}{% if message.role == 'system' %}{% continue %}{% endif %}"
    "{% if not message.content %}{% break %}{% endif %}{{ " + _TURN + " }}{% endfor %}" + _PROMPT,
    _TOKENS,
    _OPEN,
    _STOP,
)

# Only the last messages are written.
LAST_THREE = Style(
    "last-three",
    "{% for message in messages[-3:] %}{{ " + _TURN + " }}{% endfor %}" + _PROMPT,
    _TOKENS,
    _OPEN,
    _STOP,
)

# The content is reformatted: line by line, in capitals, with replacements.
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

# Two loops: first all system messages, then the others.
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

# Numbered turns: the header of a turn depends on its position.
NUMBERED = Style(
    "numbered",
    r"""{%- for message in messages -%}
{{- '[' ~ loop.index ~ ' of ' ~ messages | length ~ '] ' ~ message.role ~ ': ' ~ message.content ~ eos_token ~ '\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '[' ~ (messages | length + 1) ~ ' of ' ~ (messages | length + 1) ~ '] assistant: ' }}{%- endif -%}""",
    header="[2 of 2] assistant: ",
    stop="</s>\n",
)

# The header contains the length of the answer, so it cannot be a prompt.
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
"""The model also writes the length, which follows the prompt."""

# A weight or a name next to the role, and additional text.
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

# Reasoning before the content, in a field with an unusual name.
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

# A reminder between the last question and the answer; other prompts do not have it.
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

# {% generation %} in some branches only: text outside it carries no loss.
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

# Windows line ends, and Jinja delimiters in literal text.
CRLF = Style(
    "crlf",
    "{% raw %}{{ raw }}{% endraw %}{% for message in messages %}\r\n"
    "<|im_start|>{{ message.role }}\r\n{{ message.content }}<|im_end|>\r\n{% endfor %}"
    "{% if add_generation_prompt %}\r\n<|im_start|>assistant\r\n{% endif %}",
    _TOKENS,
    "<|im_start|>assistant\n",
    _STOP,
)

# A word in any message changes the prompt and the start of every answer; add_generation_prompt is used in an expression,
# under another name, or in a macro.
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

_QUICK_TALK = Conversation([user("a /quick"), assistant("b"), user("c"), assistant("d")])
_NAMED = [{**user("a"), "name": "Ann"}, {**assistant("b"), "name": "Bot"}, user("c"), assistant("d")]
_REASONED = [user("a"), {**assistant("b"), "reasoning": "hm"}, user("c"), assistant("d")]
_SYSTEM_LATE = Conversation([user("a"), assistant("b"), system("be kind"), user("a"), assistant("b")])
_LINES = Conversation([user("a"), assistant("one\n two \nhello"), user("c"), assistant("d")])

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
            # Nothing is rendered from the empty answer on, so "d" is not trained.
            "empty": OrQuarantined([]),
        },
    ),
    Case(CONTINUES, "late system", _SYSTEM_LATE, ["b<|im_end|>", "b<|im_end|>"]),
    *cases(
        LAST_THREE,
        {
            "single": ["hello<|im_end|>"],
            "multi": OrQuarantined(["hello<|im_end|>", "see you<|im_end|>"]),
            "twice": OrQuarantined(["b<|im_end|>", "c<|im_end|>"]),
            "same": OrQuarantined(["same<|im_end|>", "same<|im_end|>"]),
            "lookalike": OrQuarantined(["<|im_start|>assistant\nx<|im_end|>", "d<|im_end|>e<|im_end|>"]),
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
    # In this order no answer follows its question, so there is no prompt.
    *cases(BACKWARDS, {"multi": Quarantined, "same": Quarantined}),
    *cases(
        FORETOLD,
        {
            "single": OrQuarantined(["hello<|im_end|>"]),
            "multi": OrQuarantined(["hello<|im_end|>", "see you<|im_end|>"]),
        },
    ),
    *cases(
        NUMBERED,
        {
            "single": ["hello</s>"],
            # A later header contains the number of messages, which the prompt of the first answer cannot contain.
            "multi": OrQuarantined(["hello</s>", "see you</s>"]),
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
    Case(NAMES, "names", Conversation(_NAMED), ["b<|im_end|>", "d<|im_end|>"]),
    *cases(THOUGHTS, _PLAIN),
    Case(
        THOUGHTS,
        "reasoning by its third name",
        Conversation(_REASONED),
        ["<thought>hm</thought>b<|im_end|>", "d<|im_end|>"],
    ),
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
