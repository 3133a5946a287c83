"""Freeze parameters by patterns of their names or because nothing uses them, and count the trained ones."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from sftkit.errors import TrainingError

if TYPE_CHECKING:
    import torch

_WILDCARDS = frozenset("*?[")
_MOST_SIMILAR = 3


@dataclass(frozen=True)
class ParameterCounts:
    """Parameters of a model, and how many of them are trained."""

    total: int
    trained: int

    def __str__(self) -> str:
        share = f"{self.trained / self.total:.2%}" if self.total else "0%"
        return f"trains {_rounded(self.trained)} of {_rounded(self.total)} parameters ({share})"


def freeze(model: torch.nn.Module, patterns: Sequence[str]) -> None:
    """Freeze every parameter whose name matches one of the patterns.

    A pattern with `*`, `?` or `[` must match the whole name, as in file name patterns. Any other pattern must be part
    of the name, but does not match part of a number: `layers.1` does not match `layers.10`.

    Args:
        model: `requires_grad` of its parameters is changed. Add adapters first.
        patterns: patterns of names of `named_parameters`, such as `model.layers.0.mlp.up_proj.weight`.

    Raises:
        TrainingError: a pattern matches nothing, or no parameter is left to train.
    """
    parameters = dict(model.named_parameters())
    for pattern in patterns:
        found = [parameters[name] for name in names_like(pattern, parameters)]
        if not found:
            raise TrainingError(f"freeze: no parameter matches {pattern!r}; {similar_names(pattern, parameters)}")
        for values in found:
            values.requires_grad_(False)
    if patterns and not any(values.requires_grad for values in parameters.values()):
        raise TrainingError(f"freeze: {', '.join(patterns)} leaves no parameter to train")


def names_like(pattern: str, names: Iterable[str]) -> list[str]:
    """The names that a pattern matches, by the rules of `freeze`.

    Example:
        >>> names_like("layers.1", ["layers.1.up", "layers.10.up"]), names_like("*.down", ["layers.1.up"])
        (['layers.1.up'], [])
    """
    return [name for name in names if _matches(name, pattern)]


def freeze_unused(model: torch.nn.Module, unused: Collection[str]) -> str | None:
    """Freeze parameters that text does not use, such as those of a vision tower.

    Args:
        model: before adapters are added; `requires_grad` of its parameters is changed.
        unused: names of the parameters.

    Returns:
        A sentence that names the parts, if there are any.
    """
    count = 0
    for name, values in model.named_parameters():
        if name in unused:
            values.requires_grad_(False)
            count += element_count(values)
    parts = _largest_parts(unused, [name for name, _ in model.named_parameters()])
    return f"frozen, because text gives them no gradient: {', '.join(parts)} ({count:,} parameters)" if parts else None


def similar_names(name: str, names: Iterable[str]) -> str:
    """A hint for an error message: the names, or parts of names, that are most similar to a given name."""
    parts = dict.fromkeys(part for whole in names for part in _parts(whole))
    near = difflib.get_close_matches(name, parts, n=_MOST_SIMILAR, cutoff=0.5)
    return (
        f"did you mean {', '.join(near)}?" if near else f"use a name such as {', '.join(list(parts)[-_MOST_SIMILAR:])}"
    )


def count_parameters(model: torch.nn.Module) -> ParameterCounts:
    """Count the parameters of a model; tied ones once, quantized ones by their original number."""
    total = trained = 0
    for values in model.parameters():
        total += element_count(values)
        trained += element_count(values) if values.requires_grad else 0
    return ParameterCounts(total, trained)


def element_count(values: Any) -> int:
    """Elements of a parameter, even if this process holds them packed (bitsandbytes) or not at all (ZeRO-3)."""
    quantized = getattr(values, "quant_state", None)
    if quantized is not None:
        return int(quantized.shape.numel())
    return int(getattr(values, "ds_numel", values.numel()))


def _matches(name: str, pattern: str) -> bool:
    if _WILDCARDS & set(pattern):
        return fnmatchcase(name, pattern)
    start = r"(?<!\d)" if pattern[:1].isdigit() else ""
    end = r"(?!\d)" if pattern[-1:].isdigit() else ""
    return re.search(f"{start}{re.escape(pattern)}{end}", name) is not None


def _parts(name: str) -> list[str]:
    """A name, its prefixes (`model.layers.0`), and its words except numbers."""
    words = name.split(".")
    return [".".join(words[:count]) for count in range(1, len(words) + 1)] + [w for w in words if not w.isdigit()]


def _largest_parts(unused: Collection[str], every: Sequence[str]) -> list[str]:
    """The shortest prefixes of names, such as `model.vision_tower`, that only unused parameters have."""
    used = {prefix for name in every if name not in unused for prefix in _prefixes(name)}
    return list(dict.fromkeys(
        next(prefix for prefix in _prefixes(name) if prefix not in used) for name in every if name in unused
    ))  # fmt: skip


def _prefixes(name: str) -> list[str]:
    words = name.split(".")
    return [".".join(words[:count]) for count in range(1, len(words) + 1)]


def _rounded(count: int) -> str:
    for unit, size in (("B", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return str(count)
