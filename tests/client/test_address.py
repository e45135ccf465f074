"""Where a server is, as people write it."""

from __future__ import annotations

import pytest

from sdgrpc.client import Client
from sdgrpc.client.address import Address


@pytest.mark.parametrize(
    ("text", "target", "tls"),
    [
        ("localhost", "localhost:50051", False),
        ("localhost:9", "localhost:9", False),
        (" 127.0.0.1 ", "127.0.0.1:50051", False),
        ("http://localhost", "localhost:50051", False),
        ("HTTP://draw.internal:80/", "draw.internal:80", False),
        ("https://draw.internal:443", "draw.internal:443", True),
        ("grpcs://draw.internal", "draw.internal:50051", True),
        ("::1", "[::1]:50051", False),
        ("[::1]", "[::1]:50051", False),
        ("[::1]:9", "[::1]:9", False),
        ("http://[fe80::1]:9", "[fe80::1]:9", False),
        ("unix:/run/sdgrpc.sock", "unix:/run/sdgrpc.sock", False),
        ("unix:///run/sdgrpc.sock", "unix:///run/sdgrpc.sock", False),
        ("dns:///draw.internal:9", "dns:///draw.internal:9", False),
        ("ipv4:10.0.0.1:9,10.0.0.2:9", "ipv4:10.0.0.1:9,10.0.0.2:9", False),
        ("dns:9", "dns:9", False),
    ],
)
def test_targets(text: str, target: str, tls: bool) -> None:
    """A port and a scheme need not be said; what grpc resolves by itself is left alone."""
    assert Address.parse(text) == Address(target, tls)


@pytest.mark.parametrize(
    "text", ["", " ", ":9", "host:port", "host:99999", "http://", "http://host/v1", "ftp://host"]
)
def test_what_is_no_target(text: str) -> None:
    """It is told before anything is sent, with the ways to write one."""
    with pytest.raises(ValueError, match="is not HOST, HOST:PORT or http://HOST:PORT"):
        Address.parse(text)


def test_a_client_takes_a_url(server) -> None:
    """As it is written in a browser or a configuration."""
    with Client(f"http://{server.target}/") as client:
        assert len(client.generate("a star").images()) == 1
