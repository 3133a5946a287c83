"""The pipeline of one work unit: read -> handlers -> finish -> one staged Arrow file. A pure function of the unit."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from sftkit.audit.checks.collector import AuditCollector
from sftkit.audit.expectations.expected import Expectations, RowOrigin
from sftkit.audit.expectations.learn import learn_expectations
from sftkit.audit.expectations.row_origin import row_origin
from sftkit.config.fields import to_plain_data
from sftkit.config.schema import DataOptions, DatasetConfig
from sftkit.core.progress import Stopwatch
from sftkit.core.row_log import EngineDifferenceError, RowLog
from sftkit.core.rows import INPUT_IDS, LABELS, TOKEN_COLUMNS, Batch
from sftkit.errors import DataError
from sftkit.handlers.base import Step
from sftkit.handlers.columns import RemoveColumns, RenameColumns, keep_columns, require_columns
from sftkit.handlers.registry import ConfiguredHandler, build_handlers, last_text_column, produced_rows
from sftkit.preprocessing.finalize import RowFinalizer
from sftkit.preprocessing.infer_datasets import DEFAULT_TEXT_FIELD
from sftkit.sandbox.render_limits import TemplateLimitError
from sftkit.shards.retained_columns import RetainedColumnError
from sftkit.shards.staging.staged_unit import StagedUnit, UnitAudit
from sftkit.shards.staging.unit_store import UnitStore
from sftkit.shards.staging.unit_writer import UnitWriter
from sftkit.sources.work_units import WorkUnit, read_unit
from sftkit.tokenization.chat_tokenizer import ChatTokenizer, ChatTokenizerSpec

FINALIZE = "finish"
"""Who has the rows after all handlers, in accounts and measurements."""

_ORIGIN_OPTIONS = ("train_on", "reasoning", "response_template", "chat_template_kwargs")


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what becomes of a row. Small, and safe to send to another process.

    options holds the rules; datasets are the ones that the units' files belong to (by name).
    """

    options: DataOptions
    datasets: tuple[DatasetConfig, ...]
    chat_tokenizer: ChatTokenizerSpec


@dataclass(frozen=True)
class StagingTask:
    """A unit to run, and the key that its rows are kept under."""

    unit: WorkUnit
    key: str

    def __str__(self) -> str:
        return str(self.unit)


class Pipeline:
    """A recipe made ready to run: handlers built, the tokenizer loaded when something first needs it."""

    def __init__(self, recipe: Recipe, chat_tokenizer: ChatTokenizer) -> None:
        self.chat_tokenizer = chat_tokenizer
        self._lines = {
            dataset.name: _Line(dataset, build_handlers(dataset, index), recipe.options)
            for index, dataset in enumerate(recipe.datasets)
        }
        self._steps: dict[str, list[tuple[str, Step]]] = {}
        self._norms: dict[RowOrigin, Expectations] = {}

    def check(self) -> None:
        """Bind every handler of every data set: what can be wrong with them shows before data is read."""
        for name in self._lines:
            self._bound(name)

    def check_columns(self, dataset: str, columns: Collection[str]) -> None:
        """Follow the columns of a data set's first rows through its handlers.

        Raises:
            DataError: a handler reads a column that no row has and no handler before it makes, or rows would end as
                neither tokens nor text.
        """
        self._lines[dataset].check_columns(columns)

    def stage(self, store: UnitStore, task: StagingTask) -> StagedUnit:
        """Run one unit and keep its rows among the staged units.

        Raises:
            SourceError: its file cannot be read.
            DataError: its rows do not all end alike, or hold what Parquet cannot.
            EngineDifferenceError: a fast engine made another row than the reference.
        """
        unit, watch = task.unit, Stopwatch()
        checked: AuditCollector | None = None
        with store.writer(task.key) as writer:
            log = RowLog(on_bad_rows=writer.write_bad_rows)
            for batch, text_field in self.process(unit, log, watch):
                if len(batch):
                    _write(writer, batch, text_field, unit)
                watch.lap("store")
                if len(batch) and text_field is None:
                    checked = checked or AuditCollector(self._norms_of(unit.file.dataset))
                    checked.add(batch.tokens[INPUT_IDS], batch.tokens[LABELS], batch.numbers)
                watch.lap("audit")
        audit = UnitAudit(checked.rows, checked.faulty(log.flagged), checked.digests) if checked is not None else None
        watch.lap("audit")
        staged = writer.finish(
            unit.number, log, self.chat_tokenizer.engines_used, watch.seconds, audit, unit.part.first_number
        )
        store.commit(task.key, staged, writer.file)
        return staged

    def process(self, unit: WorkUnit, log: RowLog, watch: Stopwatch) -> Iterator[tuple[Batch, str | None]]:
        """The rows of a unit as they go to disk, batch by batch, each with its text column where it has no tokens.

        What becomes of rows goes to the log, and the time that reading, each handler and finishing take to the watch.

        Raises:
            SourceError, EngineDifferenceError: as `stage`.
        """
        steps, ending = self._bound(unit.file.dataset), self._lines[unit.file.dataset].ending
        unreadable = log.for_unreadable()
        self.chat_tokenizer.start_unit()
        try:
            for batch in read_unit(unit, unreadable):
                watch.lap("read")
                log.read += len(batch)
                for name, step in steps:
                    log.handler = name
                    batch = step(batch, log)
                    watch.lap(name)
                log.handler = FINALIZE
                for part in ending.parts(batch):
                    finished = ending.finish(part, log, self.chat_tokenizer)
                    watch.lap(FINALIZE)
                    yield finished
                log.flush()
        except (EngineDifferenceError, TemplateLimitError) as error:
            raise error.at(f"{unit.file.path}:{error.place}") from None
        log.merge(unreadable)

    def _norms_of(self, dataset: str) -> Expectations:
        """What right rows of a data set look like, learnt when its first rows of tokens are there."""
        line = self._lines[dataset]
        making = line.origin
        if making not in self._norms:
            known = self.chat_tokenizer.vocabulary_size is not None
            self._norms[making] = (
                learn_expectations(self.chat_tokenizer.tokenizer, making, self.chat_tokenizer.stop_tokens)
                if known
                else Expectations(origin=making)
            )
        return self._norms[making]

    def _bound(self, dataset: str) -> list[tuple[str, Step]]:
        if dataset not in self._steps:
            line = self._lines[dataset]
            handlers = [(link.name, link.bind(self.chat_tokenizer)) for link in line.links]
            self._steps[dataset] = [*(("read", step) for step in line.load_steps(self.chat_tokenizer)), *handlers]
        return self._steps[dataset]


