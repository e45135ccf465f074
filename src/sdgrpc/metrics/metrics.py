"""A server's metrics: who counts them, and the port where they are read.

metrics = Metrics(["photo"])
with metrics.served("127.0.0.1:9464") as address: ...
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server

from sdgrpc.api.calls.call import CallObserver
from sdgrpc.domain import EngineStatus
from sdgrpc.engine.base import Engine
from sdgrpc.engine.observing.observer import Observer
from sdgrpc.errors import SettingsError
from sdgrpc.metrics.definitions import Definitions
from sdgrpc.metrics.names import BoundedNames
from sdgrpc.metrics.observers import CallMetrics, EngineMetrics
from sdgrpc.metrics.status import NOTHING, StatusCollector

logger = logging.getLogger(__name__)


class Metrics:
    """All numbers of one server with these `models`. Thread safe.

    Attributes:
        registry: what Prometheus reads.
        calls: is told of calls.
        jobs: is told of the engine's work.

    """

    def __init__(self, models: Iterable[str]) -> None:
        self.registry = CollectorRegistry()
        definitions = Definitions(self.registry, models)
        self.calls: CallObserver = CallMetrics(definitions)
        self.jobs: Observer = EngineMetrics(definitions, BoundedNames())
        self._engine: Engine | None = None
        self.registry.register(StatusCollector(self._status))

    def read_from(self, engine: Engine) -> None:
        """Read the status of an engine from now on; before, there is nothing."""
        self._engine = engine

    def _status(self) -> EngineStatus:
        return NOTHING if self._engine is None else self._engine.status()

    @contextmanager
    def served(self, address: str) -> Iterator[str]:
        """Answer on HOST:PORT by HTTP for the block, which is given the address that was taken.

        Raises:
            SettingsError: the port cannot be taken.

        """
        host, _, port = address.rpartition(":")
        try:
            server, thread = start_http_server(int(port), host.strip("[]"), self.registry)
        except OSError as error:
            raise SettingsError(f"metrics: cannot listen on {address} ({error.strerror or error})") from None
        taken = f"{host}:{server.server_port}"
        logger.info("metrics on http://%s/metrics", taken)
        try:
            yield taken
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
