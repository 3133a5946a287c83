"""Which parameters are trained: patterns that freeze some, and how many are left."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from sftkit.errors import TrainingError

if TYPE_CHECKING:
    import torch

_WILDCARDS = frozenset("*?[")
_NEAR = 3


@dataclass(frozen=True)
class ParameterCounts:
    """Numbers of a model, and those among them that are trained."""

    total: int
    trained: int

    def __str__(self) -> str:
        share = f"{self.trained / self.total:.2%}" if self.total else "0%"
        return f"trains {_rounded(self.trained)} of {_rounded(self.total)} parameters ({share})"


def freeze(model: torch.nn.Module, patterns: Sequence[str]) -> None:
    """Train no parameter whose name holds one of the patterns.

    A pattern with `*`, `?` or `[` must match the whole name, as file names are matched. Any other is a part of it;
    where it begins or ends with a digit, the number is whole: `layers.1` is not in `layers.10`.

    Args:
        model: its parameters' `requires_grad` is changed; call it after adapters were added.
        patterns: of names as `named_parameters` gives them, such as `model.layers.0.mlp.up_proj.weight`.

    Raises:
        TrainingError: a pattern matches nothing, or nothing would be left to train.
    """
    parameters = dict(model.named_parameters())
    for pattern in patterns:
        found = [values for name, values in parameters.items() if _matches(name, pattern)]
        if not found:
            raise TrainingError(f"freeze: no parameter is called {pattern!r}; {similar_names(pattern, parameters)}")
        for values in found:
            values.requires_grad_(False)
    if patterns and not any(values.requires_grad for values in parameters.values()):
        raise TrainingError(f"freeze: {', '.join(patterns)} leaves no parameter to train")


def similar_names(name: str, names: Iterable[str]) -> str:
    """The names, and parts of names, that are spelt most like one, for an error message."""
    parts = dict.fromkeys(part for whole in names for part in _parts(whole))
    near = difflib.get_close_matches(name, parts, n=_NEAR, cutoff=0.5)
    return f"names like it: {', '.join(near)}" if near else f"there are {', '.join(list(parts)[-_NEAR:])}, ..."


def count_parameters(model: torch.nn.Module) -> ParameterCounts:
    """Count a model's parameters; tied ones once, those of 4 bits as what they stand for."""
    total = trained = 0
    for values in model.parameters():
        total += element_count(values)
        trained += element_count(values) if values.requires_grad else 0
    return ParameterCounts(total, trained)


def element_count(values: Any) -> int:
    """Elements of a parameter, also where this process holds them packed (bitsandbytes) or not at all (ZeRO-3)."""
    quantized = getattr(values, "quant_state", None)
    if quantized is not None:
        return int(quantized.shape.numel())
    return int(getattr(values, "ds_numel", values.numel()))


def _matches(name: str, pattern: str) -> bool:
    if _WILDCARDS & set(pattern):
        return fnmatchcase(name, pattern)
    begin = r"(?<!\d)" if pattern[:1].isdigit() else ""
    end = r"(?!\d)" if pattern[-1:].isdigit() else ""
    return re.search(f"{begin}{re.escape(pattern)}{end}", name) is not None


def _parts(name: str) -> list[str]:
    """A name, the modules on its way (`model.layers.0`), and its words that are no numbers."""
    words = name.split(".")
    return [".".join(words[:count]) for count in range(1, len(words) + 1)] + [w for w in words if not w.isdigit()]


def _rounded(count: int) -> str:
    for unit, size in (("B", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return str(count)
