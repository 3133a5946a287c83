"""Choose the modules of a model that get LoRA adapters.

`all-linear` means every linear module except the output head. Left out are modules in which an adapter would learn
nothing or break the model: those that text does not use (vision and audio parts), routers of mixtures of experts, and
modules whose weight the model reads without calling them, around which an adapter is ignored (the output projection of
Mamba, for which peft refuses adapters).
"""

from __future__ import annotations

import importlib
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from sftkit.config.commands import TrainConfig
from sftkit.errors import TrainingError
from sftkit.training.distributed import warn_on_main_process
from sftkit.training.models.freezing import similar_names
from sftkit.training.multimodal.text_use import TextUse, is_routed_expert

_log = logging.getLogger(__name__)

ALL_LINEAR = "all-linear"
_GATE = "gate"

_ROUTER = re.compile(r"(?:^|\.)(?:gate|router|wg|classifier|(?:\w+_)?router(?:_\w+)?|gate_proj_router)$")
_EXPERT_COUNTS = (
    "num_experts",
    "num_local_experts",
    "n_routed_experts",
    "moe_num_experts",
    "num_routed_experts",
    "n_experts",
)


def adapter_targets(model: Any, config: TrainConfig, use: TextUse) -> str | list[str]:
    """Return the modules that get an adapter, as `target_modules` of peft.

    Args:
        model: before adapters are added.
        config: has `lora_target_modules` and `lora_exclude_modules`.
        use: what the model uses to compute text.

    Returns:
        The words of the config if they mean the same modules to peft, otherwise the full names of the modules.

    Raises:
        TrainingError: a name in the config does not exist, its module cannot have an adapter, or none is left.
    """
    modules = {name: module for name, module in model.named_modules() if name}
    experts = fused_experts(model)
    named = [name for name in config.lora_target_modules if name != ALL_LINEAR]
    check_names("lora_target_modules", [name for name in named if name not in experts], modules)
    excluded = _excluded(config.lora_exclude_modules, modules)
    if ALL_LINEAR in config.lora_target_modules:
        linear = _linear(model, modules)
        reasons = {name: _reason(model, name, modules[name], use) for name in linear}
        kept = [name for name in linear if reasons[name] is None and name not in excluded]
        _name_omitted({name: why for name, why in reasons.items() if why is not None and name not in excluded})
        # peft takes the router for a linear module, too, where experts are one tensor.
        kept += [name for name in experts if name != _GATE]
        words: str | list[str] = ALL_LINEAR
        meant = [*linear, *experts]
    else:
        meant = [name for name in modules if any(_ends(name, target) for target in named)]
        meant += [name for name in named if name in experts]
        candidates = [name for name in meant if name not in excluded]
        kept = [name for target in named for name in _usable(model, target, candidates, modules, use)]
        words = named
    if any(_ends(name, "experts") for name in excluded):
        kept = [name for name in kept if name.rpartition(".")[2] not in experts]
    if not kept:
        raise TrainingError(
            "lora_target_modules: no module is left to adapt; name fewer in lora_exclude_modules, or others here"
        )
    return words if set(kept) == set(meant) else list(dict.fromkeys(kept))


def fused_experts(model: Any) -> list[str]:
    """Names of linear modules that peft takes for the experts of a model whose experts are one tensor.

    They are the names of modules in transformers 4: with them in `target_modules`, peft adapts the tensors.
    """
    try:
        conversion: Any = importlib.import_module("peft.utils.transformers_weight_conversion")
        kind = conversion._MODEL_TO_CONVERSION_PATTERN.get(model.config.model_type)
        return list(conversion._MOE_TARGET_MODULE_MAPPING.get(kind, {}))
    except (ImportError, AttributeError):  # another version of peft, which has other names or none
        return []


def check_names(key: str, names: Sequence[str], existing: Iterable[str]) -> None:
    """Check that modules exist: a module is named by its full name or its last parts, as in peft.

    Raises:
        TrainingError: with similar names.
    """
    full_names = list(existing)
    for name in names:
        if not any(_ends(full, name) for full in full_names):
            raise TrainingError(f"{key}: the model has no module {name!r}; {similar_names(name, full_names)}")


