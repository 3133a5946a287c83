"""Names -> handlers, and a data set's list of handlers -> one chain, checked before any data is read."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from sftkit.config.aliases import HANDLER_ALIASES, HANDLER_ARGUMENT_ALIASES
from sftkit.config.binding import Problem, bind_config, describe_value, field_types
from sftkit.config.fields import did_you_mean
from sftkit.config.schema import DatasetConfig, HandlerConfig
from sftkit.core.row_log import RowLog
from sftkit.core.rows import Batch
from sftkit.errors import ConfigError
from sftkit.handlers.base import Handler, Step, Tools
from sftkit.handlers.columns import (
    DuplicateColumns,
    RemoveColumns,
    RenameColumns,
    RetainColumns,
    SkipLargeText,
    keep_columns,
)
from sftkit.handlers.convert_messages import ConvertToMessages
from sftkit.handlers.text import (
    AddTokenizerEosToken,
    ApplyCustomDataFormattingTemplate,
    ApplyCustomJinjaTemplate,
    ApplyTokenizerChatTemplate,
)
from sftkit.handlers.tokens import Tokenize, TokenizeAndApplyChatTemplateWithMasking, TokenizeAndApplyInputMasking
from sftkit.handlers.user_function import UserFunction

HANDLERS: Mapping[str, type[Handler]] = MappingProxyType(
    {
        "add_tokenizer_eos_token": AddTokenizerEosToken,
        "apply_custom_data_formatting_template": ApplyCustomDataFormattingTemplate,
        "apply_custom_jinja_template": ApplyCustomJinjaTemplate,
        "apply_tokenizer_chat_template": ApplyTokenizerChatTemplate,
        "convert_to_messages": ConvertToMessages,
        "duplicate_columns": DuplicateColumns,
        "remove_columns": RemoveColumns,
        "rename_columns": RenameColumns,
        "retain_columns": RetainColumns,
        "skip_large_text": SkipLargeText,
        "tokenize": Tokenize,
        "tokenize_and_apply_chat_template_with_masking": TokenizeAndApplyChatTemplateWithMasking,
        "tokenize_and_apply_input_masking": TokenizeAndApplyInputMasking,
    }
)

ALL_COLUMNS = "all"
# What `arguments` of any handler may hold besides the handler's own; the last three change nothing in the result.
_MAP_ARGUMENTS = ("remove_columns", "batched", "batch_size", "num_proc")


@dataclass(frozen=True)
class ConfiguredHandler:
    """A handler in its place. remove_columns: columns dropped after it, or `all` that it did not write."""

    name: str
    handler: Handler
    remove_columns: tuple[str, ...]

    def bind(self, tools: Tools) -> Step:
        """The handler's step, then the removal of columns; `ConfigError` and `TokenizerError` as the handler's."""
        step = self.handler.bind(tools)
        if not self.remove_columns or isinstance(self.handler, UserFunction):
            return step  # what a function returns is what it wrote: there is nothing to remove
        written, removed = frozenset(self.handler.writes()), frozenset(self.remove_columns) - {ALL_COLUMNS}
        everything = ALL_COLUMNS in self.remove_columns

        def step_and_remove(batch: Batch, log: RowLog) -> Batch:
            original = frozenset(batch.columns())
            after = step(batch, log)
            gone = (original if everything else removed) - written
            return keep_columns(after, frozenset(after.columns()) - gone)

        return step_and_remove

    def reads(self) -> tuple[str, ...]:
        """Columns that must be there: those the handler reads, and those that are removed by name."""
        return (*self.handler.reads(), *(column for column in self.remove_columns if column != ALL_COLUMNS))

    def columns_after(self, columns: Collection[str]) -> set[str]:
        """Which columns rows with these columns have after this handler."""
        written = set(self.handler.writes())
        if isinstance(self.handler, RetainColumns):
            left = set(columns) & set(self.handler.columns)
        elif isinstance(self.handler, (RemoveColumns, RenameColumns)):
            left = set(columns) - set(self.handler.columns)
        else:
            left = set(columns)
        gone = left if ALL_COLUMNS in self.remove_columns else set(self.remove_columns)
        return (left - gone) | written


def build_handlers(dataset: DatasetConfig, position: int) -> tuple[ConfiguredHandler, ...]:
    """The handlers of `datasets[position]`, each with its arguments read and checked.

    Raises:
        ConfigError: unknown names, wrong or missing arguments; all of them together.
    """
    problems: list[Problem] = []
    links = []
    for index, config in enumerate(dataset.data_handlers):
        where = f"datasets[{position}].data_handlers[{index}]"
        link = _build_link(config, where, problems)
        if link is not None:
            links.append(link)
    if problems:
        raise ConfigError([problem.message for problem in problems])
    return tuple(links)


def last_text_column(links: Sequence[ConfiguredHandler]) -> str | None:
    """The column that the last text handler of a chain wrote or read."""
    columns = [getattr(link.handler, "dataset_text_field", None) for link in links]
    return next((column for column in reversed(columns) if column), None)


def _build_link(config: HandlerConfig, where: str, problems: list[Problem]) -> ConfiguredHandler | None:
    own, removed = _arguments(config, where, problems)
    if ":" in config.name:
        return ConfiguredHandler(config.name, UserFunction(path=config.name, fn_kwargs=own), removed)
    name = HANDLER_ALIASES.get(config.name, config.name)
    if name not in HANDLERS:
        known = ", ".join(HANDLERS)
        problems.append(
            Problem(
                where,
                f"{where}: unknown handler {config.name!r}{did_you_mean(config.name, HANDLERS)}; "
                f"known handlers: {known}, or package.module:function",
            )
        )
        return None
    kind = HANDLERS[name]
    names = field_types(kind)
    arguments: dict[str, Any] = {}
    for key, value in own.items():
        ours = key if key in names else HANDLER_ARGUMENT_ALIASES.get(key, key)
        if ours in arguments:
            problems.append(Problem(where, f"{where}.{config.name}: {ours!r} is given twice, once as {key!r}"))
        arguments[ours] = value
    handler = bind_config(kind, arguments, problems, section=f"{where}.{config.name}")
    return ConfiguredHandler(name, handler, removed) if handler is not None else None


def _arguments(config: HandlerConfig, where: str, problems: list[Problem]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """(the handler's own arguments, columns to remove): own arguments stand in `fn_kwargs` or beside it."""
    given = dict(config.arguments)
    keywords = given.pop("fn_kwargs", None) or {}
    if not isinstance(keywords, Mapping):
        problems.append(Problem(where, f"{where}.arguments.fn_kwargs must hold keys and values"))
        keywords = {}
    removed = given.pop("remove_columns", None)
    for name in _MAP_ARGUMENTS[1:]:
        given.pop(name, None)
    if removed is None:
        columns: tuple[str, ...] = ()
    elif isinstance(removed, str):
        columns = (removed,)
    elif isinstance(removed, list) and all(isinstance(column, str) for column in removed):
        columns = tuple(removed)
    else:
        problems.append(
            Problem(where, f"{where}.arguments.remove_columns must be all or a list, not {describe_value(removed)}")
        )
        columns = ()
    return {**given, **{str(key): value for key, value in keywords.items()}}, columns
