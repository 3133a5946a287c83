"""A sampling profile of a run of sftkit: a signal every two milliseconds records where the program is.

    python -m benchmarks.stages --result FILE preprocess --num_workers 1 ...

A sample counts the time since the previous one, because a signal waits until a call into native code returns. It is
attributed to the innermost sftkit function on the stack (to imports during an import). Garbage collection is timed
separately. With one worker, all work is done in this process. Sampling costs one or two percent.
"""

from __future__ import annotations

import argparse
import gc
import json
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from types import FrameType

import sftkit

_INTERVAL = 0.002
_PACKAGE = f"{Path(sftkit.__file__).parent}/"


class Sampler:
    """Seconds by (module, function) from `start` to `stop`."""

    def __init__(self) -> None:
        self.seconds: Counter[tuple[str, str]] = Counter()
        self._last = 0.0
        self._collecting = 0.0  # start of the current collection

    def start(self) -> None:
        """Start sampling."""
        gc.callbacks.append(self._on_collection)
        signal.signal(signal.SIGALRM, self._on_signal)
        self._last = time.perf_counter()
        signal.setitimer(signal.ITIMER_REAL, _INTERVAL, _INTERVAL)

    def stop(self) -> None:
        """Stop sampling."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        gc.callbacks.remove(self._on_collection)

    def _on_signal(self, _: int, frame: FrameType | None) -> None:
        now = time.perf_counter()
        self.seconds[_place(frame)] += now - self._last
        self._last = now

    def _on_collection(self, phase: str, _: dict[str, int]) -> None:
        now = time.perf_counter()
        if phase == "start":
            self._collecting = now
            return
        spent = now - self._collecting
        self.seconds["garbage collection", ""] += spent
        self._last += spent  # exclude it from the next sample


def _place(frame: FrameType | None) -> tuple[str, str]:
    found = None
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith("<frozen importlib"):
            return "imports", ""
        if found is None and name.startswith(_PACKAGE):
            found = name.removeprefix(_PACKAGE), frame.f_code.co_qualname
        frame = frame.f_back
    return found or ("elsewhere", "")


def main() -> None:
    """Run sftkit in this process under the sampler, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--result", type=Path, required=True)
    options, arguments = parser.parse_known_args()
    sys.argv = ["sftkit", *arguments]
    sampler = Sampler()
    sampler.start()
    try:
        from sftkit.cli.app import main as run_sftkit

        run_sftkit()
    except SystemExit as end:
        if end.code:
            raise
    finally:
        sampler.stop()
    places = [[*place, seconds] for place, seconds in sampler.seconds.most_common()]
    options.result.write_text(json.dumps({"places": places}), encoding="utf-8")


if __name__ == "__main__":
    main()
