"""Checks of values of training arguments that transformers would not check, or only in the middle of a run."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True)
class _Range:
    minimum: float
    maximum: float = math.inf
    below: bool = False
    """Whether the maximum itself is excluded."""
    above: bool = False
    """Whether the minimum itself is excluded."""

    def holds(self, value: float) -> bool:
        reaches = value > self.minimum if self.above else value >= self.minimum
        return reaches and (value < self.maximum if self.below else value <= self.maximum)

    def __str__(self) -> str:
        low = f"more than {self.minimum:g}" if self.above else f"{self.minimum:g} or more"
        if math.isinf(self.maximum):
            return low
        if self.below:
            return f"at least {self.minimum:g} and less than {self.maximum:.10g}"
        return f"between {self.minimum:g} and {self.maximum:g}"


_COUNT, _NOT_NEGATIVE, _POSITIVE = _Range(1), _Range(0), _Range(0, above=True)
_SEED = _Range(0, 2**32, below=True)  # as NumPy takes it

_RANGES: Mapping[str, _Range] = MappingProxyType(
    {
        **dict.fromkeys(("per_device_train_batch_size", "per_device_eval_batch_size"), _COUNT),
        **dict.fromkeys(("gradient_accumulation_steps", "eval_accumulation_steps", "torch_empty_cache_steps"), _COUNT),
        **dict.fromkeys(("dataloader_prefetch_factor", "ddp_bucket_cap_mb", "ddp_timeout"), _COUNT),
        **dict.fromkeys(("num_train_epochs", "learning_rate", "warmup_steps", "weight_decay"), _NOT_NEGATIVE),
        **dict.fromkeys(("adam_epsilon", "max_grad_norm", "neftune_noise_alpha", "eval_steps"), _NOT_NEGATIVE),
        **dict.fromkeys(("eval_delay", "dataloader_num_workers"), _NOT_NEGATIVE),
        **dict.fromkeys(("adam_beta1", "adam_beta2"), _Range(0, 1, below=True)),
        "label_smoothing_factor": _Range(0, 1),
        **dict.fromkeys(("seed", "data_seed"), _SEED),
    }
)

_STEPS: Mapping[str, str] = MappingProxyType({"logging_steps": "logging_strategy", "save_steps": "save_strategy"})
"""Steps between events, which must be more than 0 if they count: if the strategy is `steps`, the default."""

_CHOICES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "log_level_replica": ("debug", "info", "warning", "error", "critical", "passive"),
        "include_num_input_tokens_seen": ("all", "non_padding", "no"),
        "torch_compile_mode": ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"),
    }
)
"""Choices of texts for which transformers has no enumeration (5.23)."""

_KEYS = ("lr_scheduler_kwargs", "gradient_checkpointing_kwargs", "activation_checkpointing_kwargs")
"""Mappings that transformers also takes as JSON text, but not as the name of a file."""

_PAIRS = re.compile(r"\s*[\w.]+\s*=[^,]*(,\s*[\w.]+\s*=[^,]*)*")


def value_problems(values: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence for each value that cannot be right.

    Args:
        values: training arguments with the types of their fields.

    Example:
        >>> list(value_problems({"learning_rate": -1.0, "adam_beta1": 1.0, "seed": 7}))
        ['learning_rate must be 0 or more, not -1', 'adam_beta1 must be at least 0 and less than 1, not 1']
    """
    counted = (key for key, strategy in _STEPS.items() if values.get(strategy, "steps") == "steps")
    ranges = {**_RANGES, **dict.fromkeys(counted, _POSITIVE)}
    for key, value in values.items():
        if key in ranges and isinstance(value, int | float) and not ranges[key].holds(value):
            yield f"{key} must be {ranges[key]}, not {value:.10g}"
        elif key in _CHOICES and isinstance(value, str) and value not in _CHOICES[key]:
            yield f"{key} must be one of {', '.join(_CHOICES[key])}, not {value!r}"
        elif key in _KEYS and isinstance(value, str):
            yield f"{key} must be keys and values, such as '{{a: 1}}', not {value!r}"
    given = values.get("optim_args")
    if isinstance(given, str) and given.strip() and not _PAIRS.fullmatch(given):
        yield f"optim_args must be key=value pairs with commas between them, not {given!r}"
