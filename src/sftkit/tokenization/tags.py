"""Tags that templates write around reasoning and answers, as text."""

from __future__ import annotations

import re

REASONING_WORDS = "think|reason|thought"
"""Every tag of reasoning holds one of these: <think>, <|START_THINKING|>, <seed:think>, <|begin_of_thought|>."""

_TAG = rf"(?:</?[^<>\s]*(?:{REASONING_WORDS})[^<>\s]*>|\[/?(?:THINK|REASONING)\])"

REASONING_TAG = re.compile(rf"\s*{_TAG}", re.IGNORECASE)
"""White space and one tag of reasoning, opening or closing."""

REASONING_TAGS_AT_END = re.compile(rf"(?:{_TAG}\s*)+\Z", re.IGNORECASE)
"""What a generation prompt may end with to open, or to leave out, the model's reasoning: <think>, </think>,
<think>\\n\\n</think>, and the white space between."""

TAGS_ONLY = re.compile(r"(?:\s|<[^<>\s]*>|\[[^\[\]\s]*\]|(?<=\|>)\w+(?=<\|))*")
"""Tags, and words between them (`<|start|>assistant<|channel|>final<|message|>`)."""