def _write(writer: UnitWriter, batch: Batch, text_field: str | None, unit: WorkUnit) -> None:
    try:
        writer.write(batch, text_field)
    except DataError as error:
        place = error.row_index if isinstance(error, RetainedColumnError) else 0
        raise DataError(f"{unit.file.path}:{batch.numbers[place]}: {error}") from None


@dataclass(frozen=True)
class _Line:
    """One data set's way through the pipeline."""

    config: DatasetConfig
    links: tuple[ConfiguredHandler, ...]
    options: DataOptions

    @property
    def retains_at_load(self) -> bool:
        """Whether `retain_columns` speaks of the source's columns (dropped at load time) or of what handlers make."""
        made = {column for link in self.links for column in link.handler.writes()}
        knowable = not any(link.handler.makes_new_rows for link in self.links)
        return bool(self.config.retain_columns) and knowable and not made & set(self.config.retain_columns)

    @property
    def origin(self) -> RowOrigin:
        """How the rows are made, for the audit."""
        kind, ends_with_stop_token = produced_rows(link.handler for link in self.links)
        options = {name: to_plain_data(getattr(self.options, name)) for name in _ORIGIN_OPTIONS}
        return row_origin(options, kind, ends_with_stop_token=ends_with_stop_token)

    @property
    def ending(self) -> RowFinalizer:
        """How this data set's rows are finished."""
        options = self.options
        kept_by_handlers = [link.handler.retains() for link in self.links]
        candidates = (options.dataset_text_field, last_text_column(self.links), DEFAULT_TEXT_FIELD)
        return RowFinalizer(
            text_fields=tuple(dict.fromkeys(name for name in candidates if name)),
            retained=frozenset(self.config.retain_columns).union(*kept_by_handlers),
            response_template=options.response_template,
            instruction_template=options.instruction_template,
            max_seq_length=options.max_seq_length,
            overflow=options.overflow,
            train_on_all=options.train_on == "all",
        )

    def load_steps(self, tools: ChatTokenizer) -> list[Step]:
        """The data set's own renaming and dropping of columns, before any handler."""
        steps: list[Step] = []
        if self.config.rename_columns:
            steps.append(RenameColumns(columns=self.config.rename_columns).bind(tools))
        if self.config.remove_columns:
            steps.append(RemoveColumns(columns=self.config.remove_columns).bind(tools))
        if self.retains_at_load:
            steps.append(self._retain)
        return steps

    def _retain(self, batch: Batch, log: RowLog) -> Batch:
        """Token columns stay besides those that are named."""
        named = self.config.retain_columns
        return keep_columns(require_columns(batch, log, named), {*named, *TOKEN_COLUMNS})

    def check_columns(self, columns: Collection[str]) -> None:
        """Raise `DataError` when a handler reads a column that cannot be there, or the rows cannot be finished."""
        self._require("rename_columns", self.config.rename_columns, columns)
        at_hand = {self.config.rename_columns.get(name, name) for name in columns}
        self._require("remove_columns", self.config.remove_columns, at_hand)
        at_hand -= set(self.config.remove_columns)
        if self.retains_at_load:
            self._require("retain_columns", self.config.retain_columns, at_hand)
            at_hand &= {*self.config.retain_columns, *TOKEN_COLUMNS}
        seen = set(at_hand)
        for link in self.links:
            if link.handler.makes_new_rows:
                return  # the columns of new rows are known only after the handler has run
            self._require(link.name, link.reads(), at_hand)
            at_hand = link.columns_after(at_hand)
            seen |= at_hand
        self._require("retain_columns", self.config.retain_columns, seen)
        problem = self.ending.problem_of(sorted(at_hand))
        if problem is not None:
            raise DataError(f"dataset {self.config.name!r} ({self.config.data_paths[0]}): {problem}")

    def _require(self, who: str, reads: Iterable[str], columns: Collection[str]) -> None:
        missing = next((column for column in reads if column not in columns), None)
        if missing is not None:
            there = ", ".join(sorted(columns)) or "none"
            raise DataError(
                f"dataset {self.config.name!r} ({self.config.data_paths[0]}): {who} needs column {missing!r}, "
                f"which no row has; columns there: {there}"
            )
