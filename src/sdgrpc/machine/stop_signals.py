"""SIGTERM and SIGINT as requests to stop: the first to drain, the second at once."""

from __future__ import annotations

import asyncio
import itertools
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

from sdgrpc.machine.ending import STUCK, ProcessEnd

HURRY_SECONDS = 0.8  # from a second signal to the end


@dataclass(frozen=True)
class StopRequests:
    """Set by SIGTERM and SIGINT: `first` asks to drain, `second` to stop at once."""

    first: asyncio.Event = field(default_factory=asyncio.Event)
    second: asyncio.Event = field(default_factory=asyncio.Event)


def take_signals_again() -> None:
    """Have Python's handlers called for SIGTERM and SIGINT where a library put its own before them.

    Does nothing but in the main thread, which alone may.
    """
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.getsignal(number))


@contextmanager
def stop_requests(end: ProcessEnd | None = None, seconds: float = 0.0) -> Iterator[StopRequests]:
    """Catch SIGTERM and SIGINT; the third one has its usual effect.

    The first has `end` end the process in `seconds`, the second in a moment. The handler is Python's and not
    the event loop's, so that it does so even where the loop hangs.
    """
    loop, requests = asyncio.get_running_loop(), StopRequests()
    caught = (signal.SIGTERM, signal.SIGINT)
    count = itertools.count()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        if next(count) == 0:
            if end is not None:
                end.by(seconds, STUCK, "since threads outlasted the time for draining")
            loop.call_soon_threadsafe(requests.first.set)
            return
        if end is not None:
            end.by(HURRY_SECONDS, 0, "as a second signal asked for, before all threads did")
        for number in caught:
            signal.signal(number, signal.SIG_DFL)
        loop.call_soon_threadsafe(requests.second.set)

    before = {number: signal.signal(number, on_signal) for number in caught}
    try:
        yield requests
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
