"""Trying again what a network or a server failed to do, for as long as it may pass."""

from __future__ import annotations

import errno
import logging
import os
import random
import re
import time
from collections.abc import Callable
from typing import TypeVar

from sftkit.errors import SftkitError
from sftkit.storage.paths import RemotePath

_log = logging.getLogger(__name__)

T = TypeVar("T")

MAX_ATTEMPTS = 6
"""How often something is tried: over half a minute or more, besides what the file system tries by itself."""

_ARROW_ERROR = re.compile(r"Detail: \[errno (\d+)\]")  # Arrow puts other words around those of the system
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 20.0  # seconds
_LASTING = (
    *(FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError),
    *(ImportError, NotImplementedError, TypeError, ValueError, AttributeError, MemoryError),
)
_LASTING_NUMBERS = frozenset({errno.EINVAL, errno.ENOSPC, errno.ENAMETOOLONG})
_LASTING_NAMES = frozenset({"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError"})


def with_retries(place: RemotePath, call: Callable[[], T]) -> T:
    """What a call that reaches for a file returns, as soon as it succeeds.

    Waits grow, and are drawn at random, so that many processes do not come back at the same moment (exponential
    backoff with full jitter).

    Raises:
        OSError: it failed every time, or in a way that will not pass; the file is named in it.
    """
    for attempt in range(1, MAX_ATTEMPTS + 1):
        try:
            return call()
        except SftkitError:
            raise
        except Exception as error:  # each file system has errors of its own
            if attempt == MAX_ATTEMPTS or _lasts(error):
                raise _named(error, place) from error
            wait = random.uniform(0, min(_LONGEST_WAIT, _FIRST_WAIT * 2**attempt))
            level = logging.INFO if attempt == 1 else logging.WARNING
            _log.log(level, "%s: %s; trying again in %.1f s", place, error_reason(error), wait)
            time.sleep(wait)
    raise AssertionError("the last attempt returns or raises")


def error_reason(error: BaseException) -> str:
    """What an error says, in one line."""
    number = _ARROW_ERROR.search(str(error))
    if number is not None:
        return os.strerror(int(number[1]))
    if isinstance(error, FileNotFoundError) and not error.strerror:
        return os.strerror(errno.ENOENT)
    said = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
    return " ".join(said.split())


def _lasts(error: Exception) -> bool:
    if isinstance(error, _LASTING) or type(error).__name__ in _LASTING_NAMES:
        return True
    return isinstance(error, OSError) and error.errno in _LASTING_NUMBERS


def _named(error: Exception, place: RemotePath) -> OSError:
    """The same as an error of the system, which says of which file."""
    kind = type(error) if isinstance(error, (FileNotFoundError, FileExistsError, PermissionError)) else OSError
    number = getattr(error, "errno", None)
    return kind(number if isinstance(number, int) else errno.EIO, error_reason(error), place.url)
