"""Validates the arguments of tool calls against the JSON schemas of tools, each compiled once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sftkit.audit.tools.schema_limits import SchemaLimitError, check_size, check_work, prepared_schema

if TYPE_CHECKING:
    from jsonschema_rs import Validator

MAX_COMPILED = 1000
"""Schemas that are kept compiled."""

BACKTRACK_LIMIT = 100_000
"""Steps back that a regular expression with lookaround may take; others are matched in linear time."""

_SHOWN = 200  # characters of a problem
_UNFINISHED = frozenset({"BacktrackLimitExceeded", "RegexEngineFailure"})


class UnusableSchemaError(Exception):
    """A schema is not one, or exceeds a limit. The message says why."""


class ArgumentSchemas:
    """JSON schemas of the arguments of tools, compiled when they are first used.

    Example:
        >>> schemas = ArgumentSchemas()
        >>> schemas.problem({"type": "object", "properties": {"n": {"type": "integer"}}}, {"n": "five"})
        'n: "five" is not of type "integer"'
        >>> schemas.problem({"type": "object", "required": ["n"]}, {"n": 5})
    """

    def __init__(self) -> None:
        self._compiled: dict[str, tuple[Any, Validator] | UnusableSchemaError] = {}

    def problem(self, schema: Any, arguments: Mapping[str, Any]) -> str | None:
        """Say why arguments are not valid; None if they are. An argument of null may as well be absent.

        Args:
            schema: the JSON schema of the arguments; None, or an empty one, allows any.
            arguments: of a call.

        Raises:
            UnusableSchemaError: they could not be checked.
        """
        if not schema:
            return None
        prepared, validator = self._validator(schema)
        try:
            depth = check_size(arguments)
            check_work(prepared, depth)
        except SchemaLimitError as error:
            raise UnusableSchemaError(str(error)) from None
        problem = _first_problem(validator, arguments)
        if problem is None or None not in arguments.values():
            return problem
        given = {name: value for name, value in arguments.items() if value is not None}
        return problem if _first_problem(validator, given) is not None else None

    def _validator(self, schema: Any) -> tuple[Any, Validator]:
        try:
            key = json.dumps(schema)
        except (TypeError, ValueError, RecursionError) as error:
            raise UnusableSchemaError(f"it is not JSON: {error}"[:_SHOWN]) from None
        if key not in self._compiled:
            if len(self._compiled) >= MAX_COMPILED:
                self._compiled.clear()
            try:
                self._compiled[key] = _compile(schema)
            except UnusableSchemaError as error:
                self._compiled[key] = error
        found = self._compiled[key]
        if isinstance(found, UnusableSchemaError):
            raise UnusableSchemaError(str(found))
        return found


def _compile(schema: Any) -> tuple[Any, Validator]:
    import jsonschema_rs

    if not isinstance(schema, (dict, bool)):
        raise UnusableSchemaError(f"it is {type(schema).__name__}, not an object")
    patterns = jsonschema_rs.FancyRegexOptions(backtrack_limit=BACKTRACK_LIMIT)
    problem = ""
    try:
        prepared = prepared_schema(schema)
        # Schemas of tools rarely say which draft they are of, and the drafts differ in a few keywords.
        for draft in (
            jsonschema_rs.Draft202012Validator,
            jsonschema_rs.Draft7Validator,
            jsonschema_rs.Draft4Validator,
        ):
            try:
                return prepared, draft(prepared, pattern_options=patterns, offline=True)
            except jsonschema_rs.ValidationError as error:
                where = ".".join(map(str, error.instance_path))
                problem = problem or f"{where or 'schema'}: {error.message}"
    except (SchemaLimitError, ValueError, TypeError) as error:
        problem = str(error)
    raise UnusableSchemaError(problem[:_SHOWN])


def _first_problem(validator: Validator, arguments: Mapping[str, Any]) -> str | None:
    try:
        error = next(iter(validator.iter_errors(arguments)), None)
    except (ValueError, TypeError) as raised:  # text that UTF-8 cannot encode
        raise UnusableSchemaError(f"the arguments cannot be checked: {raised}"[:_SHOWN]) from None
    if error is None:
        return None
    if type(error.kind).__name__ in _UNFINISHED:
        raise UnusableSchemaError("a pattern of it takes too many steps")
    where = ".".join(map(str, error.instance_path))
    return f"{where}: {error.message}"[:_SHOWN] if where else str(error.message)[:_SHOWN]
