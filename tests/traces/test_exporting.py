"""Where spans go, by the setting and by OpenTelemetry's own variables."""

from __future__ import annotations

import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter

from sdgrpc.api.calls.call import Call
from sdgrpc.errors import SettingsError
from sdgrpc.traces.exporting import ENDPOINTS, PROTOCOLS, exported, exporter, span_limits

TRACES, ALL = ENDPOINTS
LIMITS = ("OTEL_SPAN_EVENT_COUNT_LIMIT", "OTEL_SPAN_LINK_COUNT_LIMIT")
GRPC, HTTP = GrpcExporter, HttpExporter


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of those that say where spans go."""
    for name in (*ENDPOINTS, *PROTOCOLS, *LIMITS, "OTEL_SDK_DISABLED"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("setting", "variables", "kind", "endpoint"),
    [
        ("http://c:4317", {}, GRPC, "c:4317"),
        ("http://c:4318", {}, HTTP, "http://c:4318/v1/traces"),
        ("http://c:9/v1/traces", {}, HTTP, "http://c:9/v1/traces"),
        ("http://[::1]:4318", {}, HTTP, "http://[::1]:4318/v1/traces"),
        ("http://c:4317", {TRACES: "http://d:4318/v1/traces"}, GRPC, "c:4317"),
        (None, {ALL: "localhost:4317"}, GRPC, "localhost:4317"),
        (None, {ALL: "http://c:4317"}, GRPC, "c:4317"),
        (None, {ALL: "http://c:4318"}, HTTP, "http://c:4318/v1/traces"),
        (None, {TRACES: "http://c:4318/v1/traces"}, HTTP, "http://c:4318/v1/traces"),
        (None, {TRACES: "http://c:4317", ALL: "http://d:4318"}, GRPC, "c:4317"),
        (None, {ALL: "http://c:9", PROTOCOLS[1]: "http/protobuf"}, HTTP, "http://c:9/v1/traces"),
        (None, {ALL: "http://c:4318", PROTOCOLS[0]: "grpc"}, GRPC, "c:4318"),
    ],
)
def test_where_spans_go(monkeypatch, setting, variables, kind, endpoint) -> None:
    """Setting before variables, that for traces before that for all, the protocol before the port."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    made = exporter(setting)
    assert type(made) is kind
    assert vars(made)["_endpoint"] == endpoint
    made.shutdown()


def test_a_variable_that_is_wrong_is_named(monkeypatch) -> None:
    """As an error of the settings, before the server starts."""
    for name, value in ((ALL, "http://c:nope"), (TRACES, "http://c:99999"), (LIMITS[0], "many")):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            with pytest.raises(SettingsError, match=name), exported(None):
                raise AssertionError("it was taken")


def test_limits_are_the_variables_where_they_are_set(monkeypatch) -> None:
    """Each by itself; there is none otherwise."""
    assert (span_limits().max_events, span_limits().max_links) == (None, None)
    monkeypatch.setenv(LIMITS[0], "5")
    assert (span_limits().max_events, span_limits().max_links) == (5, None)


def test_where_nothing_is_recorded_the_callers_trace_stays(monkeypatch) -> None:
    """A trace id of zeros is none: it does not take the place of the one that the log would name."""
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    call = Call("sdgrpc.v1.DiffusionService/Generate", trace_id="4bf92f3577b34da6a3ce929d0e0e4736")
    with exported("http://127.0.0.1:1") as traces:
        traces.calls.begin(call)
        traces.calls.end(call)
    assert call.trace_id == "4bf92f3577b34da6a3ce929d0e0e4736"
