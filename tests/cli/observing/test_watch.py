"""Who watches a server: as its settings and OpenTelemetry's variables ask."""

from __future__ import annotations

import importlib.util
import signal
import socket
import time
from pathlib import Path

import pytest

from sdgrpc.cli.observing.watch import ENDPOINTS, wants_traces
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
        (HERE, {"OTEL_SDK_DISABLED": "true"}, False),
        (None, {"OTEL_EXPORTER_OTLP_ENDPOINT": HERE, "OTEL_TRACES_EXPORTER": "none"}, False),
        (None, {"OTEL_EXPORTER_OTLP_ENDPOINT": HERE, "OTEL_TRACES_EXPORTER": "console"}, False),
        (None, {"OTEL_EXPORTER_OTLP_ENDPOINT": HERE, "OTEL_TRACES_EXPORTER": "console, OTLP"}, True),
        (HERE, {"OTEL_TRACES_EXPORTER": "none"}, True),
    ],
)
def test_who_asks_for_traces(monkeypatch, setting, variables, wanted) -> None:
    """The setting, or the variables that every OpenTelemetry program obeys."""
    for name in (*ENDPOINTS, "OTEL_SDK_DISABLED", "OTEL_TRACES_EXPORTER"):
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


@pytest.mark.parametrize("path", ["", pytest.param("/v1/traces", marks=pytest.mark.slow)])
def test_a_receiver_that_does_not_answer_keeps_no_server(tmp_path: Path, path: str) -> None:
    """It takes connections and is silent: the server stops as asked, and says which spans are lost."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}{path}"
        with running_server(tmp_path / "log", "--traces", endpoint, "--drain-timeout", "1") as server:
            with Client(server.target) as client:
                assert client.generate("a star", steps=2).images()
            server.signal(signal.SIGTERM)
            assert server.wait() == 0
            assert "the last spans" in server.log.read_text()


@pytest.mark.parametrize(
    "url", ["http://c:nope", "http://c:99999", "http://c:0", "c:4317", "http://me@c:4317"]
)
def test_addresses_of_receivers_are_checked(url: str) -> None:
    """With the setting's name."""
    with pytest.raises(SettingsError, match="traces: is not http"):
        make_settings(traces=url)
