"""Choose the class that loads a model: a causal language model, or the whole of a multimodal one.

transformers has several Auto classes, and a multimodal model is in the mapping of one or two of them. Where
`AutoModelForCausalLM` only builds the language model of a multimodal checkpoint (Llama 4, Qwen3.5, Mllama), the other
parts would be missing from what is saved. So the class that the checkpoint names in `architectures` is taken.
"""

from __future__ import annotations

from typing import Any

import torch

from sftkit.errors import TrainingError

_CAUSAL = "AutoModelForCausalLM"
_MULTIMODAL = ("AutoModelForMultimodalLM", "AutoModelForImageTextToText")
_OTHERS = ("AutoModelForSeq2SeqLM", "AutoModelForSpeechSeq2Seq")
"""Some models that hear and have a decoder alone are found under these; encoder-decoder models are refused."""


def auto_class(settings: Any) -> Any:
    """Return the Auto class of transformers that loads the whole model of a configuration.

    Args:
        settings: a `PreTrainedConfig`, as `AutoConfig` reads it.

    Raises:
        TrainingError: it is an encoder-decoder model, or no class of transformers generates text with it.
    """
    import transformers

    found = {name: getattr(transformers, name, None) for name in (_CAUSAL, *_MULTIMODAL, *_OTHERS)}
    classes = {name: _class_in(auto, settings) for name, auto in found.items()}
    known = {name: each for name, each in classes.items() if each is not None}
    if not known:
        remote = getattr(settings, "auto_map", None) or {}
        name = next((name for name in found if name in remote), _CAUSAL)
        if remote:
            return found[name]
        raise TrainingError(
            f"model_name_or_path: transformers has no model of the type {settings.model_type!r} that generates text; "
            "name a language model"
        )
    if _CAUSAL not in known and getattr(settings, "is_encoder_decoder", False):
        raise TrainingError(
            f"model_name_or_path: {settings.model_type!r} is an encoder-decoder model; name one that only has a decoder"
            ", as sftkit trains no others"
        )
    named = getattr(settings, "architectures", None) or ()
    order = (_CAUSAL, *_MULTIMODAL) if _is_text_config(settings) else (*_MULTIMODAL, _CAUSAL)
    chosen = next((name for name in known if known[name].__name__ in named), None)
    return found[chosen or next(name for name in (*order, *_OTHERS) if name in known)]


def model_class(settings: Any) -> Any:
    """Return the class of the model itself; None if its code comes with its files.

    Raises:
        TrainingError: see `auto_class`.
    """
    return _class_in(auto_class(settings), settings)


def answer_as_text_model(model: Any) -> None:
    """Let a model that only has parts (Qwen-Omni: thinker, talker, ...) compute as the part that writes text.

    Args:
        model: just loaded. If its class computes nothing itself, methods of the part are set on it; its weights, files
            and class stay those of the whole model.

    Raises:
        TrainingError: none of its parts computes logits.
    """
    if type(model).forward is not torch.nn.Module.forward:
        return
    part = next((each for each in model.children() if _has_head(each)), None)
    if part is None:
        raise TrainingError(
            f"model_name_or_path: {type(model).__name__} only generates, and cannot be trained on text; name "
            "another model"
        )
    for name in ("forward", "get_input_embeddings", "set_input_embeddings", "get_output_embeddings",
                 "set_output_embeddings", "prepare_inputs_for_generation"):  # fmt: skip
        setattr(model, name, getattr(part, name))


def _class_in(auto: Any, settings: Any) -> Any:
    mapping: Any = getattr(auto, "_model_mapping", None)
    return None if mapping is None else mapping.get(type(settings), None)


def _is_text_config(settings: Any) -> bool:
    return settings.get_text_config() is settings


def _has_head(module: torch.nn.Module) -> bool:
    find: Any = getattr(module, "get_output_embeddings", None)
    return find is not None and find() is not None and type(module).forward is not torch.nn.Module.forward
