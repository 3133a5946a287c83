"""Renders pages from their templates. All text is escaped by the engine, and invisible characters become visible.

A page needs no network and runs one script and one style sheet, which its content security policy names by their
hashes. Nothing else can run, whatever the data holds.
"""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from sftkit.core.escape import escape_to_one_line, visible_parts

_FOLDER = "template"


def render_page(file: str, /, **values: Any) -> str:
    """Return the HTML of a page.

    Args:
        file: a name in `template/`, of a template that extends `base.html.jinja`.
        **values: what it names.
    """
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_file),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=_number, percent=_percent, one_line=escape_to_one_line)
    script, style = _file("page.js"), _file("page.css")
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; base-uri 'none'; "
        "form-action 'none'; require-trusted-types-for 'script'"
    )
    # These three are files of this package.
    own = {"script": Markup(script), "style": Markup(style), "policy": Markup(policy)}
    return environment.get_template(file).render(**values, **own)


def _file(name: str) -> str:
    return (resources.files(__package__) / _FOLDER / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _visible(value: object) -> object:
    """Make control and invisible characters of texts visible; markup of this package is not changed."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return "".join(part.text for part in visible_parts(value))
    return value


def _number(value: int | float | None) -> Markup | str:
    """Write a number with its exact value beside it, for scripts and tests."""
    if value is None:
        return "–"
    shown = f"{value:,.1f}" if isinstance(value, float) and value != int(value) else f"{int(value):,}"
    return Markup('<data value="{}">{}</data>').format(value, shown)


def _percent(value: float | None) -> Markup | str:
    if value is None:
        return "–"
    return Markup('<data value="{}">{}</data>').format(value, f"{value:.1%}")
