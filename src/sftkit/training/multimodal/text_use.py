"""Find the parts of a model that compute text, by running it on text, and freeze the others.

A multimodal model that is trained on text does not use its vision or audio parts. Their parameters get no gradient:
several processes would wait for it, and adapters in them would never learn. Which parts these are is not looked up by
names: the model is run once on a few tokens, and what took part in computing the logits is noted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from sftkit.core.error_text import first_line
from sftkit.errors import TrainingError
from sftkit.training.autograd_graph import graph_leaves
from sftkit.training.distributed import weights_are_sharded
from sftkit.training.mixed_precision import mixed_precision
from sftkit.training.trials.runs import training_mode

if TYPE_CHECKING:
    from transformers import TrainingArguments

_TOKENS = 32
_MOST_TOKENS = 4096
_EXPERT = re.compile(r"(?:^|\.)experts\.\d+\.")
"""A module for each expert: tokens choose which of them are used, so that one can miss all tokens of a batch."""


@dataclass(frozen=True)
class TextUse:
    """What a model uses to compute text."""

    unused: frozenset[str]
    """Names of parameters that the logits do not depend on. Experts that no token was sent to are not among them."""

    modules: frozenset[str]
    """Names of modules that were called and returned one tensor: an adapter around any other has no effect."""


def find_text_use(model: Any, arguments: TrainingArguments) -> TextUse:
    """Find out what a model uses to compute text, on the device it trains on and before adapters are added.

    Raises:
        TrainingError: it cannot compute logits from text alone.
    """
    if weights_are_sharded(arguments):
        return text_use_by_class(model)
    return trace_text_use(model, mixed_precision(arguments))


def trace_text_use(model: Any, precision: torch.dtype | None = None) -> TextUse:
    """Run a model on a few tokens in training mode, without training it, and note what computes the logits.

    Args:
        model: with its weights, before adapters are added.
        precision: of mixed-precision training; None for the data type of the model.

    Raises:
        TrainingError: it cannot compute logits from text alone.
    """
    called: dict[torch.nn.Module, bool] = {}

    def note(module: torch.nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        called[module] = _is_plain(module, inputs, output) and called.get(module, True)

    hooks = [module.register_forward_hook(note) for module in model.modules()]
    try:
        with training_mode(model, precision):
            logits = model(input_ids=_token_ids(model), use_cache=False).logits
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # a model can raise anything when it is used in a way it was not made for
        reason = first_line(error) or type(error).__name__
        raise TrainingError(
            f"model_name_or_path: {type(model).__name__} does not compute logits from tokens alone, and cannot be "
            f"trained on text: {reason}"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    used = {id(values) for values in graph_leaves(logits)}
    # Parameters in 4 bits have no gradient, and so are in no graph.
    used |= {id(values) for module in called for values in module.parameters(recurse=False) if not values.requires_grad}
    return TextUse(
        unused=frozenset(
            name for name, values in model.named_parameters() if id(values) not in used and not is_routed_expert(name)
        ),
        modules=frozenset(name for name, module in model.named_modules() if called.get(module, False)),
    )


def has_other_parts(model: Any) -> bool:
    """Whether a model also sees or hears, by its config.

    Only the unused parts of such a model are frozen: what a few tokens do not use of a language model, longer rows may.
    """
    return bool(model.config.sub_configs)


def text_use_by_class(model: Any) -> TextUse:
    """What the class of a model says about its parts, for one that cannot be run because its weights are sharded."""
    modules = frozenset(name for name, _ in model.named_modules())
    if model.config.get_text_config() is model.config:
        return TextUse(frozenset(), modules)
    parts = [model.get_decoder(), model.get_input_embeddings(), model.get_output_embeddings()]
    inside = {each for part in parts if part is not None for each in part.modules()}
    own = {id(values) for module in inside for values in module.parameters(recurse=False)}
    return TextUse(
        unused=frozenset(name for name, values in model.named_parameters() if id(values) not in own),
        modules=frozenset(name for name, module in model.named_modules() if module in inside),
    )


def is_routed_expert(name: str) -> bool:
    """Whether a parameter or module belongs to an expert of its own, to which no token of a batch may be sent."""
    return _EXPERT.search(name) is not None


def _token_ids(model: Any) -> torch.Tensor:
    """Random ids, shape (1, tokens), without those that stand for an image or sound."""
    rows = int(model.get_input_embeddings().weight.shape[0])
    special = set(_special_ids(model.config))
    usual = [number for number in range(min(rows, 4096)) if number not in special] or [0]
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randint(len(usual), (1, _token_count(model.config.get_text_config())), generator=generator)
    return torch.tensor(usual)[chosen].to(model.device)


def _token_count(config: Any) -> int:
    """Enough tokens for attention that compresses blocks of them: fewer than a block give its weights no gradient."""
    sizes = [0]
    for key, value in vars(config).items():
        if "compress" in key:
            values = (
                value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else [value]
            )
            sizes += [each for each in values if type(each) is int]
    return max(_TOKENS, min(2 * max(sizes) + 1, _MOST_TOKENS))


def _is_plain(module: torch.nn.Module, inputs: tuple[Any, ...], output: Any) -> bool:
    """Whether a call returned one tensor, of the shape that an adapter would add to."""
    if not torch.is_tensor(output):
        return False
    if not isinstance(module, torch.nn.Linear) or not inputs or not torch.is_tensor(inputs[0]):
        return True
    return output.shape == (*inputs[0].shape[:-1], module.out_features)


def _special_ids(config: Any) -> Iterator[int]:
    for key, value in vars(config).items():
        if isinstance(value, int) and key.endswith(("_token_id", "_token_index")):
            yield value
        elif hasattr(value, "to_dict"):
            yield from _special_ids(value)
