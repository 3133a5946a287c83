"""The tensors that a result was computed from, found in the graph of autograd."""

from __future__ import annotations

from typing import Any

import torch


def graph_leaves(result: torch.Tensor) -> list[torch.Tensor]:
    """The tensors that a result was computed from and that get a gradient: the ends of its graph.

    Example:
        >>> weight, unused = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
        >>> [leaf is weight for leaf in graph_leaves((weight * 3).sum())]
        [True]
    """
    found: dict[torch.Tensor, None] = {}
    seen: set[Any] = set()
    pending = [result.grad_fn]
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None:
            found[leaf] = None
        pending += [following for following, _ in node.next_functions]
    return list(found)