def _excluded(names: Sequence[str], modules: Mapping[str, Any]) -> set[str]:
    """The modules that a name in `lora_exclude_modules` means, with everything inside them."""
    found: set[str] = set()
    for name in names:
        meant = {full for full in modules if f".{name}." in f".{full}."}
        if not meant:
            raise TrainingError(
                f"lora_exclude_modules: the model has no module {name!r}; {similar_names(name, modules)}"
            )
        found |= meant
    return found


def _linear(model: Any, modules: Mapping[str, Any]) -> list[str]:
    """What peft takes for `all-linear`."""
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    return [
        name for name, module in modules.items() if isinstance(module, (torch.nn.Linear, Conv1D)) and module is not head
    ]


def _usable(model: Any, target: str, candidates: Sequence[str], modules: Mapping[str, Any], use: TextUse) -> list[str]:
    """The modules of one name in the config; those that text does not use are left out if others are used."""
    meant = [name for name in candidates if _ends(name, target)]
    if target not in modules and target in meant:  # experts
        return [target, *(name for name in meant if name in use.modules)]
    refusal = next((why for name in meant if (why := _refusal(model, name)) is not None), None)
    if refusal is not None:
        raise TrainingError(f"lora_target_modules: {target!r} cannot have an adapter: {refusal}; leave it out")
    used = [
        name
        for name in meant
        if not _is_leaf(modules[name]) or (name in use.modules and f"{name}.weight" not in use.unused)
    ]
    if meant and not used:
        raise TrainingError(
            f"lora_target_modules: {target!r} cannot have an adapter: the model does not call it to compute text, or "
            "it returns more than a tensor; leave it out"
        )
    if len(used) < len(meant):
        _name_omitted({name: "text does not use them" for name in meant if name not in used})
    return used


def _reason(model: Any, name: str, module: torch.nn.Module, use: TextUse) -> str | None:
    """Why `all-linear` leaves a module out; None if it gets an adapter."""
    if _is_router(model, name, module):
        return "they choose experts"
    if (refusal := _refusal(model, name)) is not None:
        return refusal
    if is_routed_expert(f"{name}."):
        return None
    if f"{name}.weight" in use.unused:
        return "text does not use them"
    if name not in use.modules:
        return "the model does more with their weights than to multiply by them, which an adapter would not"
    return None


def _is_router(model: Any, name: str, module: torch.nn.Module) -> bool:
    """Whether a module gives each token a score for every expert."""
    config = model.config.get_text_config()
    counts = {getattr(config, key, None) for key in _EXPERT_COUNTS} - {None}
    width = getattr(module, "out_features", None)
    return (bool(counts) and "router" in type(module).__name__.lower()) or (
        width in counts and _ROUTER.search(name) is not None
    )


def _refusal(model: Any, name: str) -> str | None:
    """Why peft refuses an adapter for a module whatever it is; None if it does not."""
    from peft import LoraConfig
    from peft.tuners.lora import LoraModel

    # The check of peft itself, which is a method that uses nothing of its instance.
    check: Any = getattr(LoraModel, "_check_target_module_compatiblity", None)
    try:
        if check is not None:
            check(None, LoraConfig(), model, name.rpartition(".")[2])
    except ValueError:
        return "peft refuses them, because kernels of Mamba read the weight without calling the module"
    return None


def _name_omitted(reasons: Mapping[str, str]) -> None:
    """Say which modules get no adapter: the last parts of their names, or the part of the model they are in."""
    by_reason: dict[str, list[str]] = {}
    for name, why in reasons.items():
        by_reason.setdefault(why, []).append(name)
    for why, names in by_reason.items():
        shown = dict.fromkeys(_short(name) for name in names)
        warn_on_main_process(_log, f"LoRA leaves out {len(names)} linear modules ({', '.join(shown)}): {why}")


def _short(name: str) -> str:
    """The last part of a name that is not a number, with what follows: `q_proj`, `mlp.0`."""
    words = name.split(".")
    last = max((place for place, word in enumerate(words) if not word.isdigit()), default=0)
    return ".".join(words[last:])


def _is_leaf(module: torch.nn.Module) -> bool:
    return next(module.children(), None) is None


def _ends(full: str, name: str) -> bool:
    return full == name or full.endswith(f".{name}")
