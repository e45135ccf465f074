"""Where spans go: an OTLP receiver, by gRPC or HTTP, as the setting and OpenTelemetry's own variables say.

with exported("http://localhost:4317") as traces: ...
"""

from __future__ import annotations

import logging
import os
import threading
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

import sdgrpc
from sdgrpc.api.calls.call import CallObserver
from sdgrpc.engine.observing.observer import Observer
from sdgrpc.errors import SettingsError
from sdgrpc.traces.calls import CallTraces
from sdgrpc.traces.jobs import EngineTraces

logger = logging.getLogger(__name__)

HTTP_PORT, HTTP_PATH = 4318, "/v1/traces"
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
MOST_EVENTS, MOST_LINKS = "OTEL_SPAN_EVENT_COUNT_LIMIT", "OTEL_SPAN_LINK_COUNT_LIMIT"
LAST_SECONDS = 2.0  # for the last spans: less than a server has between draining and its end


@dataclass(frozen=True, slots=True)
class Traces:
    """Who is told of calls and of jobs, and makes spans of them."""

    calls: CallObserver
    jobs: Observer


@contextmanager
def exported(endpoint: str | None) -> Iterator[Traces]:
    """Send the spans of the block to an endpoint; None is the one that OpenTelemetry's variables name.

    The sampler, limits, headers and resource attributes are as these variables have them, too.

    Raises:
        SettingsError: a variable does not say what it should.

    """
    try:
        provider = TracerProvider(resource=_resource(), shutdown_on_exit=False, span_limits=span_limits())
        provider.add_span_processor(BatchSpanProcessor(exporter(endpoint)))
    except ValueError as error:
        raise SettingsError(f"traces: {error}") from None
    logger.info("traces to %s", endpoint or f"where {_named(ENDPOINTS) or ENDPOINTS[-1]} says")
    try:
        yield traces_of(provider)
    finally:
        _end(provider)


def _end(provider: TracerProvider) -> None:
    """Send the last spans; a receiver that takes long must not hold up the process's end."""
    ending = threading.Thread(target=provider.shutdown, name="sdgrpc-last-spans", daemon=True)
    ending.start()
    ending.join(LAST_SECONDS)
    if ending.is_alive():
        logger.warning(
            "traces: the receiver did not take the last spans in %g s; they are lost", LAST_SECONDS
        )


def span_limits() -> SpanLimits:
    """Return limits with room for each step and UNet call, of which a request has a bounded number.

    OpenTelemetry keeps the latest 128 unless a variable says otherwise, and long jobs have more.
    """
    unbounded = SpanLimits.UNSET
    return SpanLimits(
        max_events=None if MOST_EVENTS in os.environ else unbounded,
        max_links=None if MOST_LINKS in os.environ else unbounded,
    )


def traces_of(provider: TracerProvider) -> Traces:
    """Return who makes spans by a provider."""
    tracer = provider.get_tracer("sdgrpc", sdgrpc.__version__)
    calls = CallTraces(tracer)
    return Traces(calls, EngineTraces(tracer, calls))


def exporter(endpoint: str | None) -> SpanExporter:
    """Return what sends spans to an endpoint, or to where the variables say.

    Raises:
        ValueError: there is no such port, or a variable has no such value.

    """
    if not _speaks_http(endpoint):
        return GrpcExporter(endpoint, insecure=None if endpoint is None else endpoint.startswith("http:"))
    if endpoint is not None and not urlsplit(endpoint).path.strip("/"):
        endpoint = endpoint.rstrip("/") + HTTP_PATH
    return HttpExporter(endpoint)


def _speaks_http(endpoint: str | None) -> bool:
    """Whether spans go by HTTP: as the variables say, else by the port that is HTTP's, or by a path.

    An address without a scheme is gRPC's alone.
    """
    named = _named(ENDPOINTS) if endpoint is None else ""
    where = urlsplit(endpoint or os.environ.get(named, ""))
    try:
        port = where.port if where.netloc else None
    except ValueError:
        raise ValueError(f"{named or 'the address'} has no port from 1 to 65535") from None
    if protocol := os.environ.get(_named(PROTOCOLS)):
        return protocol.startswith("http")
    return port == HTTP_PORT or bool(where.netloc and where.path.strip("/"))


def _named(variables: Iterable[str]) -> str:
    """The first of the variables that is set; nothing where none is."""
    return next(filter(os.environ.get, variables), "")


def _resource() -> Resource:
    attributes = {"service.version": sdgrpc.__version__, "service.instance.id": str(uuid.uuid4())}
    if not os.environ.get("OTEL_SERVICE_NAME") and "service.name=" not in os.environ.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    ):
        attributes["service.name"] = "sdgrpc"
    return Resource.create(attributes)
