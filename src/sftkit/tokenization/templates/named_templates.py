"""Chat templates of this package that are chosen by name: `--chat_template chatml`."""

from __future__ import annotations

from pathlib import Path

from sftkit.config.fields import did_you_mean
from sftkit.errors import ConfigError

NAMES = ("chatml", "llama3", "mistral", "gemma", "granite")
"""The names that can be given instead of a template."""

_KEY = "dataprocessor.chat_template"
_OWN_TEMPLATE = ("tokenizer_default", "default", "auto")
"""What other tools call the tokenizer's own template."""


def named_or_given(text: str) -> str:
    """Return the template that a value of `chat_template` stands for: the value itself, or the one of that name.

    A text without `{` is a name. As a template, it would render every conversation as that same text.

    Raises:
        ConfigError: It is the name of no template.

    Example:
        >>> named_or_given("{{ messages[0].content }}")
        '{{ messages[0].content }}'
        >>> "<|im_start|>" in named_or_given("chatml")
        True
    """
    if "{" in text:
        return text
    name = text.strip()
    if name in NAMES:
        return (Path(__file__).parent / "named" / f"{name}.jinja").read_text(encoding="utf-8")
    raise ConfigError(f"{_KEY}: {_problem(name)}")


def _problem(name: str) -> str:
    if not name:
        return "it is empty; leave it out to use the tokenizer's own template"
    if name.lower() in _OWN_TEMPLATE:
        return f"no template is called {name!r}; leave it out to use the tokenizer's own template"
    if name.lower() == "jinja":
        return "it is the template itself, or a name; set chat_template_path to the file of a template"
    if name.endswith((".jinja", ".jinja2", ".j2", ".txt")) or "/" in name:
        return f"{name!r} is neither a template nor the name of one; for a file, set chat_template_path"
    hint = did_you_mean(name.lower().replace("-", "").replace("_", ""), NAMES)
    return (
        f"no template is called {name!r}{hint}; the names are {', '.join(NAMES)}, and a template of your own has to "
        "contain Jinja code or be in a file (chat_template_path)"
    )
