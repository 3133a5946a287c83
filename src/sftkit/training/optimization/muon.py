"""Muon for the hidden matrices of a model, and AdamW for everything else, as one optimizer.

Sources: https://kellerjordan.github.io/posts/muon/ (which parameters), https://arxiv.org/abs/2502.16982 (the scale of
updates with which learning rate and weight decay of AdamW can be used).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from sftkit.training.optimization.parameter_groups import ParameterGroup

_IS_MUON = "muon"


class MuonWithAdamW(torch.optim.Optimizer):
    """Updates some groups of parameters by `torch.optim.Muon` and the others by `torch.optim.AdamW`.

    Groups, learning rates and state are those of this optimizer, so schedulers and checkpoints see a single one.
    """

    def __init__(
        self,
        params: Sequence[ParameterGroup],
        *,
        lr: float,
        matrices: frozenset[int],
        betas: tuple[float, float],
        eps: float,
        **muon: Any,
    ) -> None:
        """Set up the optimizer.

        Args:
            params: groups of parameters. One that has both kinds becomes two.
            lr: learning rate of groups that have none.
            matrices: `id` of the parameters for Muon; all of them have two dimensions.
            betas: for AdamW.
            eps: for AdamW.
            **muon: settings of Muon.

        Raises:
            ValueError: a setting has a value that cannot be.
        """
        groups = [part for group in params for part in _parts(group, matrices)]
        kept = [group for index, group in enumerate(groups) if group["params"] or not index]
        chosen = {is_muon: [group for group in kept if group[_IS_MUON] is is_muon] for is_muon in (True, False)}
        self._inner: dict[bool, torch.optim.Optimizer] = {}
        if chosen[True]:
            self._inner[True] = torch.optim.Muon(chosen[True], lr=lr, **muon)
        if chosen[False]:
            self._inner[False] = torch.optim.AdamW(chosen[False], lr=lr, betas=betas, eps=eps)
        super().__init__(kept, {"lr": lr})  # the same groups, to which the optimizers above have added their settings

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all parameters."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for is_muon, optimizer in self._inner.items():
            # Loading a state replaces both, so they are shared again in every step.
            optimizer.param_groups = [group for group in self.param_groups if group[_IS_MUON] is is_muon]
            optimizer.state = self.state
            optimizer.step()
        return loss


def hidden_matrices(model: Any) -> frozenset[int]:
    """`id` of the trained parameters with two dimensions that are in no embedding, nor in the output head.

    Stacked matrices of experts have three dimensions and are not among them.
    """
    head = model.get_output_embeddings()
    others = [module for module in model.modules() if isinstance(module, torch.nn.Embedding) or module is head]
    excluded = {id(values) for module in others for values in module.parameters()}
    return frozenset(
        id(values)
        for values in model.parameters()
        if values.requires_grad and values.dim() == 2 and id(values) not in excluded
    )


def _parts(group: ParameterGroup, matrices: frozenset[int]) -> list[ParameterGroup]:
    """The part of a group for Muon, then that for AdamW."""
    return [
        {**group, "params": [p for p in group["params"] if (id(p) in matrices) is is_muon], _IS_MUON: is_muon}
        for is_muon in (True, False)
    ]
