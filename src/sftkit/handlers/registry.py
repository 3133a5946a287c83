"""Handlers by name, and the handlers of a data set: built from its config and checked before any data is read."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import sftkit.handlers
from sftkit.config.aliases import (
    HANDLER_ALIASES,
    HANDLER_ARGUMENT_ALIASES,
    REFUSED_HANDLERS,
    UNUSED_HANDLER_ARGUMENTS,
)
from sftkit.config.binding import Problem, bind_config, describe_value, field_types
from sftkit.config.fields import did_you_mean
from sftkit.config.schema.data_config import DatasetConfig, HandlerConfig
from sftkit.core.plugins import Registry, find_built_in, subclass_problem
from sftkit.core.row_kinds import RowKind
from sftkit.core.row_log import RowLog
from sftkit.core.rows import INPUT_IDS, LABELS, Batch
from sftkit.errors import ConfigError
from sftkit.handlers.base import Handler, Step
from sftkit.handlers.columns import keep_columns
from sftkit.handlers.user_function import UserFunction, is_function_path

if TYPE_CHECKING:
    from sftkit.tokenization.chat_tokenizer import ChatTokenizer

ALL_COLUMNS = "all"

_IGNORED_ARGUMENTS = ("batched", "batch_size", "num_proc")  # of `datasets.map`; they change nothing in the result


HANDLERS: Registry[type[Handler]] = Registry(
    "handlers", find_built_in(sftkit.handlers, Handler), partial(subclass_problem, base=Handler)
)
"""Every handler that a data config can name, except functions of the user."""


@dataclass(frozen=True)
class ConfiguredHandler:
    """One entry of `data_handlers`, ready to be bound to a tokenizer."""

    name: str
    """Its name in configs, or the path of a user function."""
    handler: Handler
    remove_columns: tuple[str, ...]
    """Columns to remove afterwards; `all` stands for every column that the handler did not write."""
    plugin: Sequence[str] | None = None
    """What changes when the code of a plugin changes; None for handlers of this package."""

    def bind(self, tokenizer: ChatTokenizer) -> Step:
        """Return the handler's step, followed by the removal of columns.

        Raises:
            ConfigError, TokenizerError: as `Handler.bind`.
        """
        step = self.handler.bind(tokenizer)
        if not self.remove_columns or self.handler.makes_new_rows:
            return step
        written = frozenset(self.handler.survive_removal())
        named = frozenset(self.remove_columns) - {ALL_COLUMNS}
        removes_all = ALL_COLUMNS in self.remove_columns

        def step_and_remove(batch: Batch, log: RowLog) -> Batch:
            original = frozenset(batch.columns())
            after = step(batch, log)
            removed = (original if removes_all else named) - written
            return keep_columns(after, frozenset(after.columns()) - removed)

        return step_and_remove

    def reads(self) -> tuple[str, ...]:
        """Columns that must exist: those that the handler reads, and those that are removed by name."""
        return (*self.handler.reads(), *(column for column in self.remove_columns if column != ALL_COLUMNS))

    def columns_after(self, columns: Collection[str]) -> set[str]:
        """Which columns rows with these columns have after this handler."""
        kept = self.handler.keeps(columns)
        removed = kept if ALL_COLUMNS in self.remove_columns else set(self.remove_columns)
        return (kept - (removed - set(self.handler.survive_removal()))) | set(self.handler.writes())

    def sees_tokenizer_limits(self) -> bool:
        """Whether the result may depend on `model_max_length` and `truncation_side` of the tokenizer."""
        return self.plugin is not None or self.handler.sees_tokenizer_limits()


def build_handlers(dataset: DatasetConfig, position: int) -> tuple[ConfiguredHandler, ...]:
    """Build the handlers of `datasets[position]` from their arguments.

    Raises:
        ConfigError: with every unknown name and every wrong or missing argument.
    """
    problems: list[Problem] = []
    handlers = [
        _build(config, f"datasets[{position}].data_handlers[{index}]", problems)
        for index, config in enumerate(dataset.data_handlers)
    ]
    built = tuple(handler for handler in handlers if handler is not None)
    if not problems:
        problems += _token_problems(built, position)
    if problems:
        raise ConfigError([problem.message for problem in problems])
    return built


def function_paths(datasets: Iterable[DatasetConfig]) -> list[str]:
    """Return the functions of the user that handlers of data sets call, each once and in alphabetical order."""
    built = [_build(config, config.name, []) for dataset in datasets for config in dataset.data_handlers]
    return sorted({path for each in built if each is not None for path in each.handler.functions()})


def recorded_handlers(dataset: Mapping[str, Any]) -> list[Handler | None]:
    """Build the handlers of a data set as a manifest records it.

    None stands for a handler that cannot be built here: it belongs to a package that is not installed, or its
    arguments are those of another version.
    """
    configs = [
        HandlerConfig(name=str(entry["name"]), arguments=entry.get("arguments") or {})
        for entry in dataset.get("data_handlers") or ()
    ]
    built = [_build(config, config.name, []) for config in configs]
    return [None if each is None else each.handler for each in built]


def produced_rows(handlers: Iterable[Handler | None]) -> tuple[RowKind | None, bool]:
    """Tell what rows are made of after some handlers.

    Args:
        handlers: in their order; None stands for one of which nothing is known.

    Returns:
        The kind of the rows (None if all handlers only change columns), and whether each ends with a stop token.
    """
    kind: RowKind | None = None
    ends_with_stop_token = True
    for handler in handlers:
        made = RowKind.UNKNOWN if handler is None else handler.produces()
        if made is None or (made is RowKind.TEXT and kind is RowKind.RENDERED):
            continue
        kind, ends_with_stop_token = made, handler is None or handler.ends_with_stop_token
        if kind.is_tokens:
            break
    return kind, ends_with_stop_token


def last_text_column(handlers: Sequence[ConfiguredHandler]) -> str | None:
    """The text column of the last handler that has one."""
    columns = [configured.handler.text_column() for configured in handlers]
    return next((column for column in reversed(columns) if column), None)


def _build(config: HandlerConfig, where: str, problems: list[Problem]) -> ConfiguredHandler | None:
    given, removed = _arguments(config, where, problems)
    if is_function_path(config.name):
        return ConfiguredHandler(config.name, UserFunction(path=config.name, fn_kwargs=given), removed)
    name = HANDLER_ALIASES.get(config.name, config.name)
    try:
        cls = _find(name, config.name, where)
        plugin = HANDLERS.identity(name)
    except ConfigError as error:
        problems += [Problem(where, problem) for problem in error.problems]
        return None
    known = field_types(cls)
    arguments: dict[str, Any] = {}
    for key, value in given.items():
        argument = key if key in known else HANDLER_ARGUMENT_ALIASES.get(key, key)
        if argument not in known and argument in UNUSED_HANDLER_ARGUMENTS.get(name, ()):
            continue
        if argument in arguments:
            problems.append(Problem(where, f"{where}.{config.name}: {argument!r} is given twice, once as {key!r}"))
        arguments[argument] = value
    section = f"{where}.{config.name}"
    handler = bind_config(cls, arguments, problems, section=section)
    if handler is not None:
        try:
            handler.check_arguments()
        except ConfigError as error:
            problems += [Problem(section, f"{section}: {problem}") for problem in error.problems]
    return ConfiguredHandler(name, handler, removed, plugin) if handler is not None else None


def _token_problems(handlers: Sequence[ConfiguredHandler], position: int) -> Iterator[Problem]:
    """Find handlers that need tokens and stand before the handler that makes them, or after one that does not."""
    written: set[str] = set()
    for index, each in enumerate(handlers):
        if each.handler.makes_new_rows:
            return  # their columns are not known
        where = f"datasets[{position}].data_handlers[{index}]"
        missing = [name for name in each.handler.needs_token_columns() if name not in written]
        later = next((other.name for other in handlers[index:] if INPUT_IDS in other.handler.writes()), None)
        if missing and later is not None:
            yield Problem(where, f"{where}.{each.name} counts tokens, so it must come after the handler {later}")
        elif missing and INPUT_IDS in written:
            yield Problem(
                where,
                f"{where}.{each.name} counts trained tokens, which need {LABELS}, but no handler before it makes "
                f"{LABELS}; limit all tokens, or use a handler that masks",
            )
        written |= set(each.handler.writes())


def _find(name: str, given: str, where: str) -> type[Handler]:
    if name in HANDLERS:
        return HANDLERS[name]
    if name in REFUSED_HANDLERS:
        raise ConfigError(f"{where}: there is no handler {given!r}: {REFUSED_HANDLERS[name]}")
    raise ConfigError(
        f"{where}: unknown handler {given!r}{did_you_mean(given, HANDLERS)}; known handlers: {', '.join(HANDLERS)}, or "
        "package.module:function"
    )


def _arguments(config: HandlerConfig, where: str, problems: list[Problem]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Separate the handler's own arguments, in `fn_kwargs` or beside it, from the columns to remove."""
    given = dict(config.arguments)
    keywords = given.pop("fn_kwargs", None) or {}
    if not isinstance(keywords, Mapping):
        problems.append(Problem(where, f"{where}.arguments.fn_kwargs must hold keys and values"))
        keywords = {}
    removed = given.pop("remove_columns", None)
    for name in _IGNORED_ARGUMENTS:
        given.pop(name, None)
    if removed is None:
        columns: tuple[str, ...] = ()
    elif isinstance(removed, str):
        columns = (removed,)
    elif isinstance(removed, list) and all(isinstance(column, str) for column in removed):
        columns = tuple(removed)
    else:
        message = f"{where}.arguments.remove_columns must be all or a list, not {describe_value(removed)}"
        problems.append(Problem(where, message))
        columns = ()
    return {**given, **{str(key): value for key, value in keywords.items()}}, columns
