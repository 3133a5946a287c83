"""Add LoRA and QLoRA adapters to a frozen model with peft.

Sources: LoRA, https://arxiv.org/abs/2106.09685; QLoRA (NF4, double quantization), https://arxiv.org/abs/2305.14314.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sftkit.config.commands import TrainConfig
from sftkit.core.error_text import single_line
from sftkit.errors import TrainingError
from sftkit.training.adapters.adapter_choice import NEW_ADAPTERS
from sftkit.training.adapters.adapter_targets import adapter_targets, check_names
from sftkit.training.distributed import warn_on_main_process
from sftkit.training.text.text_use import TextUse

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
            return make(model, settings)
    except Exception as error:  # modules for which peft has no adapter, overlapping names; peft can raise anything
        raise TrainingError(f"LoRA adapters cannot be added: {single_line(error)}") from error


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
