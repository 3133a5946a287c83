"""Repair the generation config of a model that transformers would refuse to save."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from sftkit.core.error_text import first_line
from sftkit.training.distributed import warn_on_main_process

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_log = logging.getLogger(__name__)


def repair_generation_config(model: PreTrainedModel) -> None:
    """Make the generation config of a model valid, so that the model can be saved after training.

    Many models have values for sampling (`temperature`, `top_p`) beside `do_sample: false`. transformers loads them,
    and refuses to save them. `do_sample` is then set, because the values say what the authors of the model wanted. A
    config with other faults is replaced by the defaults of the model. Training does not use it.

    Args:
        model: just loaded; its `generation_config` is changed in place.
    """
    from transformers import GenerationConfig

    config = model.generation_config
    problem = None if config is None else _problem(config)
    if config is None or problem is None:
        return
    sampling = config.do_sample
    config.do_sample = True
    if _problem(config) is None:
        warn_on_main_process(
            _log,
            f"generation_config.json sets values for sampling, but do_sample is {str(bool(sampling)).lower()}, which "
            "transformers does not save; the trained model gets do_sample=true",
        )
        return
    model.generation_config = GenerationConfig.from_model_config(model.config)
    warn_on_main_process(
        _log,
        f"generation_config.json cannot be used ({problem}); the trained model gets the defaults of its architecture",
    )


def _problem(config: object) -> str | None:
    """Say why transformers would not save a generation config; None if it would."""
    from transformers import GenerationConfig

    assert isinstance(config, GenerationConfig)
    try:
        config.validate(strict=True)
    except ValueError as error:
        return first_line(error)
    return None
