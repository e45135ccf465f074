"""Who watches a server as its settings ask for: metrics, traces."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from sdgrpc.api.calls.call import CallObserver
from sdgrpc.api.calls.notes import CallNotes
from sdgrpc.engine.base import Engine
from sdgrpc.engine.observing.observer import Observer
from sdgrpc.engine.observing.several import Observers
from sdgrpc.errors import SettingsError
from sdgrpc.settings import Settings

logger = logging.getLogger(__name__)

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
NEEDS_TELEMETRY = 'traces need what the server is not installed with: pip install "sdgrpc[server,telemetry]"'


@dataclass(frozen=True)
class Watch:
    """Who is told of calls and of jobs; `read_from` gives them the engine once there is one."""

    calls: Sequence[CallObserver]
    jobs: Observer
    read_from: Callable[[Engine], None]


@contextmanager
def watched(settings: Settings) -> Iterator[Watch]:
    """Watch for the block.

    Raises:
        SettingsError: the port for metrics cannot be taken, or there is no OpenTelemetry for traces.
        ModuleNotFoundError: what is asked for needs an extra that is not installed.

    """
    calls: list[CallObserver] = []
    jobs: list[Observer] = [CallNotes()]
    readers: list[Callable[[Engine], None]] = []
    with ExitStack() as stack:
        if settings.metrics is not None:
            from sdgrpc.metrics.metrics import Metrics

            metrics = Metrics(name for name, _ in settings.models)
            stack.enter_context(metrics.served(settings.metrics))
            calls.append(metrics.calls)
            jobs.append(metrics.jobs)
            readers.append(metrics.read_from)
        if wants_traces(settings):
            from sdgrpc.traces.exporting import exported

            traces = stack.enter_context(exported(settings.traces))
            calls.append(traces.calls)
            jobs.append(traces.jobs)

        def read_from(engine: Engine) -> None:
            for reader in readers:
                reader(engine)

        yield Watch(calls, Observers(jobs), read_from)


def wants_traces(settings: Settings) -> bool:
    """Whether spans are made: the setting says where to, or OpenTelemetry's own variables do.

    Raises:
        SettingsError: the setting asks for them, and the extra is not installed.

    """
    asked = settings.traces is not None
    switched_off = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if not asked and (switched_off or not any(map(os.environ.get, ENDPOINTS))):
        return False
    if importlib.util.find_spec("opentelemetry") and importlib.util.find_spec("opentelemetry.exporter"):
        return True
    if asked:
        raise SettingsError(NEEDS_TELEMETRY)
    logger.warning(NEEDS_TELEMETRY)
    return False
