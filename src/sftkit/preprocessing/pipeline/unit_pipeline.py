"""The pipeline of one work unit: read, run the handlers, finalize, write a staged unit."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from functools import partial

from sftkit.audit.checks.collector import AuditCollector
from sftkit.audit.expectations.expected import Expectations, RowOrigin
from sftkit.audit.expectations.learn import learn_expectations
from sftkit.config.schema.option_values import PER_TURN, SPLIT_TURNS
from sftkit.config.schema.shared_options import DataOptions
from sftkit.core.panics import panics_as_errors
from sftkit.core.progress import Done, Report, Stopwatch, no_report
from sftkit.core.row_kinds import RowKind
from sftkit.core.row_log import UNREADABLE, EngineDifferenceError, RowLog
from sftkit.core.rows import INPUT_IDS, LABELS, Batch, Offsets
from sftkit.errors import ConfigError
from sftkit.handlers.base import Step, map_rows
from sftkit.handlers.registry import build_handlers
from sftkit.handlers.user_function import code_digests
from sftkit.preprocessing.pipeline.column_use import ColumnSample, ColumnUse, sample_columns
from sftkit.preprocessing.pipeline.comparison.row_texts import TurnText
from sftkit.preprocessing.pipeline.dataset_pipeline import DatasetPipeline
from sftkit.preprocessing.pipeline.recipe import Recipe
from sftkit.preprocessing.pipeline.tool_checking import OFF
from sftkit.sandbox.render_limits import TemplateLimitError
from sftkit.sandbox.watchdog import watchdog
from sftkit.shards.staging.staged_unit import StagedUnit, UnitAudit
from sftkit.shards.staging.storable_rows import write_storable
from sftkit.shards.staging.unit_store import UnitStore
from sftkit.sources.work_units import WorkUnit, read_unit
from sftkit.tokenization.chat_tokenizer import ChatTokenizer

FINALIZE = "finish"
"""Name, in row counts and times, of the step after all handlers (see `RowFinalizer`)."""

_ABOUT_MESSAGES = ("roles_to_train", "empty_reasoning", "pattern_weights")
"""Options without effect unless conversations are tokenized."""


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
        self._options = recipe.options
        self._check_tools = recipe.options.check_tools
        self._datasets = {
            dataset.name: DatasetPipeline(dataset, build_handlers(dataset, index), recipe.options, recipe.questions)
            for index, dataset in enumerate(recipe.datasets)
        }
        self._steps: dict[str, list[tuple[str, Step]]] = {}
        self._column_use: dict[str, ColumnUse] = {}
        self._expectations: dict[RowOrigin, Expectations] = {}

    def check(self) -> None:
        """Bind all handlers of all data sets, which finds errors in their arguments before any data is read.

        Raises:
            ConfigError, TokenizerError: as `Handler.bind`.
        """
        for name in self._datasets:
            self._bound_steps(name)
        if not any(each.splits_turns for each in self._datasets.values()):
            self._check_needs_no_conversations()
        if self._check_tools != OFF and not any(each.reads_conversations for each in self._datasets.values()):
            raise ConfigError(
                f"check_tools={self._check_tools} checks conversations, but no data set has a handler that reads them, "
                "such as convert_to_messages or tokenize_and_apply_chat_template_with_masking; use one, or "
                "check_tools=off"
            )

    def _check_needs_no_conversations(self) -> None:
        handler = "but no data set has the handler tokenize_and_apply_chat_template_with_masking; use it, or"
        if self._options.overflow == SPLIT_TURNS:
            raise ConfigError(f"overflow=split_turns splits conversations, {handler} another value of overflow")
        if self._options.render == PER_TURN:
            raise ConfigError(f"render=per_turn renders conversations, {handler} leave render out")
        for key in _ABOUT_MESSAGES:
            if getattr(self._options, key) != getattr(DataOptions(), key):
                raise ConfigError(f"{key} is about messages of conversations, {handler} leave {key} out")

    @property
    def row_kinds(self) -> set[RowKind | None]:
        """What the handlers of each data set make of rows."""
        return {each.row_kind for each in self._datasets.values()}

    def retained_columns(self, dataset: str) -> frozenset[str]:
        """The columns that the config or a handler of a data set retains."""
        return self._datasets[dataset].finalizer.retained

    def check_columns(self, dataset: str, columns: Collection[str]) -> None:
        """Check, from the columns of a data set's first rows, that every handler finds the columns it reads.

        Raises:
            DataError: a handler reads a column that no row has and no earlier handler writes, or rows would become
                neither tokens nor text.
        """
        self._datasets[dataset].check_columns(columns, self.chat_tokenizer)

    def sample_columns(self, dataset: str, batch: Batch) -> ColumnSample:
        """Find which columns of some rows of a data set are not used."""
        parts = self._datasets[dataset]
        return sample_columns(parts.column_use(self.chat_tokenizer), parts.row_kind, batch)

    @panics_as_errors()
    def stage(self, store: UnitStore, task: StagingTask, report: Report = no_report) -> StagedUnit:
        """Process one work unit and store its rows, and report after each batch; a step is a byte of source.

        Raises:
            SourceError: its file cannot be read.
            DataError: some rows become tokens and others text, or a value cannot be stored in Parquet.
            EngineDifferenceError: a fast engine and the reference engine disagree on a row.
        """
        unit, watch = task.unit, Stopwatch()
        by_programs = self.chat_tokenizer.rows_by_programs
        checked: AuditCollector | None = None
        rows = tokens = 0
        with store.writer(task.key) as writer:
            log = RowLog(on_bad_rows=writer.write_bad_rows, on_dropped_rows=writer.write_dropped_rows)
            for batch, text_field in self.process(unit, log, watch):
                if len(batch):
                    batch = write_storable(writer, batch, text_field, partial(_place, unit, log), log)
                watch.lap("store")
                if len(batch) and text_field is None:
                    checked = checked or AuditCollector(self._expectations_of(unit.file.dataset))
                    checked.add(batch.tokens[INPUT_IDS], batch.tokens[LABELS], batch.numbers)
                rows += len(batch)
                tokens += len(batch.tokens[INPUT_IDS].values) if text_field is None and len(batch) else 0
                report(Done(log.source_bytes, rows, tokens))
                watch.lap("audit")
            self._check_functions()
        audit = UnitAudit(checked.rows, checked.faulty(log.flagged), checked.digests) if checked is not None else None
        watch.lap("audit")
        staged = writer.finish(
            unit.number,
            log,
            self.chat_tokenizer.engines_used,
            watch.seconds,
            audit,
            unit.first_number,
            self.chat_tokenizer.rows_by_programs - by_programs,
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
        columns = self._column_use[unit.file.dataset]
        unreadable = log.for_unreadable()
        self.chat_tokenizer.start_unit()
        several = len(unit.parts) > 1
        watchdog().work_on(unit.file.name, partial(_locate, unit, log) if several else None)
        try:
            for batch in read_unit(unit, unreadable):
                watch.lap("read")
                log.read += len(batch)
                log.source_bytes += batch.source_bytes
                columns.count(batch, log)
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

    def has_turns(self, dataset: str) -> bool:
        """Whether a handler of a data set takes conversations or pairs, so that `turns` can read its rows."""
        return self._datasets[dataset].turn_steps(self.chat_tokenizer) is not None

    def turns(self, unit: WorkUnit) -> Iterator[tuple[Offsets, list[list[TurnText]]]]:
        """Yield the numbers of the rows of a work unit and the turns of each, batch by batch.

        The handlers before the one that takes conversations or pairs run again. Rows without turns are left out.

        Raises:
            SourceError: as `stage`.
        """
        found = self._datasets[unit.file.dataset].turn_steps(self.chat_tokenizer)
        assert found is not None
        steps, read = found
        for batch in read_unit(unit, RowLog(kind=UNREADABLE, on_bad_rows=lambda *_: None)):
            log = RowLog()
            for step in steps:
                batch = step(batch, log)
            batch, turns = map_rows(batch, log, read)
            yield batch.numbers, turns

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
            self._steps[dataset] = parts.steps(self.chat_tokenizer)
            self._column_use[dataset] = parts.column_use(self.chat_tokenizer)
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
