"""The keys that `preprocess`, `inspect-shards` and `train` share: how rows become tokens, and how a run works."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sftkit.config.fields import keys_where, option
from sftkit.config.schema.data_config import DatasetConfig
from sftkit.config.schema.option_values import (
    ANY,
    ASSISTANT,
    AUTO,
    FMS,
    INFERENCE,
    INNER,
    JOINT,
    LOG_LEVELS,
    NO_COMPAT,
    NO_PACKING,
    ONCE,
    PER_TURN,
    SPLIT_TURNS,
)
from sftkit.config.schema.source_options import RUN_PANEL, SourceOptions
from sftkit.config.words import boolean_spellings

_ROWS = "Rows"


@dataclass(frozen=True, kw_only=True)
class DataOptions(SourceOptions):
    """The keys that `preprocess`, `inspect-shards` and `train` share: how rows become tokens."""

    max_seq_length: int | None = option(
        None,
        minimum=1,
        panel=_ROWS,
        changes_rows=True,
        run_identity=True,
        help="Maximum length of a row in tokens. Default: no limit.",
    )
    overflow: str = option(
        "truncate",
        choices=("truncate", "truncate_left", SPLIT_TURNS, "drop", "error"),
        panel=_ROWS,
        changes_rows=True,
        run_identity=True,
        help="What to do with longer rows: keep their start (truncate) or their end (truncate_left), make several rows "
        "of a conversation (split_turns), drop them, or quarantine them (error).",
    )
    train_on: str = option(
        "assistant",
        choices=("assistant", "last_assistant", "first_assistant", "all"),
        plugins="train_on",
        panel=_ROWS,
        changes_rows=True,
        help="Tokens to train: those of every assistant turn, of the last or the first assistant turn, or all tokens.",
    )
    roles_to_train: tuple[str, ...] = option(
        (ASSISTANT,),
        panel=_ROWS,
        changes_rows=True,
        help="Roles whose messages carry a loss: assistant, user, tool, system. Of a role other than the assistant's, "
        "the content does, and the stop token after it.",
    )
    render: str = option(
        AUTO,
        choices=(AUTO, ONCE, PER_TURN),
        panel=_ROWS,
        changes_rows=True,
        help="once: render each conversation once; per_turn: train each assistant turn after the prompt that the model "
        "gets for it at inference, with as few samples of a conversation as its chat template allows; auto: per_turn "
        "for conversations in which a turn would have another prompt or lose its reasoning, else once.",
    )
    max_samples_per_row: int | None = option(
        None,
        minimum=1,
        panel=_ROWS,
        changes_rows=True,
        help="With `render: auto` and `per_turn`, drop conversations that need more samples. Default: no limit.",
    )
    boundary: str = option(
        INFERENCE,
        choices=(INFERENCE, JOINT),
        panel=_ROWS,
        changes_rows=True,
        help="inference: where the end of a prompt and the start of a trained answer would merge into a token, encode "
        "them apart, as the model sees them at inference; joint: encode each conversation at once.",
    )
    reasoning: str = option(
        "keep",
        choices=("keep", "mask", "last_only"),
        panel=_ROWS,
        changes_rows=True,
        help="keep: train the reasoning of assistant turns; mask: train only from the start of the answer; last_only: "
        "train the reasoning of the last trained turn.",
    )
    empty_reasoning: str = option(
        "keep",
        choices=("keep", "add", "drop"),
        panel=_ROWS,
        changes_rows=True,
        help="Conversations without reasoning: keep them as the template writes them; add the empty block of reasoning "
        "of the prompt that skips it (`enable_thinking: false`), without a loss; or drop them.",
    )
    tool_calls: str = option(
        "keep",
        choices=("keep", "mask"),
        panel=_ROWS,
        changes_rows=True,
        help="keep: train the tool calls of assistant turns; mask: train everything but them.",
    )
    train_on_stop: str = option(
        "all",
        choices=("all", "last", "none"),
        panel=_ROWS,
        changes_rows=True,
        help="Trained turns whose stop token carries a loss: all, the last one, or none.",
    )
    mask_pattern: str | None = option(
        None,
        panel=_ROWS,
        changes_rows=True,
        help="Regular expression (RE2) whose matches in the contents of assistant turns carry no loss. Needs "
        "`pip install 'sftkit[patterns]'`.",
    )
    pattern_weights: Mapping[str, float] = option(
        factory=dict,
        panel=_ROWS,
        changes_rows=True,
        help="Regular expressions (RE2), and how much the loss of their matches in the contents of assistant turns "
        "counts, such as `{'[0-9]+': 0.2}`. Needs `pip install 'sftkit[patterns]'`.",
    )
    range_edges: str = option(
        ANY,
        choices=(ANY, INNER),
        panel=_ROWS,
        changes_rows=True,
        help="Tokens at the edges of `train_ranges`, content parts without a loss and `mask_pattern`: train those with "
        "any trained character, or only those in which all characters are trained (inner).",
    )
    chat_template_kwargs: Mapping[str, Any] = option(
        factory=dict,
        panel=_ROWS,
        changes_rows=True,
        help="Extra variables for the chat template, such as `{enable_thinking: false}`.",
    )
    template_date: str | None = option(
        None,
        panel=_ROWS,
        help="Day that a chat template is given if it asks for the date (`strftime_now`), as YYYY-MM-DD; the time is "
        "midnight. Default: the day the run was first planned; a run that continues keeps it.",
    )
    special_tokens_in_content: str = option(
        "keep",
        choices=("keep", "escape", "drop", "error"),
        panel=_ROWS,
        changes_rows=True,
        help="What to do when a message contains the text of a special token: keep it and report the row, escape it "
        "so that it stays text, drop the row, or quarantine the row (error).",
    )
    check_tools: str = option(
        "off",
        choices=("off", "warn", "drop", "error"),
        words=boolean_spellings(true="warn", false="off"),
        panel=_ROWS,
        changes_rows=True,
        help="Check the tool calls of conversations: each names a tool of the row, its arguments are valid against the "
        "JSON schema of the tool, it has a result, and an answer follows. Report rows where this is not so in the "
        "audit (warn), drop them, or quarantine them (error).",
    )
    drop_empty_answers: bool = option(
        False,
        panel=_ROWS,
        changes_rows=True,
        help="Drop rows in which every answer that carries a loss is empty or only white space.",
    )
    token_kinds: bool = option(
        False,
        panel=_ROWS,
        changes_rows=True,
        help="Add a column `token_kinds` to the shards: whether each token is content, reasoning, part of a tool "
        "call, a stop token, or not trained.",
    )
    source_column: bool = option(
        False,
        panel=_ROWS,
        help="Add a column `source` to the shards: the data set of each row, or of each sequence of a pack, as an "
        "index into `source_names` of the manifest.",
    )
    compat: str = option(
        NO_COMPAT,
        choices=(NO_COMPAT, FMS),
        panel=_ROWS,
        changes_rows=True,
        help="fms: make rows as fms-hf-tuning does where sftkit differs, and take its defaults: max_seq_length 4096, "
        "truncation in tokenize, bfloat16, special tokens that are added when the tokenizer has none.",
    )
    packing: str = option(
        NO_PACKING,
        choices=(NO_PACKING, "bfd", "bfd_split", "next_fit", "wrapped"),
        plugins="packing",
        words=boolean_spellings(true="bfd", false=NO_PACKING),
        panel=_ROWS,
        help="How rows share a sequence. bfd: fill packs with whole rows (best-fit decreasing); bfd_split: the same, "
        "and cut rows that are longer than a pack; next_fit: fill packs with whole rows in their order; wrapped: "
        "concatenate rows and cut them at pack_length. `false` means none, `true` means bfd.",
    )
    pack_length: int | None = option(
        None,
        minimum=1,
        panel=_ROWS,
        help="Maximum length of a pack in tokens. Default: max_seq_length. `overflow` applies to longer rows.",
    )
    pack_window: int | None = option(
        None,
        minimum=1,
        panel=_ROWS,
        help="Pack each run of this many rows by itself, and keep the order of the runs. Default: pack all rows of a "
        "split together, and shuffle the packs of the train split.",
    )
    pad_pack_to_multiple_of: int = option(
        1,
        minimum=1,
        panel=_ROWS,
        help="Fill up each pack to a multiple of this many tokens, with a last sequence that carries no loss. Default: "
        "no padding.",
    )
    pack_count_multiple_of: int = option(
        1,
        minimum=1,
        panel=_ROWS,
        help="Make a multiple of this many packs of each split, such as the number of processes that train, by "
        "dividing packs.",
    )
    max_bad_rows: float = option(
        0,
        minimum=0,
        panel=_ROWS,
        help="Number of unreadable or unusable rows to quarantine before the run fails. A value below 1 is a fraction "
        "of the rows read; 1 is one row, and 1.0 is refused because it could mean either.",
    )
    max_dropped_rows: float | None = option(
        None,
        minimum=0,
        panel=_ROWS,
        help="Number of rows that handlers and limits may drop before the run fails. A value below 1 is a fraction of "
        "the rows read. Default: no limit.",
    )
    keep_dropped: int = option(
        100_000,
        minimum=0,
        panel=_ROWS,
        help="Number of dropped rows to list in `dropped.jsonl`, the first of them. 0: no list.",
    )
    max_row_bytes: int = option(
        256 << 20,
        minimum=1,
        panel=_ROWS,
        changes_rows=True,
        help="Maximum size of a row in the source, in bytes. Larger rows are quarantined.",
    )
    max_expansion: float = option(
        1000,
        minimum=1,
        panel=_ROWS,
        help="Maximum ratio of decompressed to compressed bytes of a source. Protects from decompression bombs.",
    )

    engine: str = option(
        "auto",
        choices=("auto", "reference"),
        panel=RUN_PANEL,
        trusted_only=True,
        help="auto: use fast engines where they are verified to match the reference engine; reference: use only "
        "tokenizers and Jinja2.",
    )
    engine_verify: float = option(
        0.001,
        minimum=0,
        maximum=1,
        panel=RUN_PANEL,
        trusted_only=True,
        help="Fraction of the rows for which the result of a fast engine is compared with the reference engine.",
    )
    num_workers: int | None = option(
        None,
        minimum=1,
        panel=RUN_PANEL,
        trusted_only=True,
        help="Worker processes. Default: the cores available to this process, or to the Ray cluster.",
    )
    unit_size: int = option(
        4 << 20, minimum=1, panel=RUN_PANEL, trusted_only=True, help="Size of a work unit, in bytes of source."
    )
    log_level: str = option(
        "warning", choices=LOG_LEVELS, panel=RUN_PANEL, trusted_only=True, help="Minimum level of log messages."
    )


SECRET_KEYS = frozenset(
    key for section in (DataOptions, DatasetConfig) for key in keys_where(section, lambda info: info.secret)
)
"""Keys that may contain credentials. They are neither shown nor written to a manifest."""
