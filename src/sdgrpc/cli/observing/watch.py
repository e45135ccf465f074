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
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        if asked:
            logger.warning("no traces: OTEL_SDK_DISABLED switches them off, whatever the setting says")
        return False
    if not asked and not _variables_ask():
        return False
    if importlib.util.find_spec("opentelemetry") and importlib.util.find_spec("opentelemetry.exporter"):
        return True
    if asked:
        raise SettingsError(NEEDS_TELEMETRY)
    logger.warning(NEEDS_TELEMETRY)
    return False


def _variables_ask() -> bool:
    """Whether there is an endpoint, and the exporter that OpenTelemetry is told to take is OTLP's."""
    named = os.environ.get("OTEL_TRACES_EXPORTER", "").lower()
    exporters = {each.strip() for each in named.split(",")} - {""}
    return any(map(os.environ.get, ENDPOINTS)) and (not exporters or "otlp" in exporters)
