"""Commands whose options are the fields of a config dataclass.

Typer generates help and completion from the options, but does not parse them: its parser stops at the first mistake and
accepts neither `key=value` nor `datasets[0].sampling`. The arguments go unparsed to `sftkit.config.loading`.
"""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from sftkit.config.aliases import PATH_ALIASES
from sftkit.config.command_line import strip_optional
from sftkit.config.fields import default_of, is_required, option_info

_BOOLEAN = "BOOL"

_SHORT_NAMES = {path: alias for alias, path in PATH_ALIASES.items()}
"""Dotted keys -> their names in `--help`, which has no room for the long ones."""


@dataclasses.dataclass(frozen=True)
class Option:
    """An option as `--help` shows it."""

    name: str
    help: str
    kind: str
    default: str
    panel: str
    choices: tuple[str, ...] = ()


def config_command(schema: type[Any], extra_options: Callable[[], list[Option]] = list) -> type[TyperCommand]:
    """Return a command class that shows the fields of `schema`, and `extra_options`, as its options.

    The command's function finds its unparsed arguments in `context.args`.
    """

    class ConfigCommand(TyperCommand):
        def get_params(self, ctx: Any) -> list[Any]:
            return [*_parameters([*options_of(schema), *extra_options()]), *super().get_params(ctx)]

        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            if ctx.resilient_parsing:  # completion only needs the options
                return []
            if "--help" in args:
                typer.echo(ctx.get_help())
                raise typer.Exit
            ctx.args = list(args)
            return args

    return ConfigCommand


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
        return _BOOLEAN
    if annotation in (int, float, str):
        return {int: "INTEGER", float: "NUMBER", str: "TEXT"}[annotation]
    origin = typing.get_origin(annotation)
    if origin is tuple:
        return "TEXT ..." if typing.get_args(annotation)[0] is str else "LIST"
    return "KEYS" if origin is not None and issubclass(origin, Mapping) else "TEXT"


def _default(field: dataclasses.Field[Any]) -> str:
    if is_required(field):
        return ""
    value = default_of(field)
    if value is None or value == () or value == {}:
        return ""
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


def _full_help(option: Option) -> str:
    parts = [option.help]
    if option.name in _SHORT_NAMES:
        parts.append(f"Key: {option.name}.")
    if option.choices and option.kind != _BOOLEAN:
        parts.append(f"One of {', '.join(option.choices)}.")
    if option.default:
        parts.append(f"Default: {option.default}.")
    return " ".join(parts)


def _typer_option(option: Option) -> Any:
    def complete(incomplete: str) -> list[str]:
        return [choice for choice in option.choices if choice.startswith(incomplete)]

    return typer.Option(
        f"--{_SHORT_NAMES.get(option.name, option.name)}",
        help=_full_help(option),
        metavar=option.kind,
        show_default=False,
        rich_help_panel=option.panel,
        autocompletion=complete if option.choices else None,
    )
