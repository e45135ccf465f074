"""A real receiver of spans by OTLP over gRPC, which keeps what it is sent."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as service
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as service_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass
class Receiver(service_grpc.TraceServiceServicer):
    """The spans, and their senders' resource, by what came over the wire."""

    address: str = ""
    spans: list[Span] = field(default_factory=list)
    resource: dict[str, str] = field(default_factory=dict)
    text: str = ""
    _came: threading.Condition = field(default_factory=threading.Condition)

    def Export(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802 - gRPC's name
        """Keep what came."""
        del context
        with self._came:
            self.text += str(request)
            for resource in request.resource_spans:
                self.resource |= {one.key: one.value.string_value for one in resource.resource.attributes}
                for scope in resource.scope_spans:
                    self.spans.extend(scope.spans)
            self._came.notify_all()
        return service.ExportTraceServiceResponse()

    def until(self, *names: str) -> None:
        """Wait until spans of these names have come."""
        with self._came:
            assert self._came.wait_for(lambda: {span.name for span in self.spans} >= set(names), 60)

    def named(self, name: str) -> list[Span]:
        """The spans of a name, by their beginning."""
        return sorted(
            (span for span in self.spans if span.name == name), key=lambda one: one.start_time_unix_nano
        )

    def one(self, name: str) -> Span:
        """The only span of a name."""
        (span,) = self.named(name)
        return span


def attributes_of(span: Any) -> dict[str, Any]:
    """The attributes of a span or an event as Python has them."""
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


@contextmanager
def receiving() -> Iterator[Receiver]:
    """Receive on a free port for the block."""
    server = grpc.server(ThreadPoolExecutor(max_workers=2))
    receiver = Receiver()
    service_grpc.add_TraceServiceServicer_to_server(receiver, server)
    receiver.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield receiver
    finally:
        server.stop(None).wait()
