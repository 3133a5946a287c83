"""The protocols that a data config may name, and those of their options that neither write nor lead elsewhere.

Others write (caches), run programs, read what the user did not name (`reference`), or log in with the user's keys.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any


def _is_text(value: Any) -> bool:
    return value is None or isinstance(value, (str, int, float))


def _is_server(value: Any) -> bool:
    return value is None or re.fullmatch(r"https?://[^/@\s]+/?", str(value)) is not None


def _are_texts(value: Any) -> bool:
    return isinstance(value, Mapping) and all(_is_text(each) for each in value.values())


def _is_s3_client(value: Any) -> bool:
    known = {"endpoint_url": _is_server, "region_name": _is_text}
    return isinstance(value, Mapping) and all(key in known and known[key](each) for key, each in value.items())


OptionChecks = Mapping[str, Callable[[Any], bool]]
_BLOCKS: OptionChecks = {"default_block_size": _is_text, "block_size": _is_text}
NO_OPTIONS: OptionChecks = {}
_HTTP: OptionChecks = {**_BLOCKS, "headers": _are_texts, "encoded": _is_text}
_S3: OptionChecks = {
    **_BLOCKS,
    **dict.fromkeys(("anon", "key", "secret", "token", "requester_pays", "version_aware"), _is_text),
    "endpoint_url": _is_server,
    "client_kwargs": _is_s3_client,
}
_GS: OptionChecks = {
    **_BLOCKS,
    "token": lambda value: value == "anon",  # others name files, open a browser or ask a server for a token
    "project": _is_text,
    "requester_pays": _is_text,
}
_AZURE: OptionChecks = {
    **_BLOCKS,
    "account_name": lambda value: re.fullmatch(r"[a-z0-9]{3,24}", str(value)) is not None,  # part of a host name
    **dict.fromkeys(("account_key", "sas_token", "anon"), _is_text),
}
_HUB: OptionChecks = {**_BLOCKS, "token": _is_text}

READ_ONLY_PROTOCOLS: Mapping[str, OptionChecks] = MappingProxyType(
    {
        **dict.fromkeys(("file", "local", "memory", "zip", "tar"), NO_OPTIONS),
        **dict.fromkeys(("http", "https"), _HTTP),
        **dict.fromkeys(("s3", "s3a"), _S3),
        **dict.fromkeys(("gs", "gcs"), _GS),
        **dict.fromkeys(("az", "abfs", "abfss"), _AZURE),
        "hf": _HUB,
    }
)
"""Protocols that data configs may name, and the options of each that neither write nor lead elsewhere."""


def protocols_of(path: str) -> Iterator[str]:
    """Yield the protocols of a URL, outermost first; none for a local path.

    Example:
        >>> list(protocols_of("zip://a.jsonl::https://host/a.zip")), list(protocols_of("a.jsonl"))
        (['zip', 'https'], [])
    """
    if "://" not in path and "::" not in path:
        return
    from fsspec import available_protocols

    links = path.split("::")
    known = set(available_protocols())
    for link in links:
        protocol, separator, _ = link.partition("://")
        if separator:
            yield protocol
        elif len(links) > 1 and (link in known or "://" in path):
            yield link if link in known else "file"
