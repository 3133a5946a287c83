"""The pipeline of one work unit: read, run the handlers, finalize, write a staged unit."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from sftkit.audit.checks.collector import AuditCollector
from sftkit.audit.expectations.expected import Expectations, RowOrigin
from sftkit.audit.expectations.learn import learn_expectations
from sftkit.audit.expectations.row_origin import row_origin
from sftkit.config.fields import to_plain_data
from sftkit.config.schema import DataOptions, DatasetConfig
from sftkit.core.progress import Stopwatch
from sftkit.core.row_log import EngineDifferenceError, RowLog
from sftkit.core.rows import INPUT_IDS, LABELS, LOSS_MASKS, SEQ_LENGTHS, TOKEN_COLUMNS, Batch
from sftkit.errors import ConfigError, DataError
from sftkit.handlers.base import Step
from sftkit.handlers.columns import RemoveColumns, RenameColumns, keep_columns, require_columns
from sftkit.handlers.registry import ConfiguredHandler, build_handlers, last_text_column, produced_rows
from sftkit.handlers.user_function import code_digests
from sftkit.preprocessing.finalize import RowFinalizer
from sftkit.preprocessing.infer_datasets import DEFAULT_TEXT_FIELD
from sftkit.sandbox.render_limits import TemplateLimitError
from sftkit.sandbox.watchdog import watchdog
from sftkit.shards.staging.staged_unit import StagedUnit, UnitAudit
from sftkit.shards.staging.storable_rows import write_storable
from sftkit.shards.staging.unit_store import UnitStore
from sftkit.sources.work_units import WorkUnit, read_unit
from sftkit.tokenization.chat_tokenizer import ChatTokenizer
from sftkit.tokenization.chat_tokenizer_spec import ChatTokenizerSpec

FINALIZE = "finish"
"""Name, in row counts and times, of the step after all handlers (see `RowFinalizer`)."""

_ORIGIN_OPTIONS = ("train_on", "reasoning", "response_template", "chat_template_kwargs")


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what becomes of a row, apart from the row.

    A recipe is plain data. It is made once, by `plan`, and sent to every process that runs tasks; each makes a
    `Pipeline` of it.
    """

    options: DataOptions
    """Limits, masking and other options that apply to all data sets."""
    datasets: tuple[DatasetConfig, ...]
    """The data sets with their handlers. Work units refer to them by name."""
    chat_tokenizer: ChatTokenizerSpec
    """The tokenizer and how it is used."""
    functions: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """The user's own functions, and `code_digests` of each when the run was planned."""


@dataclass(frozen=True)
class StagingTask:
    """A work unit to tokenize."""

    unit: WorkUnit
    key: str
    """The key under which its rows are stored; see `unit_keys`."""

    def __str__(self) -> str:
        return str(self.unit)


