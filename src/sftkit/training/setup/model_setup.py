"""Prepare the model and tokenizer of a run: new tokens, adapters, frozen parameters, and capabilities."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftkit.config.commands import TrainConfig
from sftkit.errors import TrainingError
from sftkit.shards.reading import ShardSet
from sftkit.storage.adapter_files import open_adapter
from sftkit.storage.model_location import model_location
from sftkit.training.adapters.adapter_check import check_adapters
from sftkit.training.adapters.adapter_choice import adapters_to_merge, continued_adapter, uses_adapters
from sftkit.training.adapters.converted_adapters import InitialWeights, initial_weights
from sftkit.training.adapters.new_adapters import add_adapters
from sftkit.training.adapters.trained_adapters import fit_to_adapter, go_on_from, merge_into
from sftkit.training.adapters.variant_checks import changes_base
from sftkit.training.callbacks.listener import RunListener, tell_phase
from sftkit.training.distributed import is_main_process
from sftkit.training.loss.choose_chunks import chunk_loss
from sftkit.training.loss.router_loss import RouterLoss, make_router_loss
from sftkit.training.metrics.flops import training_cost
from sftkit.training.metrics.hardware import device_peak_flops
from sftkit.training.metrics.throughput import ThroughputMeter
from sftkit.training.mixed_precision import mixed_precision
from sftkit.training.models.capabilities import Capabilities
from sftkit.training.models.freezing import count_parameters, freeze, freeze_unused
from sftkit.training.models.model_loading import fit_embeddings, load_model
from sftkit.training.models.run_tokenizer import RunTokenizer, load_run_tokenizer
from sftkit.training.models.sequence_separation import determine_capabilities
from sftkit.training.multimodal.processor_files import find_processor_files
from sftkit.training.multimodal.text_use import find_text_use, has_other_parts
from sftkit.training.optimization.learning_rates import RateRule, rate_rules
from sftkit.training.optimization.lora_plus import lora_plus_rules
from sftkit.training.setup.unused_parameters import find_unused_parameters
from sftkit.training.trials.sequence_rope import depends_on_length

if TYPE_CHECKING:
    from transformers import TrainingArguments


@dataclass(frozen=True)
class PreparedModel:
    """A model that is ready to be trained."""

    model: Any
    """A PreTrainedModel, or a PeftModel around one."""

    tokenizer: RunTokenizer
    capabilities: Capabilities

    meter: ThroughputMeter
    """Knows the cost of the model and the peak of the hardware."""

    rates: Sequence[RateRule] = ()
    """Parameters with learning rates of their own."""

    loss_chunk_size: int | None = None
    """Positions of a chunk if the model computes its loss in chunks, and then with label smoothing, too."""

    router_loss: RouterLoss | None = None
    """The auxiliary loss of a mixture of experts, if it is trained with one."""

    processor_files: Sequence[Path] = ()
    """Of a multimodal model: how it prepares images and sound."""

    initial_weights: InitialWeights | None = None
    """Of adapters that took their first values out of the base weights."""


def prepare_model(
    config: TrainConfig,
    arguments: TrainingArguments,
    shards: ShardSet,
    listener: RunListener,
    evaluation_sets: Collection[ShardSet] = (),
) -> PreparedModel:
    """Load model and tokenizer, and change them as configured.

    Raises:
        TrainingError: they cannot be loaded, do not match the shards, or lack a module or parameter in the config.
        TokenizerError: the tokenizer cannot be loaded.
        ConfigError: its auxiliary loss cannot be trained with these settings.
    """
    tell_phase(listener, f"loading the model from {config.model_name_or_path}")
    tokenizer = load_run_tokenizer(config, shards, evaluation_sets)
    model: Any = merge_into(load_model(config, arguments), adapters_to_merge(config))
    tokens = len(tokenizer.tokenizer)
    adapter = continued_adapter(config)
    if adapter is not None:
        fit_to_adapter(model, adapter)
        _refuse_new_tokens(tokenizer, adapter)
    fit_embeddings(model, tokens, tokenizer.known_tokens, config.embedding_size_multiple_of if adapter is None else 1)
    tell_phase(listener, "trying the model on short sequences")
    capabilities = determine_capabilities(
        model, config, arguments
    )  # before adapters are added, which hide the arguments of the model
    use = find_text_use(model, arguments)
    unused = frozenset(id(values) for name, values in model.named_parameters() if name in use.unused)
    frozen = freeze_unused(model, use.unused) if has_other_parts(model) else None
    if frozen is not None and arguments.do_train and is_main_process():
        listener.on_note(frozen)
    tell_phase(listener, "preparing the model")
    loss_chunk_size = chunk_loss(model, config, arguments, capabilities)
    if adapter is not None:
        model = go_on_from(model, config, adapter, is_trainable=arguments.do_train)
    elif uses_adapters(config):
        model = add_adapters(model, config, range(tokenizer.known_tokens, tokens), use)
    if adapter is not None or uses_adapters(config):
        check_adapters(model, arguments)
    freeze(model, config.freeze)
    find_unused_parameters(model, unused, config, arguments)
    rates = rate_rules(config, model) if arguments.do_train else []
    rates += lora_plus_rules(config.loraplus_lr_ratio, model, arguments.learning_rate, rates)
    if is_main_process():
        _tell_of_adapters(config, listener)
        trained = f"{count_parameters(model)}; " if arguments.do_train else ""
        listener.on_note(f"{trained}attention: {model.config._attn_implementation}")
        if depends_on_length(model):
            listener.on_note("rotary embeddings depend on the length: each sequence has those of its own length")
    router_loss = make_router_loss(model, config.router_aux_loss_coef, arguments)
    files = find_processor_files(model_location(config.model_name_or_path or ""))
    meter = _meter(model, arguments, unused)
    begins_in_base = adapter is None and uses_adapters(config) and changes_base(config.init_lora_weights)
    return PreparedModel(
        model,
        tokenizer,
        capabilities,
        meter,
        rates,
        loss_chunk_size,
        router_loss,
        files,
        initial_weights=initial_weights(model) if begins_in_base else None,
    )


def _tell_of_adapters(config: TrainConfig, listener: RunListener) -> None:
    adapter, merged = continued_adapter(config), ", ".join(adapters_to_merge(config))
    if merged:
        listener.on_note(f"merged into {config.model_name_or_path}: {merged}")
    if merged and not uses_adapters(config):
        listener.on_note("the whole model is trained; set use_peft=true to train the adapter further instead")
    if adapter is not None:
        modules = ", ".join(open_adapter(adapter).modules)
        listener.on_note(f"continues the adapter {adapter}: rank {config.lora_r}, in {modules}")


def _refuse_new_tokens(tokenizer: RunTokenizer, adapter: str) -> None:
    new = range(tokenizer.known_tokens, len(tokenizer.tokenizer))
    names = tokenizer.tokenizer.convert_ids_to_tokens(list(new))
    if names:
        raise TrainingError(
            f"the adapter {adapter} was trained without the token {names[0]!r}, and rows of embeddings cannot be added"
            " to it; set create_new_adapter=true to merge it into the model and train a new one"
        )


def _meter(model: Any, arguments: TrainingArguments, unused: frozenset[int]) -> ThroughputMeter:
    dtype = mixed_precision(arguments) or model.dtype
    peak = device_peak_flops(arguments.device, dtype)
    return ThroughputMeter(training_cost(model, unused), None if peak is None else peak * arguments.world_size)
