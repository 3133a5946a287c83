"""An S3-compatible server on this machine (moto), which may fail now and then. A script, started by `buckets.server`.

argv: the fraction of requests that it answers with an error. Prints its port; tells at `/failures` how often it failed.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterable
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

ERROR = b'<?xml version="1.0"?><Error><Code>InternalError</Code><Message>Try again.</Message></Error>'
FAILURES = "/failures"


class Failing:
    """Answers a fraction of the requests with an error, or cuts the answer short."""

    def __init__(self, fraction: float) -> None:
        self._application = DomainDispatcherApplication(create_backend_app)
        self._chance = random.Random(1)
        self._fraction = fraction
        self._counts = [0, 0]

    def __call__(self, environment: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if environment["PATH_INFO"] == FAILURES:
            return _answer(start, "200 OK", repr(self._counts).encode())
        self._counts[0] += 1
        if self._chance.random() >= self._fraction:
            return self._application(environment, start)
        self._counts[1] += 1
        environment["wsgi.input"].read(int(environment.get("CONTENT_LENGTH") or 0))
        return _answer(start, self._chance.choice(["500 Internal Server Error", "503 Slow Down"]), ERROR)


class Silent(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_request(self, *_: object) -> None:
        pass


def _answer(start: Callable[..., Any], status: str, body: bytes) -> list[bytes]:
    start(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
    return [body]


def main() -> None:
    server = make_server("127.0.0.1", 0, Failing(float(sys.argv[1])), threaded=True, request_handler=Silent)
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()
