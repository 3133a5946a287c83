"""Hides credentials in everything that is shown, logged, or written next to the data.

What is hidden: the user and password of a URL, the values of its query, its fragment; bearer tokens and tokens of the
Hub; values of environment variables whose name says that they are secret. A secret in the
path of a URL cannot be recognized.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, unquote

HIDDEN = "***"
"""Written in place of a secret."""

_URL = re.compile(r"[A-Za-z][\w+.-]*://[^\s\"'<>`\\]*[^\s\"'<>`\\:;,.!)\]]")
_ROW = re.compile(r":\d+$")
_WEB = frozenset({"http", "https", "webdav", "webhdfs", "ws", "wss"})
_QUERY = re.compile(r"\?(?=[\w.~%+*\[\]-]+=)")
"""The start of a query in a URL of an object store, where a `?` may be part of a pattern."""
_HARMLESS_VALUE = re.compile(r"(?i)true|false|yes|no|\d{1,3}")
_INTERPOLATION = re.compile(r"\$\{[^{}]*\}")
"""What a config says in place of a value."""
_SECRET_NAME = re.compile(
    r"(?i)(?:^|[-_.])(?:\w*token|\w*secret|pass(?:word|wd|phrase)?|pwd|pin|api_?key|access_?key|\w*signature|sig|key|"
    r"credentials?|auth|authorization)(?:$|[-_.])"
)
_SECRET_VARIABLE = re.compile(r"(?i)(?:(?:^|_)(?:token|secret|password|passwd|passphrase|apikey|key|sas)|_pwd)(?:$|_)")
_LEAST_SECRET = 8
"""Characters; shorter values of environment variables would hide ordinary words."""
_LEAST_PART = 4
"""The same for the parts of a URL and of options, in errors about it."""
_TOKENS = re.compile(
    r"(?i)(\bauthorization['\"]?\s*[:=]\s*['\"]?)(?:(?:bearer|basic|token)\s+)?[^\s'\",}]+|"
    r"(\bbearer\s+)(?=[a-z._~+/=-]*\d)[\w.~+/=-]{8,}|\bhf_[a-z0-9]{10,}"
)


def redact(text: str) -> str:
    """Hide credentials in a text, such as an error message. Applying it again changes nothing.

    Example:
        >>> redact("https://user:secret@host/a.jsonl?sig=abc: not found")
        'https://***@host/a.jsonl?sig=***: not found'
    """
    for value in _secret_environment():
        if value in text:
            text = text.replace(value, HIDDEN)
    if "://" in text:
        text = _redact_urls(text)
    return _TOKENS.sub(lambda match: f"{match[1] or match[2] or ''}{HIDDEN}", text)


def redact_url(url: str) -> str:
    """Hide the credentials of a URL, or of every link of a chain (`zip://a.jsonl::https://host/a.zip?sig=...`).

    Values of a query that are not known to be secret get a mark of four digits, so that URLs which differ in them stay
    different. It says at most 16 bits about a value.

    Example:
        >>> redact_url("s3://key:secret@bucket/a.jsonl"), redact_url("https://host/a.jsonl?id=b1&download=true")
        ('s3://***@bucket/a.jsonl', 'https://host/a.jsonl?id=***7dc9&download=true')
    """
    return "::".join(map(_redact_link, url.split("::"))) if "://" in url else url


def redact_access(text: str, url: str, options: Mapping[str, Any]) -> str:
    """Hide everything in a text that gives access to a URL, however the text quotes it.

    Args:
        text: The message of an error about the URL.
        url: The URL.
        options: The options of its file system. All of their values are hidden.

    Example:
        >>> redact_access("no bucket 'key:secret@name'", "s3://key:secret@name/a.jsonl", {})
        "no bucket '***@name'"
    """
    secrets = {*_texts(options), *_secrets_of(url)}
    secrets |= {unquote(secret) for secret in secrets} | {quote(secret, safe="") for secret in secrets}
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _LEAST_PART:
            text = text.replace(secret, HIDDEN)
    return redact(text)


def names_secret(name: str) -> bool:
    """Whether a name, such as a key of options, says that its value is secret.

    Example:
        >>> names_secret("hub_token"), names_secret("api-key"), names_secret("max_tokens")
        (True, True, False)
    """
    return bool(_SECRET_NAME.search(name))


def is_redacted(text: str) -> bool:
    """Whether a URL has lost credentials, so that it cannot be opened."""
    return "://" in text and HIDDEN in text


def _redact_urls(text: str) -> str:
    def redacted(match: re.Match[str]) -> str:
        row = _ROW.search(match[0])  # of `path:row`
        end = row.start() if row else len(match[0])
        return redact_url(match[0][:end]) + match[0][end:]

    return _URL.sub(redacted, text)


def _redact_link(link: str) -> str:
    protocol, separator, rest = link.partition("://")
    if not separator:
        return link
    rest, fragment = _cut(rest, "#") if protocol.lower() in _WEB else (rest, None)
    query: str | None = None
    if protocol.lower() in _WEB:
        rest, query = _cut(rest, "?")
    elif found := _QUERY.search(rest):
        rest, query = rest[: found.start()], rest[found.end() :]
    return "".join(
        (
            f"{protocol}://{_redact_authority(rest)}",
            "" if query is None else "?" + "&".join(map(_redact_parameter, query.split("&"))),
            "" if fragment is None else f"#{HIDDEN}",
        )
    )


def _cut(text: str, mark: str) -> tuple[str, str | None]:
    head, found, tail = text.partition(mark)
    return head, tail if found else None


def _redact_authority(rest: str) -> str:
    authority, slash, path = rest.partition("/")
    path = _redact_urls(path)
    _, at, host = authority.rpartition("@")
    if at:
        return f"{HIDDEN}@{host}{slash}{path}"
    port = authority.rpartition(":")[2]
    if ":" not in authority or port.isdecimal() or not port or authority.startswith("["):
        return f"{authority}{slash}{path}"
    return f"{HIDDEN}@{path.rpartition('@')[2]}" if "@" in path else HIDDEN  # a password with a slash


def _redact_parameter(parameter: str) -> str:
    name, equals, value = parameter.partition("=")
    if not equals:
        return parameter if not name or name.startswith(HIDDEN) else HIDDEN
    if value.startswith(HIDDEN) or not value:
        return parameter
    if _INTERPOLATION.fullmatch(value):
        return parameter
    if _SECRET_NAME.search(name):
        return f"{name}={HIDDEN}"
    if _HARMLESS_VALUE.fullmatch(value):
        return parameter
    return f"{name}={HIDDEN}{hashlib.sha256(value.encode(errors='surrogatepass')).hexdigest()[:4]}"


def _secret_environment() -> list[str]:
    values = {value.strip() for name, value in os.environ.items() if _SECRET_VARIABLE.search(name)}
    return sorted((value for value in values if len(value) >= _LEAST_SECRET), key=len, reverse=True)


def _secrets_of(url: str) -> Iterator[str]:
    for link in url.split("::"):
        rest = link.partition("://")[2]
        head, _, fragment = rest.partition("#")
        head, _, query = head.partition("?")
        shown = _redact_authority(head)
        userinfo = head.removesuffix(shown.partition(HIDDEN)[2]) if shown.startswith(HIDDEN) else ""
        yield from (userinfo, *userinfo.split(":"), fragment)
        parameters = [each for each in query.split("&") if _redact_parameter(each) != each]
        yield from (each.partition("=")[2] or each for each in parameters)


def _texts(options: Any) -> Iterator[str]:
    if isinstance(options, Mapping):
        for value in options.values():
            yield from _texts(value)
    elif isinstance(options, (list, tuple)):
        for value in options:
            yield from _texts(value)
    elif isinstance(options, str):
        yield from (options, *options.split())
