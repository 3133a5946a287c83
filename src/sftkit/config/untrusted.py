"""What a data config cannot contain, because it may come from anyone: it reads data, and neither secrets nor choices.

The rules apply to what the file says, after `${other.key}` is resolved. A key that the command line sets instead is
the user's own.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import OmegaConf

from sftkit.config.fields import keys_where
from sftkit.config.schema.data_config import DatasetConfig
from sftkit.config.schema.shared_options import DataOptions
from sftkit.storage.read_only_protocols import NO_OPTIONS, READ_ONLY_PROTOCOLS, protocols_of

_START = r"(?<!\\)(?:\\\\)*\$\{"  # after an odd number of backslashes it would be text
_RESOLVER = re.compile(_START + r"\s*([A-Za-z_][\w.]*)\s*:")
_REFERENCE = re.compile(_START + r"([A-Za-z_][\w.\[\]]*)\}")
_STEP = re.compile(r"[^.\[\]]+")
_MAX_REFERENCES = 20  # that lead from one key to the next

_READABLE = frozenset(keys_where(DataOptions, lambda info: not info.trusted_only))
"""Keys that a data config can set, and so can refer to."""
_SECRET = frozenset(key for schema in (DataOptions, DatasetConfig) for key in keys_where(schema, lambda i: i.secret))


DATA_CONFIG, MANIFEST = "data config", "manifest"


@dataclass(frozen=True)
class UntrustedFile:
    """A config file that may come from anyone."""

    path: str
    kind: str
    """`DATA_CONFIG` or `MANIFEST`."""
    content: Mapping[str, Any]
    """As it was merged, unresolved."""


def interpolation_problem(path: str, data: Any, literal_keys: frozenset[str]) -> str | None:
    """Return what is wrong with the first interpolation of a data config that is not a plain `${other.key}`.

    Args:
        path: The file.
        data: Its content.
        literal_keys: Keys whose text is a template, in which `${` is text.
    """
    for key, text in _texts(data, literal_keys):
        name = next((name for name in _RESOLVER.findall(text) if _is_resolver(name)), None)
        if name is not None:
            return (
                f"{path}: {key} uses {name}, which a data config cannot, because it could send away what is in your "
                "environment; write the value, or set the key as an option or in a --config file"
            )
    return None


def reference_problems(file: UntrustedFile, raw: Mapping[Any, Any]) -> Iterator[str]:
    """Yield what is wrong with the references of a file.

    Args:
        file: The file.
        raw: The merged config, unresolved.
    """
    for key, text in _texts(file.content, frozenset()):
        for name in _REFERENCE.findall(text):
            steps = _STEP.findall(name)
            own = steps[0] in _READABLE or steps[0] not in raw
            if not own or _SECRET.intersection(steps) or _holds_resolver(raw, steps, _MAX_REFERENCES):
                yield (
                    f"{file.path}: {key} refers to {name}, which a {file.kind} cannot read; write the value, or set "
                    "the key as an option or in a --config file"
                )


def source_problems(
    file: UntrustedFile,
    raw: Mapping[Any, Any],
    resolved: Mapping[Any, Any],
    overridden: Collection[str],
    literal_keys: frozenset[str],
) -> Iterator[str]:
    """Yield what is wrong with the paths and `storage_options` of a file.

    Args:
        file: The file.
        raw: The merged config, unresolved.
        resolved: The same, resolved.
        overridden: Dotted paths of the keys that the user set instead.
        literal_keys: Keys whose text is a template, in which `${` is text.
    """
    part = _own_part(file.content, raw, resolved, "", overridden)
    if file.kind == MANIFEST:
        for key, text in _texts(part, literal_keys):
            if uses_resolver(text):
                yield f"{file.path}: {key} is {text!r}, and a manifest reads no environment; give the value as --{key}"
    for key in ("training_data_path", "validation_data_path"):
        yield from _path_problems(file, key, part.get(key))
    processor = part.get("dataprocessor")
    if isinstance(processor, Mapping):
        evaluation = processor.get("decontaminate")
        paths = evaluation.get("paths") if isinstance(evaluation, Mapping) else evaluation
        yield from _path_problems(file, "dataprocessor.decontaminate", paths)
    datasets = part.get("datasets")
    for index, dataset in enumerate(datasets if isinstance(datasets, list) else ()):
        if isinstance(dataset, Mapping):
            given = {str(key).replace("-", "_"): value for key, value in dataset.items()}
            key = f"datasets[{index}]"
            yield from _path_problems(file, f"{key}.data_paths", given.get("data_paths"))
            yield from _option_problems(file, f"{key}.storage_options", given)


def _path_problems(file: UntrustedFile, key: str, paths: Any) -> Iterator[str]:
    for path in paths if isinstance(paths, list) else [paths]:
        wrong = next((name for name in protocols_of(str(path or "")) if name not in READ_ONLY_PROTOCOLS), None)
        if wrong is not None:
            yield (
                f"{file.path}: {key} uses the protocol {wrong[:40]!r}, which a {file.kind} cannot (only "
                f"{', '.join(READ_ONLY_PROTOCOLS)}); give the path as an option or in a --config file"
            )


def _option_problems(file: UntrustedFile, key: str, dataset: Mapping[str, Any]) -> Iterator[str]:
    options = dataset.get("storage_options")
    if not isinstance(options, Mapping):
        return
    from fsspec import available_protocols

    known = {*available_protocols(), *READ_ONLY_PROTOCOLS}
    shared = {name: value for name, value in options.items() if name not in known}
    groups = {name: value for name, value in options.items() if name in known and isinstance(value, Mapping)}
    paths = dataset.get("data_paths")
    used = {next(protocols_of(str(path)), "file") for path in (paths if isinstance(paths, list) else [paths])}
    used &= set(READ_ONLY_PROTOCOLS)
    named = [(f"{key}.{name}", name, value) for name, value in groups.items()]
    for place, protocol, values in [*((key, each, shared) for each in sorted(used)), *named]:
        allowed = READ_ONLY_PROTOCOLS.get(protocol, NO_OPTIONS)
        for name, value in values.items():
            if name not in allowed or not allowed[name](value):
                those = f"only {', '.join(allowed)}, with plain values" if allowed else "it has none that only read"
                yield (
                    f"{file.path}: {place}.{name} is not an option that a {file.kind} can set for {protocol}:// "
                    f"({those}); set it as an option or in a --config file"
                )
    for protocol in {*used, *groups}:
        values = {**shared, **groups.get(protocol, {})}
        if _has_endpoint(values) and not (values.get("anon") is True or (values.get("key") and values.get("secret"))):
            yield (
                f"{file.path}: {key} has an endpoint_url, to which a {file.kind} must not send your credentials; add "
                "anon: true, or key and secret, or set it as an option or in a --config file"
            )
            return


def _has_endpoint(values: Mapping[str, Any]) -> bool:
    client = values.get("client_kwargs")
    return bool(values.get("endpoint_url") or (isinstance(client, Mapping) and client.get("endpoint_url")))


def _texts(data: Any, literal_keys: frozenset[str], path: str = "") -> Iterator[tuple[str, str]]:
    """Yield every text of a config, keys included, with the dotted path of its key."""
    if isinstance(data, Mapping):
        for key, value in data.items():
            inner = f"{path}.{key}" if path else str(key)
            yield inner, str(key)
            if key not in literal_keys:
                yield from _texts(value, literal_keys, inner)
    elif isinstance(data, list):
        for index, value in enumerate(data):
            yield from _texts(value, literal_keys, f"{path}[{index}]")
    elif isinstance(data, str):
        yield path, data


def uses_resolver(text: str) -> bool:
    """Whether a text has an interpolation that is not a plain reference, such as `${oc.env:NAME}`."""
    return any(map(_is_resolver, _RESOLVER.findall(text)))


def expand_references(text: str, raw: Mapping[Any, Any], depth: int = _MAX_REFERENCES) -> str:
    """Replace references in a text by the texts that they lead to, unresolved."""

    def expanded(match: re.Match[str]) -> str:
        inner = [each for _, each in _texts(_target(raw, _STEP.findall(match[1])), frozenset())]
        found = next((each for each in inner if depth and _holds_resolver(raw, _STEP.findall(match[1]), depth)), None)
        return match[0] if found is None else expand_references(found, raw, depth - 1)

    return _REFERENCE.sub(expanded, text)


def _is_resolver(name: str) -> bool:
    return name.startswith("oc.") or OmegaConf.has_resolver(name)


def _holds_resolver(raw: Any, steps: list[str], depth: int) -> bool:
    """Whether what a reference leads to contains an interpolation that is not a plain reference."""
    for _, text in _texts(_target(raw, steps), frozenset()):
        if uses_resolver(text) or depth == 0:
            return True
        if any(_holds_resolver(raw, _STEP.findall(name), depth - 1) for name in _REFERENCE.findall(text)):
            return True
    return False


def _target(raw: Any, steps: list[str]) -> Any:
    for step in steps:
        if isinstance(raw, Mapping):
            raw = raw.get(step)
        elif isinstance(raw, list) and step.isdecimal() and int(step) < len(raw):
            raw = raw[int(step)]
        else:
            return None
    return raw


def _own_part(own: Any, raw: Any, resolved: Any, path: str, overridden: Collection[str]) -> Any:
    """Return the part of the resolved config that a file set and nothing overrode; None for what is not its own."""
    if any(path == key or path.startswith((f"{key}.", f"{key}[")) for key in overridden):
        return None
    if isinstance(own, Mapping) and isinstance(raw, Mapping):
        paths = {key: f"{path}.{key}" if path else str(key) for key in own if key in raw}
        parts = {key: _own_part(own[key], raw[key], resolved[key], paths[key], overridden) for key in paths}
        return {key: part for key, part in parts.items() if paths[key] not in overridden}
    if isinstance(own, list) and isinstance(raw, list):
        items = enumerate(zip(own, raw, resolved, strict=False))
        return [_own_part(*each, f"{path}[{index}]", overridden) for index, each in items]
    return resolved if own == raw else None
