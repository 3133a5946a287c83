"""The model of a run without its weights, with the adapters and the frozen parameters that the run would have."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sftkit.config.commands import TrainConfig
from sftkit.storage.adapter_files import open_adapter
from sftkit.training.adapters.adapter_choice import continued_adapter, uses_adapters
from sftkit.training.adapters.new_adapters import add_adapters, without_future_warnings
from sftkit.training.adapters.trained_adapters import fit_to_adapter
from sftkit.training.metrics.flops import TrainingCost, training_cost
from sftkit.training.models.capabilities import Capabilities, capabilities_by_class
from sftkit.training.models.freezing import ParameterCounts, count_parameters, freeze, freeze_unused
from sftkit.training.models.model_loading import fit_embeddings, outline_model
from sftkit.training.models.run_tokenizer import RunTokenizer
from sftkit.training.multimodal.text_use import has_other_parts, text_use_by_class

if TYPE_CHECKING:
    from transformers import TrainingArguments


@dataclass(frozen=True)
class OutlinedModel:
    """What is known of a model before its weights are loaded."""

    model: Any
    """A PreTrainedModel, or a PeftModel around one, whose parameters are on torch's device `meta`."""

    capabilities: Capabilities
    """What is expected of its class, or what the config says."""

    parameters: ParameterCounts
    adapters: bool
    """Whether LoRA adapters are trained."""

    cost: TrainingCost | None
    """None if it cannot be computed, see `training_cost`."""

    weight_bytes: int
    """Weights that are saved: of the model, or of the adapters."""


def outline(config: TrainConfig, arguments: TrainingArguments, tokenizer: RunTokenizer) -> OutlinedModel:
    """Outline the model of a run, from the config of the model alone.

    Raises:
        TrainingError: the model is not known to transformers, or lacks a module or parameter named in the config.
    """
    model: Any = outline_model(config, arguments)
    tokens, adapter = len(tokenizer.tokenizer), continued_adapter(config)
    if adapter is not None:
        fit_to_adapter(model, adapter)
    fit_embeddings(model, tokens, tokenizer.known_tokens, config.embedding_size_multiple_of if adapter is None else 1)
    capabilities = capabilities_by_class(model)
    if config.padding_free == "true":  # the run tries it, and ends if it is not so
        capabilities = replace(capabilities, separates_sequences=True)
    use = text_use_by_class(model)
    unused = frozenset(id(values) for name, values in model.named_parameters() if name in use.unused)
    if has_other_parts(model):
        freeze_unused(model, use.unused)
    adapts = adapter is not None or uses_adapters(config)
    if adapter is not None:
        model = _with_settings_of(model, adapter)
    elif adapts:
        # The number of parameters does not depend on how adapters begin, and some begin in the weights.
        plain = replace(config, init_lora_weights=None)
        model = add_adapters(model, plain, range(tokenizer.known_tokens, tokens), use)
    freeze(model, config.freeze)
    saved = [values for values in model.parameters() if values.requires_grad or not adapts]
    return OutlinedModel(
        model=model,
        capabilities=capabilities,
        parameters=count_parameters(model),
        adapters=adapts,
        cost=training_cost(model, unused),
        weight_bytes=sum(values.numel() * values.element_size() for values in saved),
    )


def _with_settings_of(model: Any, name: str) -> Any:
    """A model with an adapter of the same settings as one of an earlier run."""
    from peft import LoraConfig, get_peft_model

    settings: Any = LoraConfig.from_pretrained(str(open_adapter(name).folder))
    settings.inference_mode = False
    make: Any = get_peft_model
    with without_future_warnings():
        return make(model, settings)
