"""From a start to a clean end: listen, load, serve, drain, stop.

with asyncio.Runner() as runner:
    runner.run(serve(settings, open_engine))
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence

from sdgrpc.api.calls.call import CallObserver
from sdgrpc.api.catalog import CatalogServicer
from sdgrpc.api.gate import Gate
from sdgrpc.api.jobs.registry import KeptJobs
from sdgrpc.api.jobs.servicer import JobServicer
from sdgrpc.api.jobs.sharing import Sharing
from sdgrpc.api.listener import DIFFUSION, Listener
from sdgrpc.api.servicer import DiffusionServicer
from sdgrpc.api.traffic.holding import Holding
from sdgrpc.api.traffic.receiving import ReceivingInterceptor
from sdgrpc.api.waiting import first_of
from sdgrpc.engine.base import Engine
from sdgrpc.errors import EngineFailed
from sdgrpc.machine.ending import ProcessEnd
from sdgrpc.machine.stop_signals import stop_requests
from sdgrpc.settings import Settings

logger = logging.getLogger(__name__)

OpenEngine = Callable[[], Engine]

READY_POLL_SECONDS = 0.05
FLUSH_SECONDS = 0.5  # what is left after draining are the last bytes of streams
TOLD_SECONDS = 0.4  # in which a failed server still answers, so that whoever asks for its health learns of it
LATE_SECONDS = 5.0  # from the end of draining
UNWIND_SECONDS = 1.0  # calls that were cut end within milliseconds
CALL = "_schedule_rpc_coro"  # grpc's task of a call


class Server:
    """The service on a port. It owns the engine that it loads: `stop` closes it."""

    def __init__(self, settings: Settings, observers: Sequence[CallObserver] = ()) -> None:
        self._settings = settings
        self._gate = Gate()
        holding = Holding(settings.body_budget_bytes)
        self._kept = KeptJobs(settings)
        self._sharing = Sharing(settings, self._kept)
        self._servicer = DiffusionServicer(settings, self._gate, holding, self._kept, self._sharing)
        self._listener = Listener(
            settings,
            self._servicer,
            CatalogServicer(settings, self._gate, self._servicer.task_of),
            JobServicer(settings, self._gate, self._kept, self._sharing),
            self._gate,
            [ReceivingInterceptor(DIFFUSION, settings, self._gate, holding, self._sharing.may_have)],
            observers,
        )
        self._loading: asyncio.Future[Engine] | None = None
        self._watching: asyncio.Future[None] | None = None
        self._failed = asyncio.Event()

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return self._listener.address

    async def start(self) -> None:
        """Answer on the port: health says NOT_SERVING, jobs are refused with UNAVAILABLE.

        Raises:
            SettingsError: as `Listener.start`.

        """
        await self._listener.start()
        self._servicer.start()

    async def load(self, open_engine: OpenEngine) -> None:
        """Run `open_engine` in a thread of its own, then serve its engine once it is ready.

        Raises:
            Exception: what `open_engine` raised, EngineFailed if its engine failed before it was ready.

        """
        self._loading = in_daemon_thread(open_engine)
        engine = await asyncio.shield(self._loading)
        self._watching = asyncio.ensure_future(self._watch(engine))
        while not engine.status().ready:  # an engine's readiness is a number, not an event
            self.check()
            await asyncio.sleep(READY_POLL_SECONDS)
        if engine.shared_jobs is not None:
            await self._sharing.join(
                engine.shared_jobs, self._servicer.drawing, lambda: self._gate.is_welcoming
            )
        self._gate.open(engine)
        await self._listener.serving()

    async def failed(self) -> None:
        """Return once the engine cannot go on; health says so, and every call has been ended."""
        await self._failed.wait()

    def check(self) -> None:
        """Raise EngineFailed once the engine cannot go on."""
        if self._failed.is_set():
            raise EngineFailed("the engine failed; the log says why")

    async def stop(self, hurry: asyncio.Event | None = None) -> None:
        """Tell health; after `drain_delay` refuse new jobs; wait for the running ones, and stop.

        Jobs that are still there after `drain_timeout` end at their next step with UNAVAILABLE (DRAINING).
        All waiting ends once `hurry` is set or the engine fails.
        """
        hurry = hurry or asyncio.Event()
        self._gate.leave()
        await self._listener.leaving()
        if self._settings.drain_delay > 0 and not self._gate.closing.is_set():
            await first_of(asyncio.sleep(self._settings.drain_delay), self._cut_short(hurry))
        self._gate.close()
        timeout = self._settings.drain_timeout
        if not await first_of(self._drain(), self._cut_short(hurry), seconds=timeout):
            logger.warning("stopping with jobs that have not ended")
        await self._sharing.leave(tells=not hurry.is_set())
        if hurry.is_set():
            await self._listener.stop(0)
        elif self._failed.is_set():
            await asyncio.sleep(TOLD_SECONDS)
        if (engine := self._engine()) is not None:
            await engine.close()
        await self._listener.stop(0 if self._failed.is_set() else FLUSH_SECONDS)
        self._kept.close()
        self._servicer.close()
        if self._watching is not None:
            self._watching.cancel()

    async def _watch(self, engine: Engine) -> None:
        await engine.failed()
        await self._listener.leaving()
        await self._gate.fail()
        self._failed.set()

    async def _cut_short(self, hurry: asyncio.Event) -> None:
        await first_of(hurry.wait(), self.failed())

    def _engine(self) -> Engine | None:
        loading = self._loading
        if loading is None or not loading.done() or loading.exception() is not None:
            return None
        return loading.result()

    async def _drain(self) -> None:
        if self._loading is not None:
            await asyncio.wait([self._loading])
        await self._gate.idle()
        if (engine := self._engine()) is not None:
            await engine.drain()


async def serve(
    settings: Settings,
    open_engine: OpenEngine,
    *,
    announce: Callable[[str], None] | None = None,
    end: ProcessEnd | None = None,
    observers: Sequence[CallObserver] = (),
) -> None:
    """Serve until SIGTERM or SIGINT, then drain and return; a second signal stops at once.

    `open_engine` blocks while it loads; it runs in a thread. `announce` (default: print) is given the line
    `listening on HOST:PORT` once jobs are welcome. `end` ends the process where threads that hang would keep
    it: within a second after a second signal, and `LATE_SECONDS` after the time for draining. The `observers`
    are told of every call.

    Raises:
        SettingsError: the port cannot be taken.
        EngineFailed: the engine could not go on.
        Exception: what `open_engine` raised, such as ModelError.

    """
    server = Server(settings, observers)
    drain = settings.drain_delay + settings.drain_timeout
    with stop_requests(end, drain + LATE_SECONDS) as stop:
        await server.start()
        try:
            logger.info("loading on %s", server.address)
            if await first_of(server.load(open_engine), stop.first.wait()):
                (announce or _print)(f"listening on {server.address}")
                await first_of(server.failed(), stop.first.wait())
        finally:
            logger.info("stopping")
            await server.stop(stop.second)
            await _calls_unwound()
        server.check()


async def _calls_unwound() -> None:
    """Return once the tasks of grpc's calls have ended, a moment after the server has stopped.

    An event loop that ends before cuts them, and grpc prints a traceback for each.
    """
    calls = [task for task in asyncio.all_tasks() if getattr(task.get_coro(), "__qualname__", "") == CALL]
    if calls:
        await asyncio.wait(calls, timeout=UNWIND_SECONDS)


def in_daemon_thread(function: OpenEngine) -> asyncio.Future[Engine]:
    """Run the function in a thread that an exit need not wait for, unlike an executor's."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Engine] = loop.create_future()

    def settle(engine: Engine | None, error: BaseException | None) -> None:
        if error is not None:
            future.set_exception(error)
        elif engine is not None:
            future.set_result(engine)

    def run() -> None:
        engine, failure = None, None
        try:
            engine = function()
        except BaseException as error:  # whatever it is, it is for the one who waits
            failure = error
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, engine, failure)

    threading.Thread(target=run, name="sdgrpc-open", daemon=True).start()
    return future


def _print(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - the one line on standard output that scripts wait for
