"""A run's config -> how its rows were made, as far as the audit needs to know."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sftkit.audit.expectations.expected import CONVERSATIONS, PAIRS, RENDERED, TEXT, UNKNOWN, RowOrigin
from sftkit.config.aliases import HANDLER_ALIASES
from sftkit.config.fields import to_plain_data
from sftkit.config.schema import DataOptions, DatasetConfig

_KINDS = {
    "tokenize_and_apply_chat_template_with_masking": CONVERSATIONS,
    "tokenize_and_apply_input_masking": PAIRS,
    "tokenize": UNKNOWN,
    "apply_tokenizer_chat_template": RENDERED,
    "apply_custom_jinja_template": TEXT,
    "apply_custom_data_formatting_template": TEXT,
    "add_tokenizer_eos_token": TEXT,
}
_MAKE_TOKENS = (CONVERSATIONS, PAIRS, UNKNOWN)


def making_of(options: DataOptions, dataset: DatasetConfig) -> RowOrigin:
    """How the rows of a data set are made."""
    return making_in({**_keys(options), "datasets": [to_plain_data(dataset)]})


def making_in(config: Mapping[str, Any]) -> RowOrigin:
    """How rows were made by a config (as a manifest holds it); of several data sets what they have in common."""
    makings = [_making(config, dataset.get("data_handlers") or ()) for dataset in config.get("datasets") or ()]
    if not makings:
        return RowOrigin()
    first = makings[0]
    if all(making == first for making in makings):
        return first
    known = {making.trains_all for making in makings}
    return RowOrigin(
        trains_all=first.trains_all if len(known) == 1 else None,
        reasoning_masked=any(making.reasoning_masked for making in makings),
        ends=all(making.ends for making in makings),
        variables=first.variables if all(making.variables == first.variables for making in makings) else None,
    )


def _keys(options: DataOptions) -> dict[str, Any]:
    names = ("train_on", "reasoning", "response_template", "chat_template_kwargs")
    return {name: to_plain_data(getattr(options, name)) for name in names}


def _making(config: Mapping[str, Any], handlers: Sequence[Mapping[str, Any]]) -> RowOrigin:
    kind, arguments = _kind(handlers)
    response_template = config.get("response_template")
    if kind is None:
        kind = TEXT if response_template else UNKNOWN
    if kind == UNKNOWN:
        return RowOrigin()  # labels that were there already are what they are, whatever the config says
    return RowOrigin(
        kind=kind,
        trains_all=config.get("train_on") == "all",
        reasoning_masked=kind == CONVERSATIONS and config.get("reasoning") == "mask",
        ends=kind != PAIRS or bool(arguments.get("add_eos_token", True)),
        response_template=response_template if kind == TEXT else None,
        variables=dict(config.get("chat_template_kwargs") or {}),
    )


def _kind(handlers: Iterable[Mapping[str, Any]]) -> tuple[str | None, Mapping[str, Any]]:
    """What the handlers make, and the arguments of the one that decides it; None where they leave rows as they are."""
    kind: str | None = None
    arguments: Mapping[str, Any] = {}
    for handler in handlers:
        name = HANDLER_ALIASES.get(handler["name"], handler["name"])
        made = UNKNOWN if ":" in name else _KINDS.get(name)
        if made is None or (made == TEXT and kind == RENDERED):
            continue
        kind, arguments = made, (handler.get("arguments") or {}).get("fn_kwargs") or {}
        if kind in _MAKE_TOKENS:
            break
    return kind, arguments
