"""The parts of the pipeline that differ between data sets: columns, handlers, and how rows are finalized."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from sftkit.audit.expectations.expected import RowOrigin
from sftkit.audit.expectations.row_origin import row_origin
from sftkit.config.fields import to_plain_data
from sftkit.config.render_validation import rendering_of
from sftkit.config.schema.data_config import DatasetConfig
from sftkit.config.schema.option_values import ONCE, SPLIT_TURNS
from sftkit.config.schema.shared_options import DataOptions
from sftkit.core.row_kinds import RowKind
from sftkit.core.row_log import RowLog
from sftkit.core.rows import INPUT_IDS, LABELS, LOSS_MASKS, SEQ_LENGTHS, SOURCE, TOKEN_COLUMNS, Batch
from sftkit.core.token_kinds import TOKEN_KINDS
from sftkit.core.weights.loss_weight_column import LOSS_WEIGHTS
from sftkit.decontamination.question_index import QuestionIndex
from sftkit.errors import DataError
from sftkit.handlers.base import Step
from sftkit.handlers.columns import RemoveColumns, RenameColumns, keep_columns, require_columns
from sftkit.handlers.registry import ConfiguredHandler, last_text_column, produced_rows
from sftkit.handlers.text import DEFAULT_TEXT_FIELD
from sftkit.preprocessing.pipeline.column_use import ColumnUse, Destinations
from sftkit.preprocessing.pipeline.comparison.decontaminate import DECONTAMINATE, drop_overlapping
from sftkit.preprocessing.pipeline.comparison.row_texts import TurnTextReader, find_turn_handler, turn_reader
from sftkit.preprocessing.pipeline.finalize import RowFinalizer
from sftkit.preprocessing.pipeline.render_per_turn import bind_per_turn
from sftkit.preprocessing.pipeline.retained import Retained, RidingColumns, retained_columns
from sftkit.preprocessing.pipeline.split_turns import bind_with_split_turns, splits_turns
from sftkit.preprocessing.pipeline.tool_checking import OFF as CHECKS_NO_TOOLS
from sftkit.preprocessing.pipeline.tool_checking import reads_conversations, with_tool_check
from sftkit.sources.reading_hints import hint_for_columns
from sftkit.tokenization.chat_tokenizer import ChatTokenizer

READ = "read"
"""Name, in row counts and times, of reading rows and of the steps before all handlers."""

_ORIGIN_OPTIONS = (
    *("train_on", "train_on_stop", "reasoning", "tool_calls", "mask_pattern", "pattern_weights", "response_template"),
    *("roles_to_train", "empty_reasoning", "chat_template_kwargs"),
)


@dataclass(frozen=True)
class DatasetPipeline:
    """One data set's part of a `Pipeline`."""

    config: DatasetConfig
    handlers: tuple[ConfiguredHandler, ...]
    options: DataOptions
    questions: QuestionIndex | None = None
    """Evaluation questions that rows must not overlap with."""

    @property
    def row_kind(self) -> RowKind | None:
        """What the handlers make of rows; None if they only change columns."""
        return produced_rows(each.handler for each in self.handlers)[0]

    @property
    def origin(self) -> RowOrigin:
        """How the rows are made, for the audit."""
        kind, ends_with_stop_token = produced_rows(each.handler for each in self.handlers)
        options = {name: to_plain_data(getattr(self.options, name)) for name in _ORIGIN_OPTIONS}
        return row_origin(options, kind, ends_with_stop_token=ends_with_stop_token)

    @property
    def finalizer(self) -> RowFinalizer:
        """Finalizes the rows of this data set."""
        options = self.options
        retained_by_handlers = [each.handler.retains() for each in self.handlers]
        text_fields = (options.dataset_text_field, last_text_column(self.handlers), DEFAULT_TEXT_FIELD)
        return RowFinalizer(
            text_fields=tuple(dict.fromkeys(name for name in text_fields if name)),
            retained=frozenset(self.config.retain_columns).union(*retained_by_handlers),
            response_template=options.response_template,
            instruction_template=options.instruction_template,
            max_seq_length=options.max_seq_length,
            overflow=options.overflow,
            train_on_all=options.train_on == "all",
            reads_masks=not any(INPUT_IDS in each.handler.writes() for each in self.handlers),
        )

    @property
    def reads_conversations(self) -> bool:
        """Whether a handler reads conversations, whose tool calls `check_tools` can check."""
        return any(reads_conversations(each.handler) for each in self.handlers)

    @property
    def splits_turns(self) -> bool:
        """Whether a handler tokenizes conversations, of which `split_turns` and `per_turn` can make several rows."""
        return any(map(splits_turns, self.handlers))

    def _bound_handlers(self, tokenizer: ChatTokenizer) -> list[tuple[str, Step]]:
        """Bind the handlers, each with its name.

        Raises:
            ConfigError, TokenizerError: as `Handler.bind`.
        """
        checks_tools = self.options.check_tools != CHECKS_NO_TOOLS
        bound: list[tuple[str, Step]] = []
        for each in self.handlers:
            step = self._bind(each, tokenizer)
            if checks_tools and reads_conversations(each.handler):
                step, checks_tools = with_tool_check(step, each.handler, self.options.check_tools), False
            bound.append((each.name, step))
        return bound

    def _bind(self, handler: ConfiguredHandler, tokenizer: ChatTokenizer) -> Step:
        options = self.options
        if splits_turns(handler):
            if options.overflow == SPLIT_TURNS and options.max_seq_length is not None:
                return bind_with_split_turns(handler, tokenizer, options.max_seq_length)
            if rendering_of(options) != ONCE:
                return bind_per_turn(handler, tokenizer, options.max_samples_per_row)
        return handler.bind(tokenizer)

    def column_use(self, tokenizer: ChatTokenizer) -> ColumnUse:
        """Return what finds the columns that are not used."""
        finalizer = self.finalizer
        labels = frozenset({LABELS, *(LOSS_MASKS if finalizer.reads_masks else ())})
        destinations = Destinations(
            text_fields=finalizer.text_fields,
            columns=labels.union(self._token_columns, finalizer.retained),
            labels=labels,
        )
        retained = self._retained(tokenizer)
        kept = retained.names.union(self._token_columns) if retained.at_load else None
        return ColumnUse(self.config, self.handlers, kept, retained.riding, destinations, tokenizer)

    def _retained(self, tokenizer: ChatTokenizer) -> Retained:
        return retained_columns(self.config.retain_columns, self.handlers, tokenizer)

    def steps(self, tokenizer: ChatTokenizer) -> list[tuple[str, Step]]:
        """Return all steps before rows are finalized, each with the name under which its work is counted."""
        load = [(READ, step) for step in self._load_steps(tokenizer)]
        if self.questions is not None:
            load.insert(0, (DECONTAMINATE, drop_overlapping(self.questions)))
        handlers = self._bound_handlers(tokenizer)
        riding = RidingColumns(self._retained(tokenizer).riding)
        return riding.around(READ, load, handlers)

    def turn_steps(self, tokenizer: ChatTokenizer) -> tuple[list[Step], TurnTextReader] | None:
        """Return the steps before rows become text or tokens, and what then reads their turns.

        None if no handler takes conversations or pairs.
        """
        index = find_turn_handler(self.handlers)
        if index is None:
            return None
        before = [each.bind(tokenizer) for each in self.handlers[:index]]
        return [*self._load_steps(tokenizer), *before], turn_reader(self.handlers[index], tokenizer)

    def _load_steps(self, tokenizer: ChatTokenizer) -> list[Step]:
        """Steps that rename and remove columns before any handler runs."""
        steps: list[Step] = []
        if self.config.rename_columns:
            steps.append(RenameColumns(columns=self.config.rename_columns).bind(tokenizer))
        if self.config.remove_columns:
            steps.append(RemoveColumns(columns=self.config.remove_columns).bind(tokenizer))
        if self._retained(tokenizer).at_load:
            steps.append(self._retain)
        return steps

    def _retain(self, batch: Batch, log: RowLog) -> Batch:
        """Keep the named columns and token columns."""
        named = self.config.retain_columns
        return keep_columns(require_columns(batch, log, named), {*named, *self._token_columns})

    @property
    def _reserved(self) -> dict[str, str]:
        """Names that retained columns cannot have, and what they mean in shards."""
        reserved = {SEQ_LENGTHS: "the lengths of the sequences in a pack"}
        if self.options.token_kinds:
            reserved[TOKEN_KINDS] = "the kinds of the tokens"
        if self.options.source_column:
            reserved[SOURCE] = "the data set of a row"
        return reserved

    @property
    def _token_columns(self) -> tuple[str, ...]:
        """The columns of rows that come with their tokens."""
        weights = (LOSS_WEIGHTS,) if self.finalizer.reads_masks else ()
        return (*TOKEN_COLUMNS, *LOSS_MASKS, *weights, *((TOKEN_KINDS,) if self.options.token_kinds else ()))

    def check_columns(self, columns: Collection[str], tokenizer: ChatTokenizer) -> None:
        """See `Pipeline.check_columns`."""
        for name, meaning in self._reserved.items():
            if name in {*self.finalizer.retained, self.options.dataset_text_field}:
                raise DataError(
                    f"dataset {self.config.name!r} ({self.config.data_paths[0]}): column {name!r} cannot be in the "
                    f"shards, where it would mean {meaning}; rename it with rename_columns"
                )
        self._require("rename_columns", self.config.rename_columns, columns)
        current = {self.config.rename_columns.get(name, name) for name in columns}
        self._require("remove_columns", self.config.remove_columns, current)
        current -= set(self.config.remove_columns)
        retained = self._retained(tokenizer)
        if retained.at_load:
            self._require("retain_columns", self.config.retain_columns, current)
            current &= {*self.config.retain_columns, *self._token_columns}
        seen, riding = set(current), retained.riding & current
        for each in self.handlers:
            if each.handler.makes_new_rows:
                return  # the columns of new rows are known only after the handler has run
            self._require(each.name, each.reads(), current)
            current = each.columns_after(current) | riding
            seen |= current
        self._require("retain_columns", self.config.retain_columns, seen)
        problem = self.finalizer.column_problem(sorted(current))
        if problem is not None:
            raise DataError(f"dataset {self.config.name!r} ({self.config.data_paths[0]}): {problem}")

    def _require(self, reader: str, reads: Iterable[str], columns: Collection[str]) -> None:
        missing = next((column for column in reads if column not in columns), None)
        if missing is not None:
            existing = ", ".join(sorted(columns)) or "none"
            raise DataError(
                f"dataset {self.config.name!r} ({self.config.data_paths[0]}): {reader} needs column {missing!r}, "
                f"which no row has; columns there: {existing}{hint_for_columns(columns)}"
            )
