"""What makes a `ChatTokenizer`: its tokenizer, engines and options, as plain data that any process can use."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from sftkit.config.fields import to_plain_data
from sftkit.config.render_validation import rendering_of
from sftkit.config.schema.option_values import ANY, INFERENCE, NO_COMPAT, ONCE
from sftkit.config.schema.shared_options import DataOptions
from sftkit.sandbox.chat_templates import today
from sftkit.tokenization.content_screening import KEEP
from sftkit.tokenization.engines import ENCODER, RENDERER, EnginePolicy
from sftkit.tokenization.loading.tokenizer_loading import TokenizerSpec, tokenizer_spec
from sftkit.tokenization.masking.ranges.content_patterns import Patterns
from sftkit.tokenization.masking.supervision import Supervision
from sftkit.tokenization.masking.train_on import ASSISTANT
from sftkit.tokenization.masking.turn_masks import TurnMasks

_TINY = 64 << 10
"""Bytes of source that `tokenizers` encodes in the time that it takes to load a fast encoder."""


@dataclass(frozen=True)
class ChatTokenizerSpec:
    """Everything needed to make the same `ChatTokenizer` in any process."""

    tokenizer: TokenizerSpec | None
    """None if the config names no tokenizer."""
    train_on: str
    """Which turns carry a loss: a key of `TRAIN_ON`."""
    engines: EnginePolicy
    reasoning: str = "keep"
    """`keep`, `mask` or `last_only`: the turns whose reasoning carries a loss."""
    chat_template_kwargs: str = ""
    """Extra variables for the chat template, as JSON text, so that specs can be hashed; "" for none."""
    special_tokens_in_content: str = KEEP
    """`keep`, `escape`, `drop` or `error`."""
    compat: str = NO_COMPAT
    """`none`, or `fms` for the masks of fms-hf-tuning."""
    drop_empty_answers: bool = False
    """Whether rows without an answer are dropped."""
    token_kinds: bool = False
    """Whether the kind of every trained token is found."""
    render: str = ONCE
    """`once`, or `per_turn` or `auto` if conversations may become samples."""
    template_date: str | None = None
    """The day that chat templates are given, as YYYY-MM-DD; None for today."""
    tool_calls: str = "keep"
    """`keep`, or `mask` to exclude tool calls from the loss."""
    train_on_stop: str = "all"
    """`all`, `last` or `none`: the turns whose stop token carries a loss."""
    boundary: str = INFERENCE
    """`inference` if trained turns follow the tokens that their prompts have at inference, or `joint`."""
    mask_pattern: str | None = None
    """A regular expression (RE2) whose matches in contents of assistant turns carry no loss."""
    pattern_weights: tuple[tuple[str, float], ...] = ()
    """Regular expressions, and the weights of their matches."""
    empty_reasoning: str = "keep"
    """`keep`, `add` or `drop`: what happens to conversations without reasoning."""
    roles_to_train: tuple[str, ...] = (ASSISTANT,)
    """The roles whose messages carry a loss."""
    range_edges: str = ANY
    """`any`, or `inner` to train only tokens whose characters all carry a loss by ranges and patterns."""

    def supervision(self) -> Supervision:
        """Return what selects the trained characters of conversations.

        Raises:
            ConfigError: `train_on` names a plugin that cannot be loaded.
        """
        masked = () if self.mask_pattern is None else ((self.mask_pattern, 0.0),)
        return Supervision(
            self.train_on,
            TurnMasks(self.reasoning, self.tool_calls, self.train_on_stop),
            Patterns((*masked, *self.pattern_weights)),
            frozenset(self.roles_to_train),
            trains_range_edges=self.range_edges == ANY,
        )

    def without_engine(self, task: str) -> ChatTokenizerSpec:
        """Return the spec with only the reference engine for a task, ENCODER or RENDERER."""
        policy = EnginePolicy(self.engines.reference_only | {task}, self.engines.verify_fraction)
        return replace(self, engines=policy)


def chat_tokenizer_spec(config: DataOptions, size: int) -> ChatTokenizerSpec:
    """Describe the tokenizer and the engines of a run over `size` bytes of source."""
    if config.engine == "reference":
        reference = frozenset({ENCODER, RENDERER})
    else:
        reference = frozenset({ENCODER} if size < _TINY else ())
    return ChatTokenizerSpec(
        tokenizer=tokenizer_spec(config),
        train_on=config.train_on,
        engines=EnginePolicy(reference, config.engine_verify),
        reasoning=config.reasoning,
        tool_calls=config.tool_calls,
        train_on_stop=config.train_on_stop,
        mask_pattern=config.mask_pattern,
        pattern_weights=tuple(config.pattern_weights.items()),
        empty_reasoning=config.empty_reasoning,
        roles_to_train=config.roles_to_train,
        range_edges=config.range_edges,
        boundary=config.boundary,
        special_tokens_in_content=config.special_tokens_in_content,
        compat=config.compat,
        drop_empty_answers=config.drop_empty_answers,
        token_kinds=config.token_kinds,
        render=rendering_of(config),
        chat_template_kwargs=json.dumps(to_plain_data(config.chat_template_kwargs), sort_keys=True),
        template_date=config.template_date or today(),
    )
