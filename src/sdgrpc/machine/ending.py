"""The end of the process by a time, whatever its threads do."""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from sdgrpc.machine.stacks import every_stack

logger = logging.getLogger(__name__)

STUCK = 70
"""Exit status of a process whose threads do not end or whose device is lost: EX_SOFTWARE of sysexits.h."""
LOG_SECONDS = 0.2  # a log that nobody reads may block for good


class Order(NamedTuple):
    """End by `at` (monotonic seconds) with `status`; `why` is for the log."""

    at: float
    status: int
    why: str


class ProcessEnd:
    """Ends the process with `os._exit` by the earliest time that was asked for.

    It needs no other thread: none of those that hang, and not the main one, which at the end of Python waits
    for every thread. `by` takes no lock, so that a signal's handler may call it.
    """

    def __init__(self, leave: Callable[[int], object] = os._exit) -> None:
        self._leave = leave
        self._orders: queue.SimpleQueue[Order] = queue.SimpleQueue()
        threading.Thread(target=self._wait, name="sdgrpc-end", daemon=True).start()

    def now(self, status: int) -> None:
        """End at once, with nothing that Python does at its end."""
        self._leave(status)

    def by(self, seconds: float, status: int, why: str = "") -> None:
        """End in `seconds` at the latest, unless the process is gone by then; the log is told `why`."""
        self._orders.put(Order(time.monotonic() + seconds, status, why))

    def _wait(self) -> None:
        first: Order | None = None
        while True:
            left = None if first is None else max(0.0, first.at - time.monotonic())
            try:
                order = self._orders.get(timeout=left)
            except queue.Empty:
                break
            first = order if first is None else min(first, order)
        if first is not None:
            if first.why:
                self._say(first)
            self._leave(first.status)

    def _say(self, order: Order) -> None:
        def say() -> None:
            logger.critical("ending now, %s; threads: %s", order.why, every_stack())

        thread = threading.Thread(target=say, name="sdgrpc-last-line", daemon=True)
        thread.start()
        thread.join(LOG_SECONDS)
