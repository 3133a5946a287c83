"""Retries of remote operations after temporary failures of networks and servers."""

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
from sftkit.redaction import redact_access
from sftkit.storage.paths import RemotePath

_log = logging.getLogger(__name__)

T = TypeVar("T")

MAX_ATTEMPTS = 6
"""Number of attempts, over about half a minute or more, in addition to the retries of the file system itself."""

_ARROW_ERROR = re.compile(r"Detail: \[errno (\d+)\]")  # Arrow wraps messages of the system
_FIRST_WAIT, _MAX_WAIT = 0.5, 20.0  # seconds
_PERMANENT_TYPES = (
    *(FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError),
    *(ImportError, NotImplementedError, TypeError, ValueError, AttributeError, MemoryError),
)
_PERMANENT_NUMBERS = frozenset({errno.EINVAL, errno.ENOSPC, errno.ENAMETOOLONG})
_PERMANENT_NAMES = frozenset({"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError"})


def with_retries(place: RemotePath, call: Callable[[], T]) -> T:
    """Call a function that accesses a remote file until it succeeds, and return its result.

    Waits grow exponentially and are randomized (full jitter), so that many processes do not retry at the same moment.

    Raises:
        OSError: it failed every time, or permanently; the error names the file.
    """
    for attempt in range(1, MAX_ATTEMPTS + 1):
        try:
            return call()
        except SftkitError:
            raise
        except Exception as error:  # each file system raises its own errors
            if attempt == MAX_ATTEMPTS or _is_permanent(error):
                raise _with_place(error, place) from None  # its message, and its causes, may show credentials
            wait = random.uniform(0, min(_MAX_WAIT, _FIRST_WAIT * 2**attempt))
            level = logging.INFO if attempt == 1 else logging.WARNING
            _log.log(level, "%s: %s; trying again in %.1f s", place, _reason(error, place), wait)
            time.sleep(wait)
    raise AssertionError("the last attempt returns or raises")


def error_reason(error: BaseException) -> str:
    """The reason that an error gives, on one line."""
    number = _ARROW_ERROR.search(str(error))
    if number is not None:
        return os.strerror(int(number[1]))
    if isinstance(error, FileNotFoundError) and not error.strerror:
        return os.strerror(errno.ENOENT)
    reason = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
    return " ".join(reason.split())


def _is_permanent(error: Exception) -> bool:
    if isinstance(error, _PERMANENT_TYPES) or type(error).__name__ in _PERMANENT_NAMES:
        return True
    return isinstance(error, OSError) and error.errno in _PERMANENT_NUMBERS


def _with_place(error: Exception, place: RemotePath) -> OSError:
    """The same error as an OSError that names the file."""
    kind = type(error) if isinstance(error, (FileNotFoundError, FileExistsError, PermissionError)) else OSError
    number = getattr(error, "errno", None)
    return kind(number if isinstance(number, int) else errno.EIO, _reason(error, place), str(place))


def _reason(error: Exception, place: RemotePath) -> str:
    return redact_access(error_reason(error), place.url, place.options)