class Pipeline:
    """A recipe that is ready to run in this process.

    It takes a work unit through these steps, batch by batch: read the rows of the source, rename and remove columns as
    the data set asks for it, run each handler, and finalize the rows (labels, length limit). `process` yields the
    resulting batches; `stage` also audits them and writes them to a staged unit. Rows that are dropped or quarantined
    on the way are recorded in a `RowLog`. The result depends on nothing but the recipe and the unit.

    The tokenizer is loaded when a step first needs it.
    """

    def __init__(self, recipe: Recipe, chat_tokenizer: ChatTokenizer) -> None:
        self.chat_tokenizer = chat_tokenizer
        self._functions, self._modules = recipe.functions, 0
        self._datasets = {
            dataset.name: _DatasetPipeline(dataset, build_handlers(dataset, index), recipe.options)
            for index, dataset in enumerate(recipe.datasets)
        }
        self._steps: dict[str, list[tuple[str, Step]]] = {}
        self._expectations: dict[RowOrigin, Expectations] = {}

    def check(self) -> None:
        """Bind all handlers of all data sets, which finds errors in their arguments before any data is read.

        Raises:
            ConfigError, TokenizerError: as `Handler.bind`.
        """
        for name in self._datasets:
            self._bound_steps(name)

    def check_columns(self, dataset: str, columns: Collection[str]) -> None:
        """Check, from the columns of a data set's first rows, that every handler finds the columns it reads.

        Raises:
            DataError: a handler reads a column that no row has and no earlier handler writes, or rows would become
                neither tokens nor text.
        """
        self._datasets[dataset].check_columns(columns)

    def stage(self, store: UnitStore, task: StagingTask) -> StagedUnit:
        """Process one work unit and store its rows.

        Raises:
            SourceError: its file cannot be read.
            DataError: some rows become tokens and others text, or a value cannot be stored in Parquet.
            EngineDifferenceError: a fast engine and the reference engine disagree on a row.
        """
        unit, watch = task.unit, Stopwatch()
        checked: AuditCollector | None = None
        with store.writer(task.key) as writer:
            log = RowLog(on_bad_rows=writer.write_bad_rows)
            for batch, text_field in self.process(unit, log, watch):
                if len(batch):
                    batch = write_storable(writer, batch, text_field, partial(_place, unit, log), log)
                watch.lap("store")
                if len(batch) and text_field is None:
                    checked = checked or AuditCollector(self._expectations_of(unit.file.dataset))
                    checked.add(batch.tokens[INPUT_IDS], batch.tokens[LABELS], batch.numbers)
                watch.lap("audit")
            self._check_functions()
        audit = UnitAudit(checked.rows, checked.faulty(log.flagged), checked.digests) if checked is not None else None
        watch.lap("audit")
        staged = writer.finish(
            unit.number, log, self.chat_tokenizer.engines_used, watch.seconds, audit, unit.first_number
        )
        store.commit(task.key, staged, writer.file)
        return staged

    def process(self, unit: WorkUnit, log: RowLog, watch: Stopwatch) -> Iterator[tuple[Batch, str | None]]:
        """Yield the finalized rows of a work unit, batch by batch.

        Args:
            unit: the unit.
            log: records rows that are read, dropped or quarantined.
            watch: records the time that reading, each handler and finalizing take.

        Yields:
            A batch, and the name of its text column (None if its rows are tokens).

        Raises:
            SourceError, EngineDifferenceError: as `stage`.
        """
        steps, finalizer = self._bound_steps(unit.file.dataset), self._datasets[unit.file.dataset].finalizer
        unreadable = log.for_unreadable()
        self.chat_tokenizer.start_unit()
        several = len(unit.parts) > 1
        watchdog().work_on(unit.file.name, partial(_locate, unit, log) if several else None)
        try:
            for batch in read_unit(unit, unreadable):
                watch.lap("read")
                log.read += len(batch)
                for name, step in steps:
                    log.handler = name
                    batch = step(batch, log)
                    watch.lap(name)
                log.handler = FINALIZE
                for part in finalizer.uniform_parts(batch):
                    finalized = finalizer.finalize(part, log, self.chat_tokenizer)
                    watch.lap(FINALIZE)
                    yield finalized
                log.flush()
        except (EngineDifferenceError, TemplateLimitError) as error:
            raise error.at(_place(unit, log, int(error.place))) from None
        finally:
            watchdog().work_on("")
        log.merge(unreadable)

    def _expectations_of(self, dataset: str) -> Expectations:
        """Learn what correct rows of a data set look like, once per kind of rows."""
        origin = self._datasets[dataset].origin
        if origin not in self._expectations:
            has_tokenizer = self.chat_tokenizer.vocabulary_size is not None
            self._expectations[origin] = (
                learn_expectations(
                    self.chat_tokenizer.tokenizer,
                    replace(origin, template_date=self.chat_tokenizer.template_date),
                    self.chat_tokenizer.stop_tokens,
                )
                if has_tokenizer
                else Expectations(origin=origin)
            )
        return self._expectations[origin]

    def _bound_steps(self, dataset: str) -> list[tuple[str, Step]]:
        if dataset not in self._steps:
            parts = self._datasets[dataset]
            handlers = [(each.name, each.bind(self.chat_tokenizer)) for each in parts.handlers]
            self._steps[dataset] = [*(("read", step) for step in parts.load_steps(self.chat_tokenizer)), *handlers]
            self._check_functions()
        return self._steps[dataset]

    def _check_functions(self) -> None:
        """Check, after modules were imported, that the code that runs is the code that the run was planned with.

        Raises:
            ConfigError: a module has changed since.
        """
        if self._modules == len(sys.modules):
            return
        self._modules = len(sys.modules)
        for path, planned in self._functions.items():
            if code_digests(path) != planned:
                raise ConfigError(f"handler {path!r}: its code changed during the run; run the command again")


