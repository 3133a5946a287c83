"""What the manifests of two data sets say differently: fingerprint, tokenizer, template, config, sources, versions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sftkit.config.fields import to_plain_data
from sftkit.inspection.compare.comparison import SettingDifference
from sftkit.shards.manifest import Manifest
from sftkit.tokenization.loading.tokenizer_difference import template_difference

_HOW_IT_RAN = frozenset(
    {
        *("output_dir", "staging_dir", "keep_staging", "overwrite", "dry_run", "executor", "ray_address"),
        *("num_workers", "log_level", "split_batches", "use_flash_attn"),
    }
)
"""Keys of a config that do not decide what rows are."""

_TEMPLATE = "chat_template"
_TOTALS = ("rows_read", "rows_added", "rows_written", "rows_left_out", "rows_repeated", "quarantined")


def compare_settings(a: Manifest, b: Manifest) -> tuple[SettingDifference, ...]:
    """Compare two manifests. Times, shards and row counts of sources are left out; sources are compared by content."""
    texts = (_template_of(a), _template_of(b))
    found = []
    values_a, values_b = dict(_settings(a)), dict(_settings(b))
    for key in dict.fromkeys([*values_a, *values_b]):
        first, second = values_a.get(key), values_b.get(key)
        if first == second:
            continue
        details: tuple[str, ...] = ()
        if key == "tokenizer.chat_template_sha256" and texts[0] is not None and texts[1] is not None:
            details = ("- A, + B", *template_difference(texts[0], texts[1]))
        found.append(SettingDifference(key, first, second, details))
    return tuple(found)


def _settings(manifest: Manifest) -> Iterator[tuple[str, Any]]:
    yield "fingerprint", manifest.fingerprint
    yield "format_version", manifest.format_version
    yield "columns", list(manifest.columns)
    tokenizer = to_plain_data(manifest.tokenizer) if manifest.tokenizer is not None else {}
    yield from _flat({key: value for key, value in tokenizer.items() if key != _TEMPLATE}, "tokenizer")
    config = to_plain_data(manifest.config)
    yield from _flat({key: value for key, value in config.items() if key not in _HOW_IT_RAN}, "config")
    yield from _flat(manifest.versions, "versions")
    for source in manifest.sources:
        yield f"sources.{source.path} ({source.dataset})", source.sha256 or f"{source.bytes:,} bytes"
    for name in _TOTALS:
        yield name, getattr(manifest, name)
    yield from _flat(manifest.dropped, "dropped")


def _flat(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    """Yield the values in nested mappings and lists of mappings, with the path of each."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{place}.{key}")
    elif isinstance(value, (list, tuple)) and any(isinstance(each, Mapping) for each in value):
        for number, inner in enumerate(value):
            name = inner.get("name", number) if isinstance(inner, Mapping) else number
            yield from _flat(inner, f"{place}[{name}]")
    elif not isinstance(value, Mapping):
        yield place, value


def _template_of(manifest: Manifest) -> str | None:
    return manifest.tokenizer.chat_template if manifest.tokenizer is not None else None
