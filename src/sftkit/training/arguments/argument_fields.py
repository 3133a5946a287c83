"""The fields of `transformers.TrainingArguments`, read from its source text.

Importing the class takes seconds and torch; `--help` and a misspelt key should take neither.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType

from sftkit.errors import TrainingError

_CLASS = "TrainingArguments"
_CLASS_FILE = "training_args.py"
_ENUM_FILES = (_CLASS_FILE, "trainer_utils.py")


@dataclass(frozen=True)
class TrainingArgument:
    """One key that `sftkit train` passes on to the Trainer.

    annotation: the type as it is written in the source ("float | None").
    default: the default as it is written in the source ("5e-05"), "" where it is computed.
    choices: the values that are allowed, () when the key is free.
    """

    name: str
    annotation: str
    help: str
    default: str
    choices: tuple[str, ...] = ()

    @property
    def is_boolean(self) -> bool:
        """Whether the key takes true or false only, so that `--key` alone can mean true."""
        return _without_none(self.annotation) == ("bool",)


@cache
def source_fields() -> Mapping[str, TrainingArgument]:
    """Every field of the installed TrainingArguments by name, in the order of the source.

    Raises:
        TrainingError: transformers is not installed, or is one whose source cannot be read this way.
    """
    folder = _transformers_folder()
    try:
        trees = {name: ast.parse((folder / name).read_text(encoding="utf-8")) for name in _ENUM_FILES}
    except (OSError, SyntaxError, UnicodeDecodeError) as error:
        raise TrainingError(f"the fields of transformers' TrainingArguments cannot be read: {error}") from None
    enums = {name: values for tree in trees.values() for name, values in _enums(tree)}
    body = next((node for node in trees[_CLASS_FILE].body if _is_class(node, _CLASS)), None)
    if not isinstance(body, ast.ClassDef):
        raise TrainingError(f"{folder / _CLASS_FILE} has no class {_CLASS}; this transformers is not supported")
    constants = _constants(body)
    fields = (_field(node, enums, constants) for node in body.body if isinstance(node, ast.AnnAssign))
    return MappingProxyType({field.name: field for field in fields})


def union_members(annotation: str) -> tuple[str, ...]:
    """The members of a union in source form: "dict[str, int] | None" -> ("dict[str, int]", "None")."""

    def members(node: ast.expr) -> Iterator[str]:
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            yield from members(node.left)
            yield from members(node.right)
        elif isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith("Optional"):
            yield from (*members(node.slice), "None")
        elif isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith("Union"):
            for element in node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]:
                yield from members(element)
        else:
            yield ast.unparse(node)

    return tuple(members(ast.parse(annotation, mode="eval").body))


def _without_none(annotation: str) -> tuple[str, ...]:
    return tuple(member for member in union_members(annotation) if member != "None")


def _transformers_folder() -> Path:
    found = importlib.util.find_spec("transformers")  # looks, and does not import
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
    """Plain assignments of the class, which its field defaults may refer to."""
    return {
        statement.targets[0].id: ast.unparse(statement.value)
        for statement in body.body
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)
    }


def _field(node: ast.AnnAssign, enums: Mapping[str, tuple[str, ...]], constants: Mapping[str, str]) -> TrainingArgument:
    assert isinstance(node.target, ast.Name)
    annotation = node.annotation
    # A forward reference is written as a string; its text is the annotation.
    text = annotation.value if isinstance(annotation, ast.Constant) else ast.unparse(annotation)
    keywords: dict[str, ast.expr] = {}
    if isinstance(node.value, ast.Call):
        keywords = {keyword.arg: keyword.value for keyword in node.value.keywords if keyword.arg}
    metadata = _metadata(keywords.get("metadata"))
    default = ast.unparse(keywords["default"]) if "default" in keywords else ""
    listed = metadata.get("choices")
    choices = tuple(map(str, listed)) if isinstance(listed, list | tuple) else ()
    for member in union_members(str(text)):
        choices = choices or enums.get(member, ())
    return TrainingArgument(
        name=node.target.id,
        annotation=str(text),
        help=" ".join(str(metadata.get("help", "")).replace("%%", "%").split()),
        default=constants.get(default, default),
        choices=choices,
    )


def _metadata(node: ast.expr | None) -> dict[str, object]:
    """What is literal of a field's metadata."""
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
