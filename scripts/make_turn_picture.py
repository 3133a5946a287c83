"""Makes docs/images/turns.svg: the rows that a conversation with reasoning becomes, and what of them is trained.

The rows are those of real runs, and the audit says which answers do not stand as at inference.

    python scripts/make_turn_picture.py
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

import sftkit

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "images" / "turns.svg"
TALK = [
    {"role": "user", "content": "What is 17 * 3?"},
    {"role": "assistant", "content": "It is 51.", "reasoning_content": "10 * 3 = 30, 7 * 3 = 21."},
    {"role": "user", "content": "And half of it?"},
    {"role": "assistant", "content": "It is 25.5.", "reasoning_content": "51 / 2 = 25.5."},
]
TEMPLATE = (
    "{% set last = namespace(user=0) %}{% for m in messages %}"
    "{% if m.role == 'user' %}{% set last.user = loop.index0 %}{% endif %}{% endfor %}"
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}"
    "{% if m.reasoning_content and loop.index0 > last.user %}"
    "{{ '<think>\\n' + m.reasoning_content + '\\n</think>\\n\\n' }}{% endif %}"
    "{{ m.content + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""Writes reasoning only after the last question, as Qwen's templates do."""
TITLES = {
    "once": "render: once. One row; the template has removed the reasoning of the first answer",
    "per_turn": "render: per_turn, and auto. Two rows; each answer follows the prompt that the model gets for it",
}
STYLES = {
    "untrained": ("#eceff1", "#37474f"),
    "as at inference": ("#c8e6c9", "#1b5e20"),
    "trained, but never so at inference": ("#ffcdd2", "#b71c1c"),
}
PLAIN, GOOD, BAD = STYLES
COLUMNS, CELL, LINE, MARGIN, TOP = 96, 8.0, 24, 16, 30


@dataclass(frozen=True)
class Piece:
    """Some text of a row, and what it is: a key of STYLES."""

    text: str
    style: str


def rows_of(folder: Path, render: str) -> list[list[Piece]]:
    """Preprocess the conversation, and return its rows in the order of their length."""
    source = folder / "talk.jsonl"
    source.write_text(json.dumps({"messages": TALK}) + "\n", encoding="utf-8")
    handler = {"name": "tokenize_and_apply_chat_template_with_masking"}
    dataset = {"name": "talk", "data_paths": [str(source)], "data_handlers": [handler], "retain_columns": ["messages"]}
    sftkit.preprocess(
        datasets=[dataset],
        dataprocessor={"chat_template": TEMPLATE},
        model_name_or_path="sample:model",
        render=render,
        output_dir=str(folder / render),
    )
    report = sftkit.inspect_shards(folder / render, rows=9)
    audit = sftkit.inspect_shards(folder / render, audit=True).audit
    assert audit is not None
    assert audit.inference is not None
    first = {int(each.row.rpartition(":")[2]): each.token for each in audit.inference.differences}
    rows = []
    for index, row in enumerate(report.rows):
        pieces, is_bad = [], False
        for token, each in enumerate(row.tokens):
            trained = bool(each.trained)
            is_bad = trained and (is_bad or first.get(index) == token)
            pieces.append(Piece(each.text or "", (BAD if is_bad else GOOD) if trained else PLAIN))
        rows.append(pieces)
    return sorted(rows, key=len)


def draw_row(pieces: list[Piece], y: int) -> tuple[list[str], int]:
    """Return the boxes and texts of a row from a height on, and the height below them."""
    shapes, column = [], 0
    for piece in pieces:
        for text in split_words(piece.text.replace("\n", "⏎")):
            if column + len(text) > COLUMNS:
                column, y = 0, y + LINE
            fill, ink = STYLES[piece.style]
            x = MARGIN + column * CELL
            shapes.append(f'<rect x="{x:.1f}" y="{y}" width="{len(text) * CELL + 0.4:.1f}" height="20" fill="{fill}"/>')
            shapes.append(
                f'<text x="{x:.1f}" y="{y + 15}" textLength="{len(text) * CELL:.1f}" fill="{ink}">{escape(text)}</text>'
            )
            column += len(text)
    return shapes, y + LINE


def split_words(text: str) -> Iterator[str]:
    """Yield pieces of a text that fit into a line; spaces stay, as no-break spaces."""
    for start in range(0, len(text), COLUMNS):
        yield text[start : start + COLUMNS].replace(" ", "\u00a0")


def draw() -> str:
    """Return the picture."""
    shapes, y = [], TOP
    with tempfile.TemporaryDirectory() as folder:
        for render, title in TITLES.items():
            shapes.append(f'<text x="{MARGIN}" y="{y}" class="title">{escape(title)}</text>')
            y += 12
            for row in rows_of(Path(folder), render):
                drawn, y = draw_row(row, y)
                shapes += drawn
                y += 10
            y += 22
    x = float(MARGIN)
    for name, (fill, _) in STYLES.items():
        shapes.append(f'<rect x="{x:.1f}" y="{y - 12}" width="14" height="14" fill="{fill}" stroke="#90a4ae"/>')
        shapes.append(f'<text x="{x + 20:.1f}" y="{y}" class="key">{escape(name)}</text>')
        x += 44 + 7.2 * len(name)
    width, height = 2 * MARGIN + COLUMNS * CELL, y + MARGIN
    style = (
        "text{font:13px ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace}"
        ".title{font:600 15px system-ui,sans-serif;fill:#263238}.key{font:13px system-ui,sans-serif;fill:#37474f}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" width="{width:.0f}" '
        f'height="{height}"><style>{style}</style><rect width="100%" height="100%" fill="#ffffff"/>\n'
        + "\n".join(shapes)
        + "\n</svg>\n"
    )


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
    print(f"written to {PICTURE}")
