"""Check the token ids that a model knows and stops at against its tokenizer and data, from its config alone."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from sftkit.config.commands import TrainConfig
from sftkit.core.rows import IGNORE_INDEX, LABELS
from sftkit.core.splits import TRAIN
from sftkit.errors import DataError, SftkitError, TrainingError
from sftkit.shards.footers import Footer
from sftkit.shards.readers.parquet_file import open_parquet
from sftkit.shards.reading import ShardSet
from sftkit.storage.model_location import model_location
from sftkit.tokenization.loading.special_tokens import MISSING_TOKENS, special_tokens
from sftkit.tokenization.loading.tokenizer_loading import TokenizerSpec
from sftkit.training.data.rows.token_columns import read_token_lists
from sftkit.training.distributed import warn_on_main_process

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_log = logging.getLogger(__name__)

_MOST_NAMED = 3  # tokens in a message
_MAJORITY = 0.5  # of the trained spans


@dataclass(frozen=True)
class ModelVocabulary:
    """What the files of a model say about token ids."""

    name: str
    """Name of the model."""

    vocabulary_size: int | None
    """Rows of its embedding; None if its config does not say."""

    stop_ids: tuple[int, ...]
    """Where `generate` stops: the eos tokens of its generation config, or of its config."""


def read_model_vocabulary(config: TrainConfig) -> ModelVocabulary:
    """Read the config of a model, not its weights. Errors are left to loading the model, which reports them."""
    from transformers import AutoConfig, GenerationConfig

    name = config.model_name_or_path or ""
    location = model_location(name)
    try:
        settings: Any = AutoConfig.from_pretrained(location, trust_remote_code=config.trust_remote_code)
        settings = settings.get_text_config(decoder=True)
    except Exception:  # the files of a model can make transformers raise anything
        return ModelVocabulary(name, None, ())
    stops = _ids(getattr(settings, "eos_token_id", None))
    if not Path(location).is_dir() or (Path(location) / "generation_config.json").is_file():
        with suppress(OSError, ValueError, TypeError):  # there is none; `generate` then uses the config
            stops = _ids(GenerationConfig.from_pretrained(location).eos_token_id) or stops
    size = getattr(settings, "vocab_size", None)
    return ModelVocabulary(name, size if isinstance(size, int) else None, stops)


def check_vocabulary(
    model: ModelVocabulary,
    tokenizer: PreTrainedTokenizerBase,
    spec: TokenizerSpec,
    footers: Sequence[Footer],
    *,
    allow_mismatch: bool,
) -> None:
    """Check that the model has an embedding for every token.

    Tokens that are added in this run are excluded, because embeddings are added for them. With `allow_mismatch`,
    embeddings are added for all missing tokens.

    Args:
        model: token ids of the model.
        tokenizer: of the run.
        spec: has the added tokens.
        footers: of the shards; some record the largest id.
        allow_mismatch: only warn of a tokenizer that is too large.

    Raises:
        TrainingError: the tokenizer is larger than the embedding.
        DataError: an id in the shards is larger than the embedding and the tokenizer.
    """
    size = model.vocabulary_size
    if size is None:
        return
    added = {*spec.added_special_tokens, *(MISSING_TOKENS if spec.adds_missing_tokens else ())}
    vocabulary = {number: token for token, number in tokenizer.get_vocab().items()}
    beyond = sorted(number for number, token in vocabulary.items() if number >= size and token not in added)
    if beyond:
        named = ", ".join(f"{vocabulary[number]!r} ({number})" for number in beyond[:_MOST_NAMED])
        more = f" and {len(beyond) - _MOST_NAMED} more" if len(beyond) > _MOST_NAMED else ""
        text = (
            f"the tokenizer {spec.name} has {len(tokenizer)} tokens, but {model.name} has an embedding of {size}: "
            f"{named}{more} would have none"
        )
        if not allow_mismatch:
            raise TrainingError(f"{text}; use the model's own tokenizer, or set allow_mismatch=true to add rows")
        warn_on_main_process(_log, f"{text}; rows are added to the embedding")
    known = max(size, len(tokenizer))
    for footer in footers:
        if footer.largest_id is not None and footer.largest_id >= known:
            raise DataError(
                f"{footer.path}: holds token id {footer.largest_id}, which is not one of the model's {known}; "
                "the shards were made with another tokenizer; make them again with the tokenizer of this model"
            )


def check_stop_tokens(model: ModelVocabulary, tokenizer: PreTrainedTokenizerBase, shards: ShardSet) -> None:
    """Warn if the model would not stop where its data do.

    The Trainer saves a model so that it stops at the tokenizer's eos token in addition to its own stop tokens. Pad
    tokens are not compared: labels decide which tokens are trained, so a pad token that is also eos
    does not remove any loss.
    """
    if tokenizer.eos_token_id is None and not model.stop_ids:
        warn_on_main_process(
            _log, f"neither the tokenizer nor {model.name} names an eos token: the model has no token to stop at"
        )
        return
    eos = tokenizer.eos_token_id
    if eos is not None and model.stop_ids and eos not in model.stop_ids:
        warn_on_main_process(
            _log,
            f"the tokenizer's eos token is {_named([eos], tokenizer)}, but {model.name} stops at "
            f"{_named(model.stop_ids, tokenizer)}: the trained model is saved so that it stops at either",
        )
    stops = {*model.stop_ids, *([eos] if eos is not None else [])}
    taught = _usual_last_token(shards)
    special = {tokenizer.convert_tokens_to_ids(token) for token in special_tokens(tokenizer)}
    if taught is not None and taught not in stops and taught in special:
        warn_on_main_process(
            _log,
            f"most trained spans end with {_named([taught], tokenizer)}, but {model.name} and its tokenizer stop at "
            f"{_named(sorted(stops), tokenizer)}: the trained model would not stop there; add the token to "
            "eos_token_id in generation_config.json, or set it as the tokenizer's eos_token",
        )


def _usual_last_token(shards: ShardSet) -> int | None:
    """The id that most trained spans of the first row group end with; None if there is no such id."""
    paths = shards.splits.get(TRAIN, ())
    if not paths:
        return None
    try:
        with open_parquet(paths[0]) as file:
            if LABELS not in file.schema_arrow.names or not file.num_row_groups:
                return None
            labels = read_token_lists(paths[0], file.read_row_group(0, columns=[LABELS]), LABELS, 1)
    except (SftkitError, OSError, pa.ArrowException):  # reported when the split is opened
        return None
    trained = labels.values != IGNORE_INDEX
    last = np.zeros(len(trained), np.bool_)
    last[labels.offsets[1:][labels.lengths > 0] - 1] = True
    ends = labels.values[trained & (last | ~np.append(trained[1:], False))]
    if not len(ends):
        return None
    [(found, count)] = Counter(ends.tolist()).most_common(1)
    return int(found) if count > _MAJORITY * len(ends) else None


def _ids(value: Any) -> tuple[int, ...]:
    """`eos_token_id` as in a config: one id, several, or none."""
    values = value if isinstance(value, list | tuple) else [value]
    return tuple(each for each in values if type(each) is int)


def _named(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> str:
    tokens = {number: token for token, number in tokenizer.get_vocab().items()}
    return " or ".join(f"{tokens[number]!r} ({number})" if number in tokens else f"id {number}" for number in ids)
