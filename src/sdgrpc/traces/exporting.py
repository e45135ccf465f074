"""Where spans go: an OTLP receiver, by gRPC or HTTP, as the setting and OpenTelemetry's own variables say.

with exported("http://localhost:4317") as traces: ...
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

import sdgrpc
from sdgrpc.api.calls.call import CallObserver
from sdgrpc.engine.observing.observer import Observer
from sdgrpc.traces.calls import CallTraces
from sdgrpc.traces.jobs import EngineTraces

logger = logging.getLogger(__name__)

HTTP_PORT, HTTP_PATH = 4318, "/v1/traces"
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


@dataclass(frozen=True, slots=True)
class Traces:
    """Who is told of calls and of jobs, and makes spans of them."""

    calls: CallObserver
    jobs: Observer


@contextmanager
def exported(endpoint: str | None) -> Iterator[Traces]:
    """Send the spans of the block to an endpoint; None is the one that OpenTelemetry's variables name.

    The sampler, limits, headers and resource attributes are as these variables have them, too.
    """
    provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(_exporter(endpoint)))
    logger.info("traces to %s", endpoint or "where OTEL_EXPORTER_OTLP_ENDPOINT says")
    try:
        yield traces_of(provider)
    finally:
        provider.shutdown()


def traces_of(provider: TracerProvider) -> Traces:
    """Return who makes spans by a provider."""
    tracer = provider.get_tracer("sdgrpc", sdgrpc.__version__)
    calls = CallTraces(tracer)
    return Traces(calls, EngineTraces(tracer, calls))


def _exporter(endpoint: str | None) -> SpanExporter:
    if not _speaks_http(endpoint):
        return GrpcExporter(endpoint, insecure=None if endpoint is None else endpoint.startswith("http:"))
    if endpoint is not None and not urlsplit(endpoint).path.strip("/"):
        endpoint = endpoint.rstrip("/") + HTTP_PATH
    return HttpExporter(endpoint)


def _speaks_http(endpoint: str | None) -> bool:
    """Whether spans go by HTTP: as the variables say, else by the port that is HTTP's, or by a path."""
    if protocol := next(filter(None, map(os.environ.get, PROTOCOLS)), None):
        return protocol.startswith("http")
    where = urlsplit(endpoint or os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", ""))
    return where.port == HTTP_PORT or bool(where.path.strip("/"))


def _resource() -> Resource:
    attributes = {"service.version": sdgrpc.__version__, "service.instance.id": str(uuid.uuid4())}
    if not os.environ.get("OTEL_SERVICE_NAME") and "service.name=" not in os.environ.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    ):
        attributes["service.name"] = "sdgrpc"
    return Resource.create(attributes)
