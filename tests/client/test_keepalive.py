"""A server that vanishes without a word."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from sdgrpc import client as api
from sdgrpc.client.channel import channel_options
from sdgrpc.testing.server import draw_script, scripted_server


@contextlib.contextmanager
def vanishing(target: str, gone: threading.Event) -> Iterator[str]:
    """Pass one connection's bytes on until `gone`; then take them and be silent, as without power."""
    host, _, port = target.rpartition(":")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ends: list[socket.socket] = []

        def passing(source: socket.socket, sink: socket.socket) -> None:
            with contextlib.suppress(OSError):
                while data := source.recv(1 << 16):
                    if not gone.is_set():
                        sink.sendall(data)

        def accept() -> None:
            with contextlib.suppress(OSError):
                outside, _ = listener.accept()
                inside = socket.create_connection((host, int(port)))
                ends.extend((outside, inside))
                for pair in ((outside, inside), (inside, outside)):
                    threading.Thread(target=passing, args=pair, daemon=True).start()

        accepting = threading.Thread(target=accept, daemon=True)
        accepting.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        accepting.join(10)
        for end in ends:
            end.close()


def test_pings_are_sent_while_a_job_waits_and_between_calls() -> None:
    """Far less often than a server minds: it takes one every ten seconds."""
    options = dict(channel_options(None, ()))
    assert int(options["grpc.keepalive_time_ms"]) >= 20_000
    assert options["grpc.keepalive_permit_without_calls"] == 1
    assert options["grpc.http2.max_pings_without_data"] == 0


def test_a_server_that_vanished_is_noticed() -> None:
    """Whoever waits for an event that never comes is told, since pings are not answered."""
    gone = threading.Event()
    brisk = (("grpc.keepalive_time_ms", 300), ("grpc.keepalive_timeout_ms", 300))
    with (
        scripted_server(draw_script()) as server,
        vanishing(server.target, gone) as target,
        api.Client(target, options=brisk, resume_seconds=0) as client,
    ):
        assert client.generate("a star").images()
        gone.set()
        with pytest.raises(api.UnavailableError):
            client.generate("a star").images()
