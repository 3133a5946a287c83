"""Add LoRA and QLoRA adapters to a frozen model with peft.

Sources: LoRA, https://arxiv.org/abs/2106.09685; QLoRA (NF4, double quantization), https://arxiv.org/abs/2305.14314.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sftkit.config.commands import TrainConfig
from sftkit.core.error_text import single_line
from sftkit.errors import TrainingError
from sftkit.training.adapters.adapter_choice import NEW_ADAPTERS
from sftkit.training.adapters.adapter_targets import adapter_targets, check_names, fused_experts
from sftkit.training.adapters.variant_checks import changes_base
from sftkit.training.distributed import warn_on_main_process
from sftkit.training.models.freezing import similar_names
from sftkit.training.multimodal.text_use import TextUse

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

_log = logging.getLogger(__name__)


def add_adapters(model: PreTrainedModel, config: TrainConfig, new_tokens: Sequence[int], use: TextUse) -> PeftModel:
    """Add LoRA adapters to a model, and freeze everything else.

    Of the embeddings, only the rows of new tokens are trained, and saved with the adapters. If `lora_modules_to_save`
    names the embeddings, all their rows are trained.

    Args:
        model: with an embedding for every token; changed in place.
        config: rank, scale, dropout and modules of the adapters.
        new_tokens: ids that the model was not trained with.
        use: what the model uses to compute text; other modules get no adapter.

    Raises:
        TrainingError: a module in the config does not exist, or peft cannot adapt it.
    """
    from peft import LoraConfig, get_peft_model

    targets = adapter_targets(model, config, use)
    in_full = _trained_in_full(model, config)
    _check_parameters(model, config.lora_target_parameters)
    settings = LoraConfig(
        task_type="CAUSAL_LM",
        r=_setting(config, "lora_r"),
        lora_alpha=_setting(config, "lora_alpha"),
        lora_dropout=_setting(config, "lora_dropout"),
        use_rslora=_setting(config, "use_rslora"),
        use_dora=_setting(config, "use_dora"),
        init_lora_weights=config.init_lora_weights or True,  # type: ignore[arg-type]  # peft lists the words, not their numbers
        rank_pattern=dict(config.lora_rank_pattern),
        alpha_pattern=dict(config.lora_alpha_pattern),
        target_parameters=list(config.lora_target_parameters) or None,
        target_modules=targets,
        modules_to_save=in_full or None,
        trainable_token_indices=_token_rows(model, in_full, new_tokens),
        ensure_weight_tying=is_tied(model) and bool(in_full),
    )
    make: Callable[..., PeftModel] = get_peft_model
    try:
        with without_future_warnings():
            adapted = make(model, settings)
    except Exception as error:  # modules for which peft has no adapter, overlapping names; peft can raise anything
        reason = _unfit_for_experts(model, config) or single_line(error)
        raise TrainingError(f"LoRA adapters cannot be added: {reason}") from error
    _check_patterns(adapted, config)
    return adapted


@contextmanager
def without_future_warnings() -> Iterator[None]:
    """Hide warnings about deprecated names of transformers that peft uses; users cannot fix them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def _trained_in_full(model: PreTrainedModel, config: TrainConfig) -> list[str]:
    """`lora_modules_to_save`, with the input embedding in place of a head that is the same matrix."""
    names = list(config.lora_modules_to_save)
    check_names("lora_modules_to_save", names, [name for name, _ in model.named_modules()])
    if not is_tied(model):
        return names
    embedding, head = (
        next(name for name, module in model.named_modules() if module is wanted)
        for wanted in (model.get_input_embeddings(), model.get_output_embeddings())  # type: ignore[no-untyped-call]  # transformers leaves it untyped
    )
    named = [name for name in names if head == name or head.endswith(f".{name}")]
    if not named:
        return names
    short = embedding.rpartition(".")[2]
    others = [name for name in names if name not in named]
    if any(embedding == name or embedding.endswith(f".{name}") for name in others):
        return others
    warn_on_main_process(
        _log,
        f"lora_modules_to_save: {named[0]} and {short} are one matrix in this model (tied weights); it is trained, and "
        f"saved as {short}",
    )
    return [*others, short]


def _unfit_for_experts(model: PreTrainedModel, config: TrainConfig) -> str | None:
    """Name a setting that the adapters of experts do not have whose weights are one tensor."""
    cannot = {
        "lora_dropout": config.lora_dropout,
        "use_dora": config.use_dora,
        "init_lora_weights": changes_base(config.init_lora_weights) or config.init_lora_weights == "orthogonal",
    }
    key = next((key for key, value in cannot.items() if value), None)
    if key is None or not fused_experts(model):
        return None
    return (
        f"{key}={getattr(config, key)} does not work for experts whose weights are one tensor; remove it, or set "
        "lora_exclude_modules=experts"
    )


def _check_patterns(model: PeftModel, config: TrainConfig) -> None:
    """Refuse patterns that name no adapter, and ranks that adapters taken out of the weights cannot have."""
    from peft.tuners.lora import LoraLayer

    layers = {name: layer for name, layer in model.get_base_model().named_modules() if isinstance(layer, LoraLayer)}
    names = [name.replace(".base_layer", "") for name in layers]
    names += [f"{name}.{layer.parameter_name}" for name, layer in layers.items() if hasattr(layer, "parameter_name")]
    for key in ("lora_rank_pattern", "lora_alpha_pattern"):
        for pattern in getattr(config, key):
            if not any(re.match(rf"(.*\.)?({pattern})$", name) for name in names):
                raise TrainingError(
                    f"{key}: no module with an adapter matches {pattern!r}; {similar_names(pattern, names)}"
                )
    for name, layer in layers.items() if changes_base(config.init_lora_weights) else ():
        for adapter, rank in layer.r.items():
            weight: Any = layer.lora_A[adapter].weight
            found = int(weight.shape[0])
            if found != rank:
                raise TrainingError(
                    f"init_lora_weights={config.init_lora_weights}: {name} has no more than {found} parts to begin "
                    f"with; set lora_r to at most that, not {rank}"
                )


def _check_parameters(model: PreTrainedModel, names: Sequence[str]) -> None:
    existing = [name for name, _ in model.named_parameters()]
    for name in names:
        if not any(full == name or full.endswith(f".{name}") for full in existing):
            raise TrainingError(
                f"lora_target_parameters: the model has no parameter {name!r}; {similar_names(name, existing)}"
            )


def _token_rows(
    model: PreTrainedModel, in_full: Sequence[str], new_tokens: Sequence[int]
) -> dict[str, list[int]] | None:
    """The rows of the input and output embeddings that are trained, by the name of the module."""
    if not new_tokens:
        return None
    embeddings = [model.get_input_embeddings()]
    if not is_tied(model):
        embeddings.append(model.get_output_embeddings())  # type: ignore[no-untyped-call]  # transformers leaves it untyped
    names = [name for name, module in model.named_modules() if any(module is embedding for embedding in embeddings)]
    fully_trained = {name.split(".")[-1] for name in in_full}
    rows = {name: list(new_tokens) for name in names if name.split(".")[-1] not in fully_trained}
    return rows or None


def is_tied(model: PreTrainedModel) -> bool:
    """Whether input and output embeddings are one matrix."""
    output: Any = model.get_output_embeddings()  # type: ignore[no-untyped-call]  # transformers leaves it untyped
    return output is not None and output.weight is model.get_input_embeddings().weight


def _setting(config: TrainConfig, key: str) -> Any:
    value = getattr(config, key)
    return NEW_ADAPTERS[key] if value is None else value
