"""A look at a process that runs or hangs: SIGUSR1 writes every thread's stack, SIGUSR2 changes the level."""

from __future__ import annotations

import faulthandler
import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from sdgrpc.logs.configured import OURS

logger = logging.getLogger(__name__)

STDERR = 2


@contextmanager
def listening_to_signals(level: str) -> Iterator[None]:
    """Do so for the block; needs the main thread.

    The stacks are written to standard error by the signal's own handler, below Python: also where every
    thread waits for a lock, or one holds the interpreter and hangs.
    """
    usual, debug = logging.getLevelName(level.upper()), logging.DEBUG

    def toggle(_number: int, _frame: FrameType | None) -> None:
        ours = logging.getLogger(OURS)
        ours.setLevel(usual if ours.level == debug else debug)
        logger.log(max(usual, logging.INFO), "log level is now %s", logging.getLevelName(ours.level).lower())

    faulthandler.register(signal.SIGUSR1, file=STDERR, all_threads=True)
    before = signal.signal(signal.SIGUSR2, toggle)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR2, before)
        faulthandler.unregister(signal.SIGUSR1)
