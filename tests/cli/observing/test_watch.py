"""Who watches a server: as its settings and OpenTelemetry's variables ask."""

from __future__ import annotations

import importlib.util
import signal
import socket
import time
from pathlib import Path

import pytest

from sdgrpc.cli.observing.watch import wants_traces
from sdgrpc.client import Client
from sdgrpc.errors import SettingsError
from tests.support.api import make_settings
from tests.support.server import running_server

HERE = "http://127.0.0.1:4317"


@pytest.mark.parametrize(
    ("setting", "variables", "wanted"),
    [
        (None, {}, False),
        (HERE, {}, True),
        (None, {"OTEL_EXPORTER_OTLP_ENDPOINT": HERE}, True),
        (None, {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": HERE}, True),
        (None, {"OTEL_EXPORTER_OTLP_ENDPOINT": HERE, "OTEL_SDK_DISABLED": "true"}, False),
    ],
)
def test_who_asks_for_traces(monkeypatch, setting, variables, wanted) -> None:
    """The setting, or the variables that every OpenTelemetry program obeys."""
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_SDK_DISABLED"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert wants_traces(make_settings(traces=setting)) is wanted


def test_without_the_extra(monkeypatch, caplog) -> None:
    """Asked for, it is an error that says what to install; of the variables alone, a warning."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(SettingsError, match="telemetry"):
        wants_traces(make_settings(traces=HERE))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", HERE)
    assert not wants_traces(make_settings())
    assert "telemetry" in caplog.text


@pytest.mark.parametrize("scheme", ["http", "http-path"])
def test_a_receiver_that_is_not_there_holds_up_nothing(tmp_path: Path, scheme: str) -> None:
    """Neither by gRPC nor by HTTP: the server draws, says so in its log and ends at once."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{closed.getsockname()[1]}" + ("/v1/traces" if scheme != "http" else "")
        with running_server(tmp_path / "log", "--traces", endpoint) as server:
            with Client(server.target) as client:
                assert client.generate("a star", steps=2).images()
            began = time.monotonic()
            server.signal(signal.SIGTERM)
            assert server.wait() == 0
            assert time.monotonic() - began < 20, "drained, not waiting for a receiver"
