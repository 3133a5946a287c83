"""The fields of `transformers.TrainingArguments`, read from its source text without importing it.

Importing the class also imports torch, which takes some 7 s of CPU time. `--help` and a misspelt key must not wait for
that; parsing the source takes 0.1 s.
"""

from __future__ import annotations

import ast
import builtins
import importlib.util
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sftkit.errors import TrainingError

_CLASS = "TrainingArguments"
_CLASS_FILE = "training_args.py"
_KINDS: Mapping[Any, str] = MappingProxyType(
    {bool: "BOOL", int: "INTEGER", float: "NUMBER", dict: "KEYS", list: "TEXT ..."}
)
_ENUM_FILES = (_CLASS_FILE, "trainer_utils.py")


@dataclass(frozen=True)
class TrainingArgument:
    """One key that `sftkit train` passes on to the Trainer."""

    name: str

    annotation: Any
    """Its type, such as `float | None`. Classes of transformers are stand-ins, see `_TypeNames`."""

    help: str

    default: str
    """The default as written in the source ("5e-05"); "" where it is computed."""

    choices: tuple[str, ...] = ()
    """The allowed values; () if there is no fixed list."""

    @property
    def kind(self) -> str:
        """What its value is, as help shows it.

        Example:
            >>> TrainingArgument("warmup_steps", int | float | None, "", "0").kind
            'NUMBER'
        """
        members = [typing.get_origin(member) or member for member in union_members(self.annotation)]
        kinds = [_KINDS.get(member, "TEXT") for member in members if member is not types.NoneType]
        if "NUMBER" in kinds:
            kinds = [kind for kind in kinds if kind != "INTEGER"]
        return "|".join(dict.fromkeys(kinds))

    @property
    def shown_default(self) -> str:
        """The default as one would type it; "" where there is none, or where it is computed."""
        try:
            value = ast.literal_eval(self.default)
        except (SyntaxError, ValueError):
            return ""
        if value is None or value == "":
            return ""
        return str(value).lower() if isinstance(value, bool) else self.default.strip("'\"")

    @property
    def is_boolean(self) -> bool:
        """Whether the key only takes true or false, so that `--key` alone can mean true."""
        return [member for member in union_members(self.annotation) if member is not types.NoneType] == [bool]


@cache
def source_fields() -> Mapping[str, TrainingArgument]:
    """Every field of the installed TrainingArguments by name, in source order.

    Raises:
        TrainingError: transformers is not installed, or its source does not have the expected form.
    """
    folder = _transformers_folder()
    try:
        trees = {name: ast.parse((folder / name).read_text(encoding="utf-8")) for name in _ENUM_FILES}
    except (OSError, SyntaxError, UnicodeDecodeError) as error:
        raise TrainingError(f"the fields of transformers' TrainingArguments cannot be read: {error}") from None
    body = next((node for node in trees[_CLASS_FILE].body if _is_class(node, _CLASS)), None)
    if not isinstance(body, ast.ClassDef):
        raise TrainingError(f"{folder / _CLASS_FILE} has no class {_CLASS}; this transformers is not supported")
    enums = {name: values for tree in trees.values() for name, values in _enums(tree)}
    names, constants = _TypeNames(), _constants(body)
    fields = (_field(node, names, enums, constants) for node in body.body if isinstance(node, ast.AnnAssign))
    return MappingProxyType({field.name: field for field in fields})


def union_members(annotation: Any) -> tuple[Any, ...]:
    """The members of a union, or the type itself if it is not one.

    Example:
        >>> union_members(dict[str, int] | None)
        (dict[str, int], <class 'NoneType'>)
    """
    is_union = typing.get_origin(annotation) in (types.UnionType, typing.Union)
    return typing.get_args(annotation) if is_union else (annotation,)


class _TypeNames(dict[str, Any]):
    """The namespace in which annotations are evaluated: builtins, `typing`, and stand-ins for transformers' classes.

    A class that transformers defines becomes an empty subclass of `str`: nearly all of them are enumerations of
    strings. Only `ParallelismConfig` holds keys and values.
    """

    def __init__(self) -> None:
        super().__init__(typing=typing, ParallelismConfig=dict)

    def __missing__(self, name: str) -> Any:
        for module in (builtins, typing):
            if hasattr(module, name):
                return getattr(module, name)
        self[name] = type(name, (str,), {})
        return self[name]


def _transformers_folder() -> Path:
    found = importlib.util.find_spec("transformers")  # finds the package without importing it
    if found is None or not found.submodule_search_locations:
        raise TrainingError("transformers is not installed; `sftkit train` needs it")
    return Path(next(iter(found.submodule_search_locations)))


def _is_class(node: ast.stmt, name: str) -> bool:
    return isinstance(node, ast.ClassDef) and node.name == name


def _enums(tree: ast.Module) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each enumeration of strings in a module, with its values."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and any("Enum" in ast.unparse(base) for base in node.bases):
            values = tuple(
                statement.value.value
                for statement in node.body
                if isinstance(statement, ast.Assign)
                and isinstance(statement.value, ast.Constant)
                and isinstance(statement.value.value, str)
            )
            yield node.name, values


def _constants(body: ast.ClassDef) -> dict[str, str]:
    """Plain assignments of the class; defaults of its fields may refer to them."""
    return {
        statement.targets[0].id: ast.unparse(statement.value)
        for statement in body.body
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)
    }


def _field(
    node: ast.AnnAssign, names: _TypeNames, enums: Mapping[str, tuple[str, ...]], constants: Mapping[str, str]
) -> TrainingArgument:
    assert isinstance(node.target, ast.Name)
    annotation = _evaluated(node, names)
    keywords: dict[str, ast.expr] = {}
    if isinstance(node.value, ast.Call):
        keywords = {keyword.arg: keyword.value for keyword in node.value.keywords if keyword.arg}
    metadata = _metadata(keywords.get("metadata"))
    default = ast.unparse(keywords["default"]) if "default" in keywords else ""
    listed = metadata.get("choices")
    choices = tuple(map(str, listed)) if isinstance(listed, list | tuple) else ()
    for member in union_members(annotation):
        choices = choices or enums.get(getattr(member, "__name__", ""), ())
    return TrainingArgument(
        name=node.target.id,
        annotation=annotation,
        help=" ".join(str(metadata.get("help", "")).replace("%%", "%").split()),
        default=constants.get(default, default),
        choices=choices,
    )


def _evaluated(node: ast.AnnAssign, names: _TypeNames) -> Any:
    annotation = node.annotation
    # A forward reference is a string constant; its text is the annotation.
    text = str(annotation.value) if isinstance(annotation, ast.Constant) else ast.unparse(annotation)
    try:
        return eval(text, {"__builtins__": {}}, names)
    except Exception as error:  # whatever an annotation of a later transformers provokes
        raise TrainingError(
            f"the type {text} in transformers' {_CLASS_FILE} cannot be read ({error});"
            " this transformers is not supported"
        ) from None


def _metadata(node: ast.expr | None) -> dict[str, object]:
    """The literal entries of a field's metadata."""
    if not isinstance(node, ast.Dict):
        return {}
    found: dict[str, object] = {}
    for key, value in zip(node.keys, node.values, strict=True):
        if isinstance(key, ast.Constant):
            try:
                found[str(key.value)] = ast.literal_eval(value)
            except ValueError:
                continue
    return found
