"""Prepare the model and tokenizer of a run: new tokens, adapters, frozen parameters, and capabilities."""

from __future__ import annotations

import logging
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sftkit.config.commands import TrainConfig
from sftkit.core.splits import TRAIN
from sftkit.shards.reading import ShardSet
from sftkit.storage.model_location import model_location
from sftkit.training.adapters.new_adapters import add_adapters, uses_adapters
from sftkit.training.callbacks.listener import RunListener
from sftkit.training.distributed import is_main_process, warn_on_main_process
from sftkit.training.loss.choose_chunks import chunk_loss
from sftkit.training.loss.router_loss import RouterLoss, make_router_loss
from sftkit.training.metrics.flops import training_cost
from sftkit.training.metrics.hardware import device_peak_flops
from sftkit.training.metrics.throughput import ThroughputMeter
from sftkit.training.models.capabilities import Capabilities
from sftkit.training.models.freezing import count_parameters, freeze, freeze_unused
from sftkit.training.models.model_loading import fit_embeddings, load_model
from sftkit.training.models.run_tokenizer import RunTokenizer, load_run_tokenizer
from sftkit.training.models.sequence_separation import determine_capabilities
from sftkit.training.optimization.learning_rates import RateRule, rate_rules
from sftkit.training.text.processor_files import find_processor_files
from sftkit.training.text.text_use import find_text_use

if TYPE_CHECKING:
    from transformers import TrainingArguments

_log = logging.getLogger(__name__)


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

    chunks_loss: bool = False
    """Whether the model computes its loss in chunks, and then with label smoothing, too."""

    router_loss: RouterLoss | None = None
    """The auxiliary loss of a mixture of experts, if it is trained with one."""

    processor_files: Sequence[Path] = ()
    """Of a multimodal model: how it prepares images and sound."""


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
    tokenizer = load_run_tokenizer(config, shards, evaluation_sets)
    model: Any = load_model(config, arguments)
    tokens = len(tokenizer.tokenizer)
    fit_embeddings(model, tokens, tokenizer.known_tokens, config.embedding_size_multiple_of)
    capabilities = determine_capabilities(
        model, config, arguments
    )  # before adapters are added, which hide the arguments of the model
    use = find_text_use(model, arguments)
    unused = frozenset(id(values) for name, values in model.named_parameters() if name in use.unused)
    frozen = freeze_unused(model, use.unused)
    if frozen is not None and arguments.do_train and is_main_process():
        listener.on_note(frozen)
    chunks_loss = chunk_loss(model, config, arguments, capabilities)
    if uses_adapters(config):
        model = add_adapters(model, config, range(tokenizer.known_tokens, tokens), use)
    freeze(model, config.freeze)
    rates = rate_rules(config, model) if arguments.do_train else []
    _check_positions(model, shards, config.max_seq_length)
    if is_main_process():
        trained = f"{count_parameters(model)}; " if arguments.do_train else ""
        listener.on_note(f"{trained}attention: {model.config._attn_implementation}")
    router_loss = make_router_loss(model, config.router_aux_loss_coef, arguments)
    files = find_processor_files(model_location(config.model_name_or_path or ""))
    meter = _meter(model, arguments, unused)
    return PreparedModel(model, tokenizer, capabilities, meter, rates, chunks_loss, router_loss, files)


def _meter(model: Any, arguments: TrainingArguments, unused: frozenset[int]) -> ThroughputMeter:
    dtype = torch.bfloat16 if arguments.bf16 else torch.float16 if arguments.fp16 else model.dtype
    peak = device_peak_flops(arguments.device, dtype)
    return ThroughputMeter(training_cost(model, unused), None if peak is None else peak * arguments.world_size)


def _check_positions(model: Any, shards: ShardSet, limit: int | None) -> None:
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    known = shards.manifest.splits.get(TRAIN) if shards.manifest is not None else None
    longest = min(known.length_max if known is not None else 0, limit or sys.maxsize)
    if isinstance(positions, int) and longest > positions:
        warn_on_main_process(
            _log, f"the longest row has {longest} tokens, but the model was made for {positions} positions"
        )
