"""From a start to a clean end: listen, load, serve, drain, stop.

with asyncio.Runner() as runner:
    runner.run(serve(settings, open_engine))
"""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from sdgrpc.api.catalog import CatalogServicer
from sdgrpc.api.gate import Gate
from sdgrpc.api.listener import Listener
from sdgrpc.api.servicer import DiffusionServicer
from sdgrpc.api.waiting import first_of
from sdgrpc.engine.base import Engine
from sdgrpc.settings import Settings

logger = logging.getLogger(__name__)

OpenEngine = Callable[[], Engine]

READY_POLL_SECONDS = 0.05
FLUSH_SECONDS = 0.5  # what is left after draining are the last bytes of streams


@dataclass(frozen=True)
class StopRequests:
    """Set by SIGTERM and SIGINT: `first` asks to drain, `second` to stop at once."""

    first: asyncio.Event = field(default_factory=asyncio.Event)
    second: asyncio.Event = field(default_factory=asyncio.Event)


class Server:
    """The service on a port. It owns the engine that it loads: `stop` closes it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._gate = Gate()
        self._servicer = DiffusionServicer(settings, self._gate)
        self._listener = Listener(settings, self._servicer, CatalogServicer(settings, self._gate))
        self._loading: asyncio.Future[Engine] | None = None

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

    async def load(self, open_engine: OpenEngine) -> None:
        """Run `open_engine` in a thread of its own, then serve its engine once it is ready.

        Raises:
            Exception: what `open_engine` raised.

        """
        self._loading = in_daemon_thread(open_engine)
        engine = await asyncio.shield(self._loading)
        while not engine.status().ready:  # noqa: ASYNC110 - an engine's readiness is a number, not an event
            await asyncio.sleep(READY_POLL_SECONDS)
        self._gate.open(engine)
        await self._listener.serving()

    async def stop(self, hurry: asyncio.Event | None = None) -> None:
        """Refuse new jobs, wait for the running ones up to `drain_timeout` or until `hurry` is set, and stop.

        Jobs that are still there after the timeout end with UNAVAILABLE (DRAINING).
        """
        hurry = hurry or asyncio.Event()
        self._gate.close()
        await self._listener.leaving()
        drained = await first_of(self._drain(), hurry.wait(), seconds=self._settings.drain_timeout)
        if not drained:
            logger.warning("stopping with jobs that have not ended")
        if hurry.is_set():
            await self._listener.stop(0)
        if (engine := self._engine()) is not None:
            await engine.close()
        await self._listener.stop(FLUSH_SECONDS)
        self._servicer.close()

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
    settings: Settings, open_engine: OpenEngine, *, announce: Callable[[str], None] | None = None
) -> None:
    """Serve until SIGTERM or SIGINT, then drain and return; a second signal stops at once.

    `open_engine` blocks while it loads; it runs in a thread. `announce` (default: print) is given the line
    `listening on HOST:PORT` once jobs are welcome.

    Raises:
        SettingsError: the port cannot be taken.
        Exception: what `open_engine` raised, such as ModelError.

    """
    server = Server(settings)
    with stop_requests() as stop:
        await server.start()
        try:
            logger.info("loading on %s", server.address)
            if await first_of(server.load(open_engine), stop.first.wait()):
                (announce or _print)(f"listening on {server.address}")
                await stop.first.wait()
        finally:
            logger.info("stopping")
            await server.stop(stop.second)


def configure_logging(level: str) -> None:
    """Write our lines at `level` and other libraries' warnings to standard error."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s %(message)s", level=logging.WARNING)
    logging.getLogger("sdgrpc").setLevel(level.upper())


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

    threading.Thread(target=run, name="sdgrpc-load", daemon=True).start()
    return future


@contextmanager
def stop_requests() -> Iterator[StopRequests]:
    """Catch SIGTERM and SIGINT; the third one has its usual effect."""
    loop, requests = asyncio.get_running_loop(), StopRequests()
    caught = (signal.SIGTERM, signal.SIGINT)

    def on_signal() -> None:
        if requests.first.is_set():
            requests.second.set()
            for number in caught:
                loop.remove_signal_handler(number)
        requests.first.set()

    for number in caught:
        loop.add_signal_handler(number, on_signal)
    try:
        yield requests
    finally:
        for number in caught:
            loop.remove_signal_handler(number)


def _print(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - the one line on standard output that scripts wait for
