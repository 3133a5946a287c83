"""A script that starts a local S3-compatible server (moto), which can fail and block requests; see `buckets.server`.

Its argument is the fraction of requests to answer with an error. It prints its port. `/failures` returns the numbers of
requests and of failures. `/hold?COUNT&PART` blocks writes of names that contain PART after the first COUNT of them,
`/held` returns how many are blocked, and `/release` fails the blocked writes and stops blocking.
"""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

ERROR = b'<?xml version="1.0"?><Error><Code>InternalError</Code><Message>Try again.</Message></Error>'


class UnreliableServer:
    """A WSGI application that answers a fraction of the requests with an error and blocks some writes."""

    def __init__(self, fraction: float) -> None:
        self._application = DomainDispatcherApplication(create_backend_app)
        self._chance = random.Random(1)
        self._fraction = fraction
        self._counts = [0, 0]
        self._lock = threading.Lock()
        self._hold: tuple[str, int] | None = None
        self._held = 0
        self._released = threading.Event()

    def __call__(self, environment: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        path, query = environment["PATH_INFO"], environment["QUERY_STRING"]
        if path == "/failures":
            return _answer(start, "200 OK", repr(self._counts).encode())
        if path == "/hold":
            count, _, part = query.partition("&")
            self._hold, self._held, self._released = (part, int(count)), 0, threading.Event()
            return _answer(start, "200 OK", b"")
        if path == "/held":
            return _answer(start, "200 OK", str(self._held).encode())
        if path == "/release":
            self._hold = None
            self._released.set()
            return _answer(start, "200 OK", b"")
        if environment["REQUEST_METHOD"] in ("PUT", "POST") and self._is_held(path):
            released = self._released
            self._held += 1
            released.wait()
            return self._fail(environment, start)
        self._counts[0] += 1
        if self._chance.random() >= self._fraction:
            return self._application(environment, start)
        self._counts[1] += 1
        return self._fail(environment, start)

    def _is_held(self, path: str) -> bool:
        """Whether to block a write of this path; writes that are not blocked are counted."""
        with self._lock:
            if self._hold is None or self._hold[0] not in path:
                return False
            part, left = self._hold
            self._hold = (part, max(0, left - 1))
            return left == 0

    def _fail(self, environment: dict[str, Any], start: Callable[..., Any]) -> list[bytes]:
        environment["wsgi.input"].read(int(environment.get("CONTENT_LENGTH") or 0))
        return _answer(start, self._chance.choice(["500 Internal Server Error", "503 Slow Down"]), ERROR)


class QuietRequestHandler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_request(self, *_: object) -> None:
        pass


def _answer(start: Callable[..., Any], status: str, body: bytes) -> list[bytes]:
    start(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
    return [body]


def main() -> None:
    server = make_server(
        "127.0.0.1", 0, UnreliableServer(float(sys.argv[1])), threaded=True, request_handler=QuietRequestHandler
    )
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()
