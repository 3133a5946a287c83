"""Commands whose options are the fields of a config dataclass.

Typer generates help and completion from the options, but does not parse them: its parser stops at the first mistake and
accepts neither `key=value` nor `datasets[0].sampling`. The arguments go unparsed to `sftkit.config.loading`.
"""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from sftkit.cli.console.option import BOOLEAN, Option
from sftkit.config.fields import default_of, is_required, option_info
from sftkit.config.reading.command_line import strip_optional

HELP = ("--help", "-h")
HELP_ALL = ("--help_all", "--help-all")
_MOST_LISTED = 15
"""Choices of an extra option that `--help` lists; `--help_all` lists all."""

_NOTES = (
    "Options can also be written as KEY=VALUE, or given in a YAML or JSON file with --config. A BOOL option without a "
    "value means true.",
)


@dataclass(frozen=True)
class ExtraOptions:
    """Options of a command that are no fields of its config dataclass."""

    make: Callable[[], list[Option]] = list
    """Returns all of them; not called before they are needed."""

    usual: Collection[str] = ()
    """Those that `--help` shows."""

    note: str = ""
    """What `--help` says of the others, which `--help_all` shows."""


def config_command(schema: type[Any], extra: ExtraOptions | None = None) -> type[TyperCommand]:
    """Return a command class that shows the fields of `schema`, and `extra` options, as its options.

    The command's function finds its unparsed arguments in `context.args`.
    """
    more = extra or ExtraOptions()

    class ConfigCommand(TyperCommand):
        def get_params(self, ctx: Any) -> list[Any]:
            return [*_parameters([*options_of(schema), *more.make()]), *super().get_params(ctx)]

        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            if ctx.resilient_parsing:  # completion only needs the options
                return []
            if not {*HELP, *HELP_ALL}.isdisjoint(args):
                self._print_help(ctx, everything=not set(HELP_ALL).isdisjoint(args))
                raise typer.Exit
            ctx.args = list(args)
            return args

        def _print_help(self, ctx: Any, *, everything: bool) -> None:
            from sftkit.cli.console.show_help import print_help

            options = more.make()
            if not everything:
                options = [_without_long_list(option) for option in options if option.name in more.usual]
            notes = _NOTES if everything or not more.note else (more.note, *_NOTES)
            usage = f"{ctx.command_path} {self.options_metavar}"
            print_help(usage, inspect.cleandoc(self.help or ""), [*options_of(schema), *options], notes)

    return ConfigCommand


def _without_long_list(option: Option) -> Option:
    return dataclasses.replace(option, choices=()) if len(option.choices) > _MOST_LISTED else option


def options_of(schema: type[Any]) -> list[Option]:
    """Return the options of a config dataclass; those of a nested section are dotted."""
    return list(_options(schema, "", ""))


def _options(schema: type[Any], prefix: str, panel: str) -> typing.Iterator[Option]:
    hints = typing.get_type_hints(schema)
    for field in dataclasses.fields(schema):
        kind = strip_optional(hints[field.name])
        info = option_info(field)
        heading = panel or info.panel
        if dataclasses.is_dataclass(kind) and not prefix:
            yield from _options(typing.cast(type[Any], kind), f"{field.name}.", heading)
            continue
        yield Option(
            name=prefix + field.name,
            help=info.help + (" Required." if is_required(field) else ""),
            kind=_kind(kind),
            default=_default(field),
            panel=heading,
            choices=info.choices or (("true", "false") if kind is bool else ()),
        )


def _kind(annotation: Any) -> str:
    if annotation is bool:
        return BOOLEAN
    if annotation in (int, float, str):
        return {int: "INTEGER", float: "NUMBER", str: "TEXT"}[annotation]
    origin = typing.get_origin(annotation)
    if origin is tuple:
        return "TEXT ..." if typing.get_args(annotation)[0] is str else "LIST"
    return "KEYS" if origin is not None and issubclass(origin, Mapping) else "TEXT"


def _default(field: dataclasses.Field[Any]) -> str:
    if is_required(field):
        return ""
    return shown_default(default_of(field))


def shown_default(value: Any) -> str:
    """Return a default as help shows it; an empty text for one that means "not set".

    Example:
        >>> shown_default(True), shown_default(("all-linear",)), shown_default(None)
        ('true', 'all-linear', '')
    """
    if value is None or value == () or value == {}:
        return ""
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _parameters(options: list[Option]) -> list[Any]:
    """Convert options to Typer's parameter objects, through a function that is never called."""

    def placeholder(**_: str) -> None:
        """Never called."""

    parameters = [
        inspect.Parameter(
            option.name.replace(".", "__"),
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[str, _typer_option(option)],
        )
        for option in options
    ]
    placeholder.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # read by Typer
    placeholder.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    app = typer.Typer(add_completion=False)
    app.command(add_help_option=False)(placeholder)
    return list(typer.main.get_command(app).params)


def _typer_option(option: Option) -> Any:
    def complete(incomplete: str) -> list[str]:
        return [choice for choice in option.choices if choice.startswith(incomplete)]

    return typer.Option(
        f"--{option.shown_name}",
        help=option.full_help,
        metavar=option.kind,
        show_default=False,
        rich_help_panel=option.panel,
        autocompletion=complete if option.choices else None,
    )
