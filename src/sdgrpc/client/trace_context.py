"""The caller's trace, which calls to a server continue: W3C Trace Context.

Programs that use OpenTelemetry need do nothing: its current span is the calls' parent. Others, such as a
proxy that has a request's headers, say what to pass on:

    with passing_on({"traceparent": "00-..."}):
        client.generate("a red star").images()
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

NAMES = ("traceparent", "tracestate", "baggage")

_GIVEN: ContextVar[tuple[tuple[str, str], ...]] = ContextVar("_GIVEN", default=())


@contextmanager
def passing_on(headers: Mapping[str, str]) -> Iterator[None]:
    """Give the trace headers among these to the calls that are made in the block."""
    found = ((name, headers.get(name, "")) for name in NAMES)
    token = _GIVEN.set(tuple((name, value) for name, value in found if _sendable(value)))
    try:
        yield
    finally:
        _GIVEN.reset(token)


def trace_headers() -> tuple[tuple[str, str], ...]:
    """Return the metadata of a call that is made now; none outside of any trace.

    OpenTelemetry is not imported for it: where nobody has, there is no span.
    """
    given = _GIVEN.get()
    if given:
        return given
    propagate = sys.modules.get("opentelemetry.propagate")
    if propagate is None and "opentelemetry.trace" in sys.modules:
        from opentelemetry import propagate
    if propagate is None:
        return ()
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return tuple((name.lower(), value) for name, value in carrier.items() if _sendable(value))


def _sendable(value: str) -> bool:
    """Whether a header of gRPC can carry it."""
    return bool(value) and value.isascii() and value.isprintable()
