"""Load or initialize the model of a run, with an embedding for every token."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftkit.config.commands import TrainConfig
from sftkit.core.error_text import first_line
from sftkit.errors import ConfigError, TrainingError
from sftkit.storage.hub_revision import split_revision
from sftkit.storage.model_location import adapter_base, hub_problem, model_location
from sftkit.training.arguments.public_values import PublicValues
from sftkit.training.distributed import is_main_process, warn_on_main_process
from sftkit.training.loading.model_kwargs import failure_by_kwargs, weights_misfit
from sftkit.training.loading.model_settings import model_settings, quantization_arguments
from sftkit.training.models.attention import choose_attention
from sftkit.training.models.generation_defaults import repair_generation_config
from sftkit.training.models.model_name import adapter_error
from sftkit.training.multimodal.model_class import answer_as_text_model, auto_class, model_class
from sftkit.training.tensor_parallel import loading_arguments

if TYPE_CHECKING:
    from transformers import PreTrainedModel, TrainingArguments

_log = logging.getLogger(__name__)

_WEIGHTS = ("model*.safetensors", "pytorch_model*.bin", "model*.safetensors.index.json")


def load_model(config: TrainConfig, arguments: TrainingArguments) -> PreTrainedModel:
    """Load the model named by `model_name_or_path`, or initialize it with random weights (`init_from_config`).

    Call it after the process group has been set up: with FSDP, only the first process of a machine reads the weights.

    Raises:
        TrainingError: the model does not exist, has no weights, or transformers cannot load it.
        ConfigError: `model_kwargs` are the reason why it cannot be loaded.
    """
    if config.model_name_or_path is None:
        raise TrainingError("model_name_or_path is missing; set it to the model to train")
    location = model_location(config.model_name_or_path)
    initialize = _is_initialized(config, location)
    if initialize:
        warn_on_main_process(
            _log, f"{location} has no weights: the model starts from random ones (seed {arguments.seed})"
        )
    return _make(_initialize if initialize else _load, location, config, arguments)


def outline_model(config: TrainConfig, arguments: TrainingArguments) -> PreTrainedModel:
    """The same model as `load_model` returns, but without weights: its parameters have a size only (torch's `meta`).

    Only the config of the model is read.

    Raises:
        TrainingError: the model does not exist, has no weights, or transformers does not know its type.
    """
    if config.model_name_or_path is None:
        raise TrainingError("model_name_or_path is missing; set it to the model to train")
    location = model_location(config.model_name_or_path)
    _is_initialized(config, location)
    return _make(_outline, location, config, arguments)


def _is_initialized(config: TrainConfig, location: str) -> bool:
    """Whether the weights are random; `TrainingError` if there are none, and random ones were not asked for."""
    if not _has_config_only(config.model_name_or_path or "", location):
        return False
    if not config.init_from_config:
        raise TrainingError(
            f"{location} has a config.json but no weights; set init_from_config=true to start from random ones"
        )
    return True


def _make(
    make: Callable[[str, TrainConfig, TrainingArguments], PreTrainedModel],
    location: str,
    config: TrainConfig,
    arguments: TrainingArguments,
) -> PreTrainedModel:
    assert config.model_name_or_path is not None
    try:
        _refuse_adapter(config.model_name_or_path, location)
        model = make(location, config, arguments)
    except (ConfigError, TrainingError):
        raise
    except Exception as error:  # the files of a model can make transformers raise anything
        unavailable = hub_problem(config.model_name_or_path, error)
        reason = unavailable or first_line(error)
        problem = None if unavailable else _kwargs_problem(location, config, arguments, error)
        if problem is not None:
            raise ConfigError(problem) from error
        raise TrainingError(f"model {config.model_name_or_path!r} cannot be loaded: {reason}") from error
    name = PublicValues.of(config).text(config.model_name_or_path)
    if name != config.model_name_or_path:
        model.config._name_or_path = model.name_or_path = name  # which trackers and adapters are given
    answer_as_text_model(model)
    repair_generation_config(model)
    return model


def _kwargs_problem(location: str, config: TrainConfig, arguments: TrainingArguments, error: Exception) -> str | None:
    """What in `model_kwargs` made an error of transformers; None if it has another reason."""

    def outline(changed: TrainConfig) -> PreTrainedModel:
        return _outline(location, changed, arguments)

    if "mismatched" in str(error):  # transformers lists sizes that differ in a log message only
        return weights_misfit(config, outline)
    return failure_by_kwargs(config, outline, _reason(error))


def _reason(error: Exception) -> str:
    return f"{first_line(error)} is unknown" if isinstance(error, KeyError) and error.args else first_line(error)


def fit_embeddings(model: PreTrainedModel, tokens: int, known_tokens: int, multiple_of: int = 1) -> None:
    """Give every token an embedding; that of a new token starts as the mean of the known ones.

    Args:
        model: its input and output embeddings are changed in place; rows are only added.
        tokens: length of the tokenizer.
        known_tokens: how many of them the model was trained with; the others are new.
        multiple_of: what the number of rows is a multiple of afterwards; rows without a token start as the mean, too.

    Raises:
        TrainingError: the embedding is sharded over the processes, so that no row can be added.
    """
    import torch

    rows = embedding_rows(model)
    known = min(known_tokens, rows)
    size = -(-max(tokens, rows) // multiple_of) * multiple_of
    if tokens <= known and size == rows:
        return
    if hasattr(model.get_input_embeddings().weight, "ds_shape"):
        raise TrainingError(
            "DeepSpeed ZeRO-3 cannot add new tokens; add them in a run without it, and train the model it saves"
        )
    if hasattr(model.get_input_embeddings().weight, "device_mesh"):
        raise TrainingError(
            f"parallelism_config: with tp_size, no row can be added to the embedding ({rows} rows, {tokens} tokens); "
            "add them in a run without it, and train the model it saves"
        )
    if size > rows:
        model.resize_token_embeddings(size, mean_resizing=False)
    with torch.no_grad():
        # Tied embeddings are one matrix; the second assignment then repeats the first.
        for values in _embeddings(model):
            mean = values[:known].float().mean(0).to(values.dtype)
            values[known:tokens] = mean
            values[rows:] = mean


def embedding_rows(model: PreTrainedModel) -> int:
    """Rows of the input embedding: every token id is below it."""
    weight: Any = model.get_input_embeddings().weight
    # DeepSpeed ZeRO-3 leaves an empty tensor in its place, with the original shape as an attribute.
    return int(getattr(weight, "ds_shape", weight.shape)[0])


def _embeddings(model: PreTrainedModel) -> list[Any]:
    """The tensors with one entry per token: input embedding, output embedding, and its bias if it has one."""
    output = model.get_output_embeddings()  # type: ignore[no-untyped-call]  # transformers leaves it untyped
    found = [model.get_input_embeddings().weight, getattr(output, "weight", None), getattr(output, "bias", None)]
    return [values for values in found if values is not None]


def _refuse_adapter(name: str, location: str) -> None:
    """Raise `TrainingError` for an adapter, in whose place transformers would load its base model."""
    from transformers.utils.peft_utils import find_adapter_config_file

    found: str | None = find_adapter_config_file(location)  # of a directory or, unlike check_model_name, of the Hub
    if found is not None:
        raise adapter_error(name, adapter_base(str(Path(found).parent)) or "")


def _has_config_only(name: str, location: str) -> bool:
    folder = Path(location)
    if not (folder / "config.json").is_file() or split_revision(name)[1] is not None:
        return False
    return not any(next(folder.glob(pattern), None) for pattern in _WEIGHTS)


def _load(location: str, config: TrainConfig, arguments: TrainingArguments) -> PreTrainedModel:
    settings, given = model_settings(location, config)
    repository, revision = split_revision(config.model_name_or_path or "")
    if revision is not None:  # its directory has no weights; transformers downloads those that it needs
        location, given["revision"] = repository, revision
    loaded: Any = auto_class(settings).from_pretrained(
        location,
        config=settings,
        dtype=_dtype(config),
        attn_implementation=choose_attention(config, arguments, model_class(settings)),
        trust_remote_code=config.trust_remote_code,
        output_loading_info=True,
        **quantization_arguments(config, arguments, settings),
        **loading_arguments(arguments),
        **given,
    )
    model: PreTrainedModel = loaded[0]
    report: Mapping[str, Any] = loaded[1]
    missing = sorted(report["missing_keys"])
    if missing and is_main_process():  # under FSDP the other processes receive theirs later
        problem = weights_misfit(config, lambda changed: _outline(location, changed, arguments))
        if problem is not None:
            raise ConfigError(problem)
        raise TrainingError(
            f"the weights in {location} are not a complete {type(model).__name__}:"
            f" {len(missing)} tensors are missing, including {missing[0]}"
        )
    return model


def _initialize(location: str, config: TrainConfig, arguments: TrainingArguments) -> PreTrainedModel:
    settings, given = model_settings(location, config)
    if given:
        raise ConfigError(f"model_kwargs: the config of this model has no {next(iter(given))}; remove it")
    attention = choose_attention(config, arguments, model_class(settings))
    return _from_config(settings, config, attention)


def _outline(location: str, config: TrainConfig, arguments: TrainingArguments) -> PreTrainedModel:
    import torch

    settings, _ = model_settings(location, config)
    with torch.device("meta"):
        return _from_config(settings, config, None)


def _from_config(settings: Any, config: TrainConfig, attention: str | None) -> PreTrainedModel:
    dtype = _dtype(config)
    if dtype == "auto":
        dtype = settings.dtype or settings.get_text_config().dtype
    make: Any = auto_class(settings).from_config
    model: PreTrainedModel = make(
        settings, dtype=dtype, attn_implementation=attention, trust_remote_code=config.trust_remote_code
    )
    return model


def _dtype(config: TrainConfig) -> Any:
    import torch

    name = config.torch_dtype or "float32"
    return name if name == "auto" else getattr(torch, name)
