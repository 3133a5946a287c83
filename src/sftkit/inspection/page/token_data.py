"""The tokens of bubbles as JSON for the script of the page, which shows their boundaries and ids on demand."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from sftkit.inspection.page.bubbles import Bubble, token_text

_ESCAPES = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"})


def token_data(rows: Mapping[str, Sequence[Bubble]]) -> Markup:
    """Return the JSON of the tokens of rows: row id -> bubbles, each `{s, t, i, c, l}`.

    `s` is the position of the first token, `t` are the texts, `i` the ids, `c` the index of each token's classes in
    `styles`, and `l` the labels of tokens whose label is another token, by index.
    """
    styles: dict[str, int] = {}
    data = {key: [_bubble(bubble, styles) for bubble in bubbles] for key, bubbles in rows.items()}
    return script_json({"styles": list(styles), "rows": data})


def script_json(value: Any) -> Markup:
    """Return JSON that may stand in a script element: it cannot end the element, and begins no comment."""
    return Markup(json.dumps(value, ensure_ascii=False, separators=(",", ":")).translate(_ESCAPES))


def _bubble(bubble: Bubble, styles: dict[str, int]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "s": bubble.start,
        "t": [token_text(token) for token in bubble.shown],
        "i": [token.id for token in bubble.shown],
        "c": [styles.setdefault(style, len(styles)) for style in bubble.styles],
    }
    labels = {str(index): token.label for index, token in enumerate(bubble.shown) if token.is_mislabelled}
    return {**found, "l": labels} if labels else found
