"""The causal language model of a run: loaded or initialised, with an embedding for every token."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftkit.config.commands import TrainConfig
from sftkit.core.error_text import first_line
from sftkit.errors import TrainingError
from sftkit.sample import sample_path
from sftkit.training.distributed import is_main_process, warn_on_main_process
from sftkit.training.models.attention import choose_attention

if TYPE_CHECKING:
    from transformers import PreTrainedModel, TrainingArguments

_log = logging.getLogger(__name__)

_WEIGHTS = ("model*.safetensors", "pytorch_model*.bin", "model*.safetensors.index.json")


def load_model(config: TrainConfig, arguments: TrainingArguments) -> PreTrainedModel:
    """Load the model that `model_name_or_path` names, or initialise it where `init_from_config` says so.

    Call it after the process group exists: with FSDP only the first process of a machine reads the weights.

    Raises:
        TrainingError: it is not there, has no weights, or transformers cannot load it.
    """
    if config.model_name_or_path is None:
        raise TrainingError("model_name_or_path is missing: it names the model to train")
    location = str(sample_path(config.model_name_or_path))
    initialise = _has_config_only(location)
    if initialise and not config.init_from_config:
        raise TrainingError(
            f"{location} holds a config.json and no weights; init_from_config=true starts from random ones"
        )
    if initialise:
        warn_on_main_process(
            _log, f"{location} holds no weights: the model starts from random ones (seed {arguments.seed})"
        )
    make = _initialised if initialise else _loaded
    try:
        return make(location, config, arguments)
    except TrainingError:
        raise
    except Exception as error:  # transformers raises whatever the files of a model provoke
        reason = first_line(error)
        raise TrainingError(f"model {config.model_name_or_path!r} cannot be loaded: {reason}") from error


def fit_embeddings(model: PreTrainedModel, tokens: int, known_tokens: int) -> None:
    """See to it that every token has an embedding, and that a new token starts as the mean of the known ones.

    Args:
        model: its input and output embeddings are changed in place; rows are only added, never removed.
        tokens: length of the tokenizer.
        known_tokens: how many of them the model was trained with; the rest is new.

    Raises:
        TrainingError: the embedding is spread over the processes and cannot be added to.
    """
    import torch

    rows = embedding_rows(model)
    known = min(known_tokens, rows)
    if tokens <= known:
        return
    if hasattr(model.get_input_embeddings().weight, "ds_shape"):
        raise TrainingError("DeepSpeed ZeRO-3 cannot take new tokens; add them in a run without it, and train on that")
    if tokens > rows:
        model.resize_token_embeddings(tokens, mean_resizing=False)
    with torch.no_grad():
        # Tied embeddings are one matrix: the second time the same rows get the same mean.
        for values in _embeddings(model):
            values[known:tokens] = values[:known].float().mean(0).to(values.dtype)


def embedding_rows(model: PreTrainedModel) -> int:
    """How many token ids the model knows."""
    weight: Any = model.get_input_embeddings().weight
    # DeepSpeed's ZeRO-3 leaves an empty tensor in place and keeps the shape beside it.
    return int(getattr(weight, "ds_shape", weight.shape)[0])


def _embeddings(model: PreTrainedModel) -> list[Any]:
    """What has one entry a token: the input embedding, the output embedding, and its bias where it has one."""
    output = model.get_output_embeddings()  # type: ignore[no-untyped-call]  # transformers leaves it untyped
    found = [model.get_input_embeddings().weight, getattr(output, "weight", None), getattr(output, "bias", None)]
    return [values for values in found if values is not None]


def _has_config_only(location: str) -> bool:
    folder = Path(location).expanduser()
    if not (folder / "config.json").is_file():
        return False
    return not any(next(folder.glob(pattern), None) for pattern in _WEIGHTS)


def _loaded(location: str, config: TrainConfig, arguments: TrainingArguments) -> PreTrainedModel:
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = AutoConfig.from_pretrained(location, trust_remote_code=config.trust_remote_code)
    quantized: dict[str, Any] = {}
    if config.load_in_4bit:
        quantized = {"quantization_config": _four_bits(config, arguments), "device_map": {"": arguments.device}}
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        location,
        dtype=_dtype(config),
        attn_implementation=choose_attention(config, arguments, _class_of(settings)),
        trust_remote_code=config.trust_remote_code,
        output_loading_info=True,
        **quantized,
    )
    model: PreTrainedModel = loaded[0]
    report: Mapping[str, Any] = loaded[1]
    missing = sorted(report["missing_keys"])
    if missing and is_main_process():  # under FSDP the other processes get theirs later
        raise TrainingError(
            f"the weights in {location} are not a whole {type(model).__name__}:"
            f" {len(missing)} tensors are missing, {missing[0]} among them"
        )
    return model


def _four_bits(config: TrainConfig, arguments: TrainingArguments) -> Any:
    """QLoRA's way to hold the weights: NF4, the scales quantised as well (https://arxiv.org/abs/2305.14314)."""
    import torch
    from transformers import BitsAndBytesConfig

    mixed = torch.bfloat16 if arguments.bf16 else torch.float16 if arguments.fp16 else None
    given = _dtype(config)
    computed = mixed or (torch.bfloat16 if given == "auto" else given)
    make: Any = BitsAndBytesConfig
    return make(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=computed
    )


def _class_of(settings: Any) -> Any:
    """The class that transformers makes of a configuration; None for code that comes with the files."""
    from transformers import AutoModelForCausalLM

    mapping: Any = AutoModelForCausalLM._model_mapping
    return mapping.get(type(settings), None)


def _initialised(location: str, config: TrainConfig, arguments: TrainingArguments) -> PreTrainedModel:
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = AutoConfig.from_pretrained(location, trust_remote_code=config.trust_remote_code)
    dtype = _dtype(config)
    if dtype == "auto":
        dtype = settings.dtype
    make: Any = AutoModelForCausalLM.from_config
    model: PreTrainedModel = make(
        settings,
        dtype=dtype,
        attn_implementation=choose_attention(config, arguments, _class_of(settings)),
        trust_remote_code=config.trust_remote_code,
    )
    return model


def _dtype(config: TrainConfig) -> Any:
    import torch

    name = config.torch_dtype or "float32"
    return name if name == "auto" else getattr(torch, name)
