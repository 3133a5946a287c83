"""Shorten the windows, chunks and other spans of a model for a trial, so that short sequences go beyond them.

A sliding window of 4,096 tokens, chunks of 8,192 or a buffer of 2,048 positions do nothing on a few tokens. Sequences
that are long enough would take minutes. But what a model does at the edge of a span does not depend on how long it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SHORT_SPAN = 8
"""Spans of a model in a trial are below this; the trial has sequences that are longer."""

_LEAST = 4
_LONGEST_KEPT = 512
"""The longest span that a trial reaches if it cannot be shortened."""

_SPAN = re.compile(
    r"chunk|window|compress|block_size|index_topk|_blocks$|local_attention$|floor_scale|^original_max_position_embeddings$"
)
_NOT_A_SPAN = re.compile(r"feed_forward|lm_head|layer|num_|theta|group|vision|image|audio")
_COUNT_OF_BLOCKS = re.compile("_blocks$")

_Numbers = MutableMapping[str, Any]


@contextmanager
def short_spans(model: PreTrainedModel) -> Iterator[int]:
    """Shorten all spans of a model until the context ends; yields a length beyond those that it then has.

    - A number of its config or of a module that a span is named after (`attention_chunk_size`, `sliding_window`, ...)
      becomes 4 to 7: multiples of 4 become 4, so that sums such as window + 1 keep their distance.
    - A number that is also the size of a parameter cannot change, so the trial must be longer.
    - A square buffer (a causal mask for all positions) is cut, to be shorter than the concatenated sequences.

    The length is at least `SHORT_SPAN`.
    """
    holders = list(_holders(model))
    fixed = _sizes_of_parameters(model)
    changed: list[tuple[_Numbers, str, Any]] = []
    longest = SHORT_SPAN
    for numbers in holders:
        for name, value in list(numbers.items()):
            if not _is_span(name, value):
                continue
            if value in fixed:
                longest = max(longest, value) if value <= _LONGEST_KEPT else longest
            else:
                changed.append((numbers, name, value))
                numbers[name] = 2 if _COUNT_OF_BLOCKS.search(name) else _LEAST + value % _LEAST
    positions = 2 * longest + SHORT_SPAN
    for module in model.modules():
        for name, buffer in list(module._buffers.items()):
            if buffer is not None and buffer.dim() > 1 and buffer.shape[-1] == buffer.shape[-2] > positions:
                changed.append((module._buffers, name, buffer))
                module._buffers[name] = buffer[..., :positions, :positions]
    try:
        yield longest
    finally:
        for numbers, name, value in changed:
            numbers[name] = value


def _is_span(name: str, value: object) -> bool:
    shortened = type(value) is int and value > (2 if _COUNT_OF_BLOCKS.search(name) else _LEAST)
    return shortened and _SPAN.search(name) is not None and _NOT_A_SPAN.search(name) is None


def _holders(model: PreTrainedModel) -> Iterator[_Numbers]:
    """Where a model keeps numbers: attributes of its modules and configs, and dictionaries in configs."""
    configs: dict[int, Any] = {}
    for module in model.modules():
        yield module.__dict__
        config = getattr(module, "config", None)
        if config is not None:
            configs[id(config)] = config
    for config in configs.values():
        yield from _dictionaries(vars(config))


def _dictionaries(numbers: _Numbers) -> Iterator[_Numbers]:
    yield numbers
    for value in numbers.values():
        if type(value) is dict:
            yield from _dictionaries(value)


def _sizes_of_parameters(model: PreTrainedModel) -> frozenset[int]:
    """Spans of modules that are sizes of their own parameters."""
    found: set[int] = set()
    for module in model.modules():
        sizes = {size for parameter in module._parameters.values() if parameter is not None for size in parameter.shape}
        found |= {value for name, value in module.__dict__.items() if _is_span(name, value) and value in sizes}
    return frozenset(found)
