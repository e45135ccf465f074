"""A span for each call, which continues its caller's trace.

Attributes are a list here. Prompts, pictures, tokens and error messages, which may quote any of them, are
in none.
"""

from __future__ import annotations

from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, format_trace_id
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from sdgrpc.api.calls.call import Call
from sdgrpc.api.calls.log import QUIET
from sdgrpc.api.calls.methods import code_number
from sdgrpc.api.calls.trace_context import TRACEPARENT, text_headers
from sdgrpc.domain import Task

PROPAGATOR = TraceContextTextMapPropagator()
SERVER_FAULTS = frozenset(
    ("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS")
)
"""Codes with which a server's span is an error; others are the caller's doing.

Source: OpenTelemetry's conventions for gRPC, https://opentelemetry.io/docs/specs/semconv/rpc/grpc/.
"""


class CallTraces:
    """Begins and ends the spans. Implements `api.calls.call.CallObserver`; the event loop's alone.

    Health checks and reflection, which are asked again and again, have spans only within a caller's trace.
    """

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._spans: dict[int, Span] = {}

    def begin(self, call: Call) -> None:
        """See `CallObserver.begin`."""
        headers = text_headers(call.metadata)
        if call.method.startswith(QUIET) and TRACEPARENT not in headers:
            return
        span = self._tracer.start_span(
            call.method,
            PROPAGATOR.extract(headers, Context()),
            SpanKind.SERVER,
            attributes=_called(call.method),
        )
        if (context := span.get_span_context()).is_valid:
            call.trace_id = format_trace_id(context.trace_id)
        self._spans[id(call)] = span

    def end(self, call: Call) -> None:
        """See `CallObserver.end`."""
        span = self._spans.pop(id(call), None)
        if span is None:
            return
        span.set_attributes(_ended(call))
        if call.task is not None:
            span.set_attributes(_drawn(call.task))
        if call.code in SERVER_FAULTS:
            span.set_status(Status(StatusCode.ERROR))
        span.end()

    def span_of(self, call: Call) -> Span | None:
        """Return the span of a call that runs and is recorded."""
        span = self._spans.get(id(call))
        return span if span is not None and span.is_recording() else None


def _called(method: str) -> dict[str, AttributeValue]:
    service, _, name = method.rpartition("/")
    return {"rpc.system": "grpc", "rpc.service": service, "rpc.method": name}


def _ended(call: Call) -> dict[str, AttributeValue]:
    """What is known at the end; the log's line has the same words."""
    attributes: dict[str, AttributeValue] = {
        "rpc.grpc.status_code": code_number(call.code),
        "network.peer.address": call.peer,
        "sdgrpc.reason": call.reason,
        "sdgrpc.request_id": call.request_id,
        "sdgrpc.token": call.token,
        "sdgrpc.client": call.client,
        "sdgrpc.upload_bytes": call.upload_bytes or "",
        "sdgrpc.sent_seconds": call.sent_seconds or "",
    }
    return {name: value for name, value in attributes.items() if value != ""}


def _drawn(task: Task) -> dict[str, AttributeValue]:
    return {
        "sdgrpc.model": task.model,
        "sdgrpc.width": task.width,
        "sdgrpc.height": task.height,
        "sdgrpc.steps": task.step_count,
        "sdgrpc.images": task.sampling.image_count,
        "sdgrpc.loras": len(task.loras),
    }
