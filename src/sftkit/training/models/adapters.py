"""LoRA and QLoRA: adapters around a frozen model, by peft.

Sources: LoRA, https://arxiv.org/abs/2106.09685; QLoRA (NF4, double quantisation), https://arxiv.org/abs/2305.14314.
"""

from __future__ import annotations

import gc
import importlib.util
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftkit.config.commands import TrainConfig
from sftkit.core.error_text import single_line
from sftkit.errors import TrainingError
from sftkit.training.models.freezing import similar_names
from sftkit.training.models.model_loading import fit_embeddings, load_model

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments

MERGED_DIR = "merged"
"""Directory below `output_dir` that holds the model with its adapters merged into it."""

ALL_LINEAR = "all-linear"


def uses_adapters(config: TrainConfig) -> bool:
    """Whether the run trains adapters; `load_in_4bit` implies it."""
    return config.use_peft or config.load_in_4bit


def add_adapters(model: PreTrainedModel, config: TrainConfig, new_tokens: Sequence[int]) -> PeftModel:
    """Put LoRA adapters into a model, and freeze everything else.

    The embeddings of new tokens are trained and saved with the adapters, those rows alone; the rest of the embeddings
    stays as it is. Where `lora_modules_to_save` names the embeddings, they are trained as a whole.

    Args:
        model: loaded, with an embedding for every token; it is changed in place.
        config: rank, scale, dropout and modules of the adapters.
        new_tokens: ids that the model was not trained with.

    Raises:
        TrainingError: peft is not installed, or a module that is named does not exist.
    """
    _check_installed(config)
    from peft import LoraConfig, get_peft_model

    _check_names("lora_target_modules", _without(config.lora_target_modules, ALL_LINEAR), model)
    _check_names("lora_modules_to_save", config.lora_modules_to_save, model)
    targets = config.lora_target_modules
    settings = LoraConfig(
        task_type="CAUSAL_LM",
        r=config.lora_r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=ALL_LINEAR if ALL_LINEAR in targets else list(targets),
        modules_to_save=list(config.lora_modules_to_save) or None,
        trainable_token_indices=_token_rows(model, config, new_tokens),
        ensure_weight_tying=_tied(model) and bool(config.lora_modules_to_save),
    )
    make: Callable[..., PeftModel] = get_peft_model
    try:
        with _quiet():
            return make(model, settings)
    except ValueError as error:  # what peft refuses: modules it has no adapter for, names that overlap
        raise TrainingError(f"LoRA adapters cannot be added: {single_line(error)}") from error


def save_merged(
    config: TrainConfig, arguments: TrainingArguments, tokenizer: PreTrainedTokenizerBase, known_tokens: int
) -> Path:
    """Save the model with the adapters of `output_dir` merged into it, and the tokenizer, to `<output_dir>/merged`.

    The model is read once more, onto the CPU and in the run's data type, as `merge_and_unload` of a model held in
    4 bits would round the sum to 4 bits again, and one spread over processes is whole in none of them. For the main
    process alone, once the adapters are saved.

    Args:
        config, arguments: the run.
        tokenizer: as it is saved with the adapters.
        known_tokens: how many of its tokens the model was trained with before the run.

    Raises:
        TrainingError: the model cannot be loaded again.
    """
    from peft import PeftModel

    place = Path(config.output_dir) / MERGED_DIR
    model = load_model(replace(config, load_in_4bit=False, attn_implementation="eager"), arguments)
    fit_embeddings(model, len(tokenizer), known_tokens)
    with _quiet():
        whole: Any = PeftModel.from_pretrained(model, config.output_dir)
    merged = whole.merge_and_unload()
    merged.save_pretrained(place)
    tokenizer.save_pretrained(place)
    del model, whole, merged
    gc.collect()
    return place


@contextmanager
def _quiet() -> Iterator[None]:
    """peft asks transformers for what goes by another name there by now; it is not for users to mend."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def _check_installed(config: TrainConfig) -> None:
    key, extra = ("load_in_4bit", "qlora") if config.load_in_4bit else ("use_peft", "peft")
    for module in ("peft", "bitsandbytes") if config.load_in_4bit else ("peft",):
        if importlib.util.find_spec(module) is None:
            raise TrainingError(f"{key}: {module} is not installed; pip install 'sftkit[{extra}]'")


def _check_names(key: str, names: Sequence[str], model: PreTrainedModel) -> None:
    """A module is named by its whole name or by the end of it, as peft reads names."""
    there = [name for name, _ in model.named_modules() if name]
    for name in names:
        if not any(whole == name or whole.endswith(f".{name}") for whole in there):
            raise TrainingError(f"{key}: the model has no module called {name!r}; {similar_names(name, there)}")


def _token_rows(model: PreTrainedModel, config: TrainConfig, new_tokens: Sequence[int]) -> dict[str, list[int]] | None:
    """The rows of input and output embedding that are trained, by the module's name."""
    if not new_tokens:
        return None
    heads = [model.get_input_embeddings()]
    if not _tied(model):
        heads.append(model.get_output_embeddings())  # type: ignore[no-untyped-call]  # transformers leaves it untyped
    names = [name for name, module in model.named_modules() if any(module is head for head in heads)]
    whole = config.lora_modules_to_save
    rows = {name: list(new_tokens) for name in names if not any(name.split(".")[-1] == w.split(".")[-1] for w in whole)}
    return rows or None


def _tied(model: PreTrainedModel) -> bool:
    output: Any = model.get_output_embeddings()  # type: ignore[no-untyped-call]  # transformers leaves it untyped
    return output is not None and output.weight is model.get_input_embeddings().weight


def _without(names: Sequence[str], name: str) -> list[str]:
    return [other for other in names if other != name]
