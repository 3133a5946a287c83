"""Which token ids a model knows and stops at, read from its config alone, against its tokenizer and its data."""

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
from sftkit.sample import sample_path
from sftkit.shards.footers import Footer
from sftkit.shards.reading import ShardSet, open_parquet
from sftkit.tokenization.special_tokens import special_tokens
from sftkit.tokenization.tokenizer_loading import TokenizerSpec
from sftkit.training.data.token_columns import read_token_lists
from sftkit.training.distributed import warn_on_main_process

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_log = logging.getLogger(__name__)

_NAMED = 3  # tokens
_MOSTLY = 0.5  # of the stretches that are trained on


@dataclass(frozen=True)
class ModelVocabulary:
    """What a model's files say of token ids.

    name: what the model is called. vocabulary_size: rows of its embedding, None where its config does not say.
    stop_ids: where `generate` stops: those of its generation config, or else of its config.
    """

    name: str
    vocabulary_size: int | None
    stop_ids: tuple[int, ...]


def read_model_vocabulary(config: TrainConfig) -> ModelVocabulary:
    """Read a model's config, but not its weights. What cannot be read is left to the loading of the model to tell."""
    from transformers import AutoConfig, GenerationConfig

    name = config.model_name_or_path or ""
    location = str(sample_path(name))
    try:
        settings: Any = AutoConfig.from_pretrained(location, trust_remote_code=config.trust_remote_code)
        settings = settings.get_text_config(decoder=True)
    except Exception:  # transformers raises whatever the files of a model provoke
        return ModelVocabulary(name, None, ())
    stops = _listed(getattr(settings, "eos_token_id", None))
    if not Path(location).is_dir() or (Path(location) / "generation_config.json").is_file():
        with suppress(OSError, ValueError, TypeError):  # there is none; `generate` then goes by the config
            stops = _listed(GenerationConfig.from_pretrained(location).eos_token_id) or stops
    size = getattr(settings, "vocab_size", None)
    return ModelVocabulary(name, size if isinstance(size, int) else None, stops)


def check_vocabulary(
    facts: ModelVocabulary,
    tokenizer: PreTrainedTokenizerBase,
    spec: TokenizerSpec,
    footers: Sequence[Footer],
    *,
    allow_mismatch: bool,
) -> None:
    """See to it that the model has an embedding for every token.

    Tokens that are added in this run get theirs, so they do not count. With `allow_mismatch` all get one.

    Args:
        facts: of the model.
        tokenizer: of the run.
        spec: knows the tokens that are added.
        footers: of the shards; they may tell the largest id there.
        allow_mismatch: a tokenizer that is too large is a warning.

    Raises:
        TrainingError: the tokenizer is larger than the embedding.
        DataError: an id in the shards is.
    """
    size = facts.vocabulary_size
    if size is None:
        return
    added = set(spec.added_special_tokens)
    vocabulary = {number: token for token, number in tokenizer.get_vocab().items()}
    beyond = sorted(number for number, token in vocabulary.items() if number >= size and token not in added)
    if beyond:
        named = ", ".join(f"{vocabulary[number]!r} ({number})" for number in beyond[:_NAMED])
        more = f" and {len(beyond) - _NAMED} more" if len(beyond) > _NAMED else ""
        text = (
            f"the tokenizer {spec.name} has {len(tokenizer)} tokens and {facts.name} an embedding of {size}: "
            f"{named}{more} would have none"
        )
        if not allow_mismatch:
            raise TrainingError(f"{text}; take the model's own tokenizer, or add rows with allow_mismatch=true")
        warn_on_main_process(_log, f"{text}; the embedding grows")
    known = max(size, len(tokenizer))
    for footer in footers:
        if footer.largest_id is not None and footer.largest_id >= known:
            raise DataError(
                f"{footer.path}: holds token id {footer.largest_id}, which is not one of the model's {known}; "
                "the shards were made with another tokenizer"
            )


def check_stop_tokens(facts: ModelVocabulary, tokenizer: PreTrainedTokenizerBase, shards: ShardSet) -> None:
    """Warn of a model that would not stop as it is taught to.

    The Trainer saves a model so that it stops at its tokenizer's eos as well as where it did before. Pad tokens are not
    compared: labels say what is trained, so that a pad token that is eos takes no loss away.
    """
    if tokenizer.eos_token_id is None and not facts.stop_ids:
        warn_on_main_process(
            _log, f"neither the tokenizer nor {facts.name} names an eos token: the model has nothing to stop at"
        )
        return
    eos = tokenizer.eos_token_id
    if eos is not None and facts.stop_ids and eos not in facts.stop_ids:
        warn_on_main_process(
            _log,
            f"the tokenizer's eos token is {_named([eos], tokenizer)}, and {facts.name} stops at "
            f"{_named(facts.stop_ids, tokenizer)}: the trained model is saved to stop at either",
        )
    stops = {*facts.stop_ids, *([eos] if eos is not None else [])}
    taught = _taught_end(shards)
    special = {tokenizer.convert_tokens_to_ids(token) for token in special_tokens(tokenizer)}
    if taught is not None and taught not in stops and taught in special:
        warn_on_main_process(
            _log,
            f"most of what is trained on ends with {_named([taught], tokenizer)}, and {facts.name} and its tokenizer "
            f"stop at {_named(sorted(stops), tokenizer)}: the trained model would go on after it; name it under "
            "eos_token_id in generation_config.json, or make it the tokenizer's eos_token",
        )


def _taught_end(shards: ShardSet) -> int | None:
    """The id that most stretches of trained tokens end with, in the first row group; None where there is no such id."""
    paths = shards.splits.get(TRAIN, ())
    if not paths:
        return None
    try:
        with open_parquet(paths[0]) as file:
            if LABELS not in file.schema_arrow.names or not file.num_row_groups:
                return None
            labels = read_token_lists(paths[0], file.read_row_group(0, columns=[LABELS]), LABELS, 1)
    except (SftkitError, OSError, pa.ArrowException):  # the feed will say
        return None
    trained = labels.values != IGNORE_INDEX
    last = np.zeros(len(trained), np.bool_)
    last[labels.offsets[1:][labels.lengths > 0] - 1] = True
    ends = labels.values[trained & (last | ~np.append(trained[1:], False))]
    if not len(ends):
        return None
    [(found, count)] = Counter(ends.tolist()).most_common(1)
    return int(found) if count > _MOSTLY * len(ends) else None


def _listed(value: Any) -> tuple[int, ...]:
    """`eos_token_id` as configs have it: one id, several, or none."""
    values = value if isinstance(value, list | tuple) else [value]
    return tuple(each for each in values if type(each) is int)


def _named(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> str:
    tokens = {number: token for token, number in tokenizer.get_vocab().items()}
    return " or ".join(f"{tokens[number]!r} ({number})" if number in tokens else f"id {number}" for number in ids)