def _place(unit: WorkUnit, log: RowLog, number: int) -> str:
    """Name a row of a unit as `path:row`."""
    path, row = _locate(unit, log, number)
    return f"{path}:{row}"


def _locate(unit: WorkUnit, log: RowLog, number: int) -> tuple[str, int]:
    return unit.locate(number, [file.rows_before for file in log.files])


@dataclass(frozen=True)
class _DatasetPipeline:
    """The parts of the pipeline that differ between data sets."""

    config: DatasetConfig
    handlers: tuple[ConfiguredHandler, ...]
    options: DataOptions

    @property
    def retains_at_load(self) -> bool:
        """Whether `retain_columns` names columns of the source, so that others can be removed when rows are read.

        It may also name columns that handlers write.
        """
        written = {column for each in self.handlers for column in each.handler.writes()}
        is_known = not any(each.handler.makes_new_rows for each in self.handlers)
        return bool(self.config.retain_columns) and is_known and not written & set(self.config.retain_columns)

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

    def load_steps(self, tokenizer: ChatTokenizer) -> list[Step]:
        """Steps that rename and remove columns before any handler runs."""
        steps: list[Step] = []
        if self.config.rename_columns:
            steps.append(RenameColumns(columns=self.config.rename_columns).bind(tokenizer))
        if self.config.remove_columns:
            steps.append(RemoveColumns(columns=self.config.remove_columns).bind(tokenizer))
        if self.retains_at_load:
            steps.append(self._retain)
        return steps

    def _retain(self, batch: Batch, log: RowLog) -> Batch:
        """Keep the named columns and token columns."""
        named = self.config.retain_columns
        return keep_columns(require_columns(batch, log, named), {*named, *TOKEN_COLUMNS, *LOSS_MASKS})

    def check_columns(self, columns: Collection[str]) -> None:
        """See `Pipeline.check_columns`."""
        if SEQ_LENGTHS in {*self.finalizer.retained, self.options.dataset_text_field}:
            raise DataError(
                f"dataset {self.config.name!r} ({self.config.data_paths[0]}): column {SEQ_LENGTHS!r} cannot be in the "
                "shards, where it would mean the lengths of the sequences in a pack; rename it with rename_columns"
            )
        self._require("rename_columns", self.config.rename_columns, columns)
        current = {self.config.rename_columns.get(name, name) for name in columns}
        self._require("remove_columns", self.config.remove_columns, current)
        current -= set(self.config.remove_columns)
        if self.retains_at_load:
            self._require("retain_columns", self.config.retain_columns, current)
            current &= {*self.config.retain_columns, *TOKEN_COLUMNS, *LOSS_MASKS}
        seen = set(current)
        for each in self.handlers:
            if each.handler.makes_new_rows:
                return  # the columns of new rows are known only after the handler has run
            self._require(each.name, each.reads(), current)
            current = each.columns_after(current)
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
                f"which no row has; columns there: {existing}"
            )
