"""Decoding JSON text in Arrow columns: `datasets` stores values of mixed types as the extension type `arrow.json`.

The Arrow type tells which values are JSON, or the features that `datasets` writes to the metadata of a schema.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import msgspec
import pyarrow as pa

from sftkit.core.row_log import LONE_SURROGATE
from sftkit.sources.formats.jsonl import contains_lone_surrogate

Decoder = Callable[[Any], Any]
"""Decodes the JSON texts within a Python value."""

_EXTENSION_NAME = "arrow.json"
_LISTS = ("is_list", "is_large_list", "is_fixed_size_list", "is_list_view", "is_large_list_view")
_TEXTS = ("is_string", "is_large_string", "is_string_view")

_decode_quickly = msgspec.json.Decoder(float_hook=float).decode


class JsonTextError(ValueError):
    """A value that is stored as JSON is not valid JSON. The message is the reason for quarantining its row."""


def json_decoders(schema: pa.Schema) -> dict[str, Decoder]:
    """Return a decoder for each column that holds JSON text at any depth.

    Example:
        >>> field = pa.field("a", pa.list_(pa.string()))
        >>> features = b'{"info": {"features": {"a": {"_type": "List", "feature": {"_type": "Json"}}}}}'
        >>> decoders = json_decoders(pa.schema([field], metadata={"huggingface": features}))
        >>> decoders["a"](['{"x": 1}', None])
        [{'x': 1}, None]
    """
    features = _features((schema.metadata or {}).get(b"huggingface"))
    found = {field.name: _decoder(field, features.get(field.name)) for field in schema}
    return {name: decoder for name, decoder in found.items() if decoder is not None}


@lru_cache(maxsize=16)
def _features(metadata: bytes | None) -> Mapping[str, Any]:
    """Return the features of `datasets` in its metadata, by column; {} if they cannot be read."""
    try:
        features = json.loads(metadata or b"{}")["info"]["features"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return {}
    return features if isinstance(features, dict) else {}


def _decoder(field: pa.Field, feature: Any) -> Decoder | None:
    """Return a decoder for the values of a field, after they were converted to Python; None if there is no JSON."""
    kind = field.type
    is_json_feature = _class_of(feature) == "Json"
    if _is_json(field) or (is_json_feature and any(getattr(pa.types, check)(kind) for check in _TEXTS)):
        return None if is_json_feature and feature.get("decode") is False else _decode
    if pa.types.is_struct(kind):
        found = {item.name: _decoder(item, _feature_of_field(feature, item.name)) for item in kind}
        decoders = {name: decoder for name, decoder in found.items() if decoder is not None}
        return _struct_decoder(decoders) if decoders else None
    if any(getattr(pa.types, check)(kind) for check in _LISTS):
        decoder = _decoder(kind.value_field, _feature_of_items(feature))
        return None if decoder is None else _list_decoder(decoder)
    if pa.types.is_map(kind):
        decoder = _decoder(kind.item_field, None)
        return None if decoder is None else _map_decoder(decoder)
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return _decoder(pa.field("", kind.value_type), feature)
    if isinstance(kind, pa.BaseExtensionType):
        return _decoder(pa.field("", kind.storage_type), feature)
    return None


def _is_json(field: pa.Field) -> bool:
    """Whether a field is of the extension type, also if this version of Arrow does not know it."""
    name = (field.metadata or {}).get(b"ARROW:extension:name", b"").decode(errors="replace")
    return _EXTENSION_NAME in (name, getattr(field.type, "extension_name", None))


def _class_of(feature: Any) -> str | None:
    """Return the class of a feature; None for the fields of a struct, one of which may be called `_type`."""
    name = feature.get("_type") if isinstance(feature, dict) else None
    return name if isinstance(name, str) else None


def _feature_of_field(feature: Any, name: str) -> Any:
    if _class_of(feature) == "Sequence":  # older versions store a list of structs as a struct of lists
        return {"_type": "List", "feature": _feature_of_field(feature.get("feature"), name)}
    return feature.get(name) if isinstance(feature, dict) else None


def _feature_of_items(feature: Any) -> Any:
    if isinstance(feature, list):
        return feature[0] if feature else None
    return feature.get("feature") if isinstance(feature, dict) else None


def _struct_decoder(decoders: Mapping[str, Decoder]) -> Decoder:
    def decode(value: Any) -> Any:
        if value is None:
            return None
        return {name: decoders[name](item) if name in decoders else item for name, item in value.items()}

    return decode


def _list_decoder(decoder: Decoder) -> Decoder:
    return lambda value: None if value is None else [decoder(item) for item in value]


def _map_decoder(decoder: Decoder) -> Decoder:
    def decode(value: Any) -> Any:
        return {name: decoder(item) for name, item in value.items()} if value else value

    return decode


def _decode(text: str | None) -> Any:
    """Decode a JSON text as a line of JSON Lines is decoded; a missing value stays None.

    Raises:
        JsonTextError: The text is not JSON.
    """
    if text is None:
        return None
    try:
        return _decode_quickly(text)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return _decode_slowly(text)


def _decode_slowly(text: str) -> Any:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise JsonTextError(f"invalid JSON in a value of type {_EXTENSION_NAME}: {error.msg}") from None
    except RecursionError:
        raise JsonTextError(f"a value of type {_EXTENSION_NAME} is nested too deep") from None
    except ValueError:
        raise JsonTextError(f"a value of type {_EXTENSION_NAME} holds a number of more than 4,300 digits") from None
    if contains_lone_surrogate(value, text):
        raise JsonTextError(LONE_SURROGATE)
    return value
