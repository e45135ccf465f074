"""The trace that calls to a server take along."""

from __future__ import annotations

import subprocess
import sys

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import format_span_id, format_trace_id

from sdgrpc.client.trace_context import passing_on, trace_headers

GIVEN = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_the_current_span_is_passed_on() -> None:
    """OpenTelemetry's, in the spelling of Trace Context; outside of any there is nothing."""
    assert trace_headers() == ()
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("caller")
    with tracer.start_as_current_span("mine") as span:
        context = span.get_span_context()
        headers = dict(trace_headers())
    ids = f"00-{format_trace_id(context.trace_id)}-{format_span_id(context.span_id)}-"
    assert list(headers) == ["traceparent"]
    assert headers["traceparent"].startswith(ids)


@pytest.mark.parametrize("state", ["", "vendor=1"])
def test_what_is_given_goes_first(state: str) -> None:
    """A proxy says what its own caller said; other headers stay behind."""
    with passing_on({"traceparent": GIVEN, "tracestate": state, "cookie": "secret"}):
        headers = dict(trace_headers())
    assert headers == {"traceparent": GIVEN} | ({"tracestate": state} if state else {})
    assert trace_headers() == ()


def test_what_no_header_can_carry_stays_behind() -> None:
    """Control characters and letters beyond ASCII would end the call."""
    with passing_on({"traceparent": GIVEN, "baggage": "user=\u00e9", "tracestate": "a\n"}):
        assert dict(trace_headers()) == {"traceparent": GIVEN}


def test_nothing_is_imported_for_it() -> None:
    """A program that does not use OpenTelemetry does not load it with the client."""
    code = "import sys; from sdgrpc.client.trace_context import trace_headers; assert trace_headers() == ();"
    code += "assert not [name for name in sys.modules if name.startswith('opentelemetry')]"
    subprocess.run([sys.executable, "-c", code], check=True)
