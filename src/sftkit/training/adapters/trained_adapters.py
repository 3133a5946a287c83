"""Load adapters of earlier runs into a model: to train them further, to evaluate them, or to merge them into it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from sftkit.config.commands import TrainConfig
from sftkit.core.error_text import single_line
from sftkit.errors import TrainingError
from sftkit.storage.adapter_files import AdapterFiles, open_adapter
from sftkit.training.adapters.new_adapters import is_tied, without_future_warnings
from sftkit.training.adapters.variant_checks import changes_base
from sftkit.training.models.model_loading import embedding_rows, fit_embeddings

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

_REMEDY = "set model_name_or_path to the model that it was trained on"
_COPIES = (".modules_to_save.", ".original_module.")
"""In names of tensors: with new tokens, peft saves embeddings once more under the names that they have in memory."""

_NAME = "default"  # under which peft keeps the only adapter of a model; it is not written


def merge_into(model: PreTrainedModel, names: Sequence[str]) -> PreTrainedModel:
    """Merge adapters into a model, one after the other.

    Args:
        model: the model that the first was trained on; it is changed in place.
        names: of the adapters.

    Returns:
        The model, with the parameters trainable that were before.

    Raises:
        TrainingError: an adapter does not fit the model.
    """
    for name in names:
        adapter = open_adapter(name)
        if getattr(model, "is_quantized", False):
            raise TrainingError(
                f"adapter {name!r} cannot be merged into a quantized model; merge it first, with merge_only=true, and "
                "name the result as model_name_or_path"
            )
        trained = {name: values.requires_grad for name, values in model.named_parameters()}
        adapted: Any = _loaded(model, adapter, None, is_trainable=False)
        with without_future_warnings():
            model = adapted.merge_and_unload(safe_merge=False)
        for name, values in model.named_parameters():
            values.requires_grad_(trained.get(name, True))
    return model


def go_on_from(model: PreTrainedModel, config: TrainConfig, name: str, *, is_trainable: bool) -> PeftModel:
    """Load an adapter, to train it further or to evaluate it.

    Args:
        model: its base, with the adapters before it merged into it; it is changed in place.
        config: sets the dropout.
        name: of the adapter.
        is_trainable: whether it is trained further.

    Raises:
        TrainingError: the adapter does not fit the model.
    """
    return _loaded(model, open_adapter(name), config.lora_dropout, is_trainable=is_trainable)


def fit_to_adapter(model: PreTrainedModel, name: str) -> None:
    """Give the model the rows of its embeddings that an adapter needs; their values are in the adapter."""
    rows = embedding_rows(model)
    fit_embeddings(model, max(rows, open_adapter(name).embedding_rows()), rows)


def _loaded(model: PreTrainedModel, adapter: AdapterFiles, dropout: float | None, *, is_trainable: bool) -> PeftModel:
    from peft import LoraConfig, get_peft_model
    from safetensors import SafetensorError

    fit_to_adapter(model, adapter.name)
    problem = f"the adapter {adapter.name} does not fit the model {model.name_or_path or type(model).__name__}"
    try:
        settings: Any = LoraConfig.from_pretrained(str(adapter.folder))
    except (TypeError, ValueError) as error:
        raise TrainingError(f"adapter {adapter.name!r}: its settings cannot be used: {single_line(error)}") from error
    if changes_base(settings.init_lora_weights):
        raise TrainingError(
            f"adapter {adapter.name!r} is a checkpoint of a run with init_lora_weights={settings.init_lora_weights}, "
            "and fits only the base weights that this run changed; resume the run, or name what it saves at its end"
        )
    settings.inference_mode = not is_trainable
    settings.base_model_name_or_path = model.name_or_path
    if dropout is not None:
        settings.lora_dropout = dropout
    # A tied output head has no rows of its own, and peft saves those of the input embedding a second time.
    tied_head = f"{_name_of_tied_head(model)}."
    make: Any = get_peft_model
    try:
        with without_future_warnings(), _without_warnings_of_peft():
            adapted: PeftModel = make(model, settings, adapter_name=_NAME)
            result = adapted.load_adapter(str(adapter.folder), _NAME, is_trainable=is_trainable)
    except (SafetensorError, EOFError, UnpicklingError) as error:
        raise TrainingError(f"{adapter.weights}: cannot be read: {single_line(error)}; copy the file again") from error
    except (RuntimeError, KeyError, ValueError, OSError) as error:  # sizes, modules that are missing, damaged files
        raise TrainingError(f"{problem}: {_reason(error)}; {_REMEDY}") from error
    unknown = [
        key
        for key in result.unexpected_keys
        if not _plain(key).startswith(tied_head) and not any(part in key for part in _COPIES)
    ]
    lacking = [*result.missing_keys, *unknown]
    if lacking:
        what = "the adapter has no weights for" if result.missing_keys else "the model has no module for"
        raise TrainingError(f"{problem}: {what} {_plain(lacking[0])}{_more(lacking)}; {_REMEDY}")
    return adapted


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"it has no weights for {_plain(str(error.args[0]))}"
    text = single_line(error)
    mismatch = text.partition("size mismatch for ")[2].partition("size mismatch for ")[0]  # torch lists them all
    return _plain(mismatch.strip().rstrip(".")) or text


def _name_of_tied_head(model: PreTrainedModel) -> str:
    head: Any = model.get_output_embeddings()  # type: ignore[no-untyped-call]  # transformers leaves it untyped
    if not is_tied(model):
        return ""
    return next((name for name, module in model.named_modules() if module is head), "")


def _plain(key: str) -> str:
    return key.removeprefix("base_model.model.")


def _more(keys: Sequence[str]) -> str:
    return f" and {len(keys) - 1} more" if len(keys) > 1 else ""


@contextmanager
def _without_warnings_of_peft() -> Iterator[None]:
    """Hide what peft says of keys that are missing; it is raised as an error."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="peft")
        yield
