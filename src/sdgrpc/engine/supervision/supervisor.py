"""Notices that the engine cannot go on: a dead thread, a lost device, a call that does not return.

Each of these would leave a server that looks healthy and draws nothing. So the first one ends every job,
tells whoever listens, and leaves one line in the log with every thread's stack. The process has to end: a
thread that hangs cannot be stopped, and a CUDA context that failed works no more.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from sdgrpc.engine.supervision.call_times import CallShape, CallTimes, RunningCall
from sdgrpc.errors import EngineFailed, OutOfMemory
from sdgrpc.machine.device_faults import is_lost
from sdgrpc.machine.out_of_memory import OUT_OF_MEMORY, is_out_of_memory
from sdgrpc.machine.stacks import every_stack, origin

logger = logging.getLogger(__name__)

T = TypeVar("T")

TICK_SECONDS = 0.25


class Supervisor:
    """Runs the work of the engine's threads and judges how it ends. Thread safe, and held up by no thread.

    Args:
        hang_timeout: the seconds before which no call counts as stuck; 0 watches none.
        hang_factor: how many times the longest call of its shape one may take.

    """

    def __init__(self, *, hang_timeout: float = 60.0, hang_factor: float = 10.0) -> None:
        self._calls = CallTimes(least=hang_timeout, factor=hang_factor)
        self._tick = min(TICK_SECONDS, hang_timeout / 4)
        self._awake = 0.0  # seconds in which this process ran: one that is stopped and goes on hangs nowhere
        self._failed = threading.Event()
        self._closed = threading.Event()
        self._first = threading.Lock()  # only to tell which failure was the first
        self._listeners: list[Callable[[], None]] = []
        self._thread = threading.Thread(target=self._watch, name="sdgrpc-watch", daemon=True)

    def start(self) -> None:
        """Watch for calls that do not return, on a thread of its own."""
        if self._tick > 0:
            self._thread.start()

    def close(self) -> None:
        """Watch no more. May be called twice."""
        self._closed.set()

    @property
    def failed(self) -> bool:
        """Whether the engine cannot go on."""
        return self._failed.is_set()

    def check(self) -> None:
        """Raise EngineFailed once the engine cannot go on."""
        if self.failed:
            raise self.error()

    def error(self) -> EngineFailed:
        """Return what jobs and calls end with then."""
        return EngineFailed("the engine failed and the server is ending; send the job to another")

    def silence(self) -> float:
        """Return for how many seconds the most silent running call has been so; 0 without one."""
        return self._calls.silence(self._awake)

    def on_failure(self, tell: Callable[[], None]) -> None:
        """Have `tell` called once the engine cannot go on, from any thread; it must not block."""
        self._listeners.append(tell)
        if self.failed:
            tell()

    async def wait_failed(self) -> None:
        """Return once the engine cannot go on."""
        failed, loop = asyncio.Event(), asyncio.get_running_loop()

        def tell() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(failed.set)

        self.on_failure(tell)
        await failed.wait()

    def fail(self, cause: str) -> None:
        """Say that the engine cannot go on; only the first cause counts."""
        with self._first:
            if self.failed:
                return
            self._failed.set()
        stacks = every_stack()  # before threads end because of it
        for tell in list(self._listeners):
            try:
                tell()
            except Exception:  # the others must hear of it all the same
                logger.exception("a listener failed")
        logger.critical("the engine cannot go on, %s; threads: %s", cause, stacks)

    def judged(self, error: BaseException) -> Exception:
        """Return what a job should end with whose work raised `error`; fail where nothing else would work."""
        if isinstance(error, EngineFailed):
            return error
        if not isinstance(error, Exception):
            self.fail(f"a thread was ended by {origin(error)}")
            return self.error()
        if is_out_of_memory(error):
            return OutOfMemory(OUT_OF_MEMORY)
        if is_lost(error):
            self.fail(f"the device is lost: {origin(error)}: {str(error).partition(chr(10))[0]}")
            return self.error()
        return error

    @contextmanager
    def call(self, shape: CallShape) -> Iterator[Callable[[], None]]:
        """Watch over the block, which works on one thing; it may call what it is given as a sign of life.

        Raises:
            EngineFailed: in place of whatever ends a thread or says that the device is lost.
            OutOfMemory: in place of anything that says so.

        """
        call, began = RunningCall(shape, self._awake, self._awake), time.monotonic()
        number = self._calls.begin(call)

        def beat() -> None:
            call.beaten = self._awake

        try:
            yield beat
            self._calls.returned(shape, time.monotonic() - began)
        except BaseException as error:
            judged = self.judged(error)
            if judged is error:
                raise
            raise judged from None
        finally:
            self._calls.end(number)

    def run(self, shape: CallShape, work: Callable[[], T]) -> T:
        """Return what `work` returns, watched over as by `call`."""
        with self.call(shape):
            return work()

    def thread(self, name: str, target: Callable[[], None]) -> threading.Thread:
        """Make a thread that runs `target` and must not end by an error."""

        def guarded() -> None:
            try:
                target()
            except BaseException as error:  # whatever it was, its jobs wait for a thread that is gone
                self.fail(f"the thread {name} was ended by {origin(error)}")

        return threading.Thread(target=guarded, name=name, daemon=True)

    def join(self, threads: Iterable[threading.Thread]) -> bool:
        """Wait for threads to end; False, at once, where the engine failed: they may never do so."""
        for thread in threads:
            while thread.is_alive() and not self.failed:
                thread.join(TICK_SECONDS)
        return not self.failed

    def _watch(self) -> None:
        before = time.monotonic()
        while not (self._closed.wait(self._tick) or self.failed):
            now = time.monotonic()
            self._awake += min(now - before, 2 * self._tick)
            before = now
            if (call := self._calls.stuck(self._awake)) is not None:
                seconds, shape = self._awake - call.beaten, call.shape
                self.fail(f"{shape.verb} has not returned for {seconds:.1f} s on the thread {call.thread}")
