"""One key of another tool."""

from __future__ import annotations

from typing import NamedTuple

AXOLOTL, TRL, LLAMA_FACTORY, OPEN_INSTRUCT, MS_SWIFT = "axolotl", "TRL", "LLaMA-Factory", "open-instruct", "ms-swift"
TOOLS = (AXOLOTL, TRL, LLAMA_FACTORY, OPEN_INSTRUCT, MS_SWIFT)


class ForeignKey(NamedTuple):
    """A key that a config or command line of another tool has, and this program does not."""

    name: str
    tools: tuple[str, ...]
    """The tools that have it."""
    key: str
    """The key to write instead; "" if there is none."""
    note: str = ""
    """What to write if the values differ, or why there is no key. Part of a sentence."""


def of(tool: str, *keys: tuple[str, str] | tuple[str, str, str]) -> tuple[ForeignKey, ...]:
    """Make the keys of one tool, or of several (`"axolotl, TRL"`), from (name, key) or (name, key, note)."""
    tools = tuple(tool.split(", "))
    return tuple(ForeignKey(name, tools, *rest) for name, *rest in keys)
