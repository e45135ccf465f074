"""Where a server is, as people write it."""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_PORT = 50051
_TLS = {"http": False, "grpc": False, "https": True, "grpcs": True}
_NAMERS = ("unix", "unix-abstract", "dns", "ipv4", "ipv6", "vsock", "xds")
"""Names that grpc resolves itself; what follows them is its to read."""


@dataclass(frozen=True, slots=True)
class Address:
    """A target as grpc takes it, and whether its scheme asks for TLS."""

    target: str
    tls: bool = False

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read `HOST`, `HOST:PORT`, `http://HOST:PORT`, `https://…`, or what grpc resolves: `unix:/path`.

        Without a port it is 50051; an IPv6 address stands in brackets where a port follows.

        >>> Address.parse("localhost").target
        'localhost:50051'
        >>> Address.parse("https://draw.internal:443/")
        Address(target='draw.internal:443', tls=True)

        Raises:
            ValueError: there is no host, the port is no number to 65535, or there is a path.

        """
        scheme, found, rest = text.strip().partition("://")
        if found and scheme.lower() in _TLS:
            return cls(_host_and_port(rest.removesuffix("/"), text), _TLS[scheme.lower()])
        if text.partition(":")[0] in _NAMERS and ":" in text and not _is_port(text.partition(":")[2]):
            return cls(text.strip())
        return cls(_host_and_port(text.strip(), text))


def _host_and_port(place: str, text: str) -> str:
    host, colon, port = place.rpartition(":")
    if not colon or place.endswith("]") or (":" in host and not host.startswith("[")):
        host, port = place, str(DEFAULT_PORT)
    if ":" in host and not host.startswith("["):
        host = f"[{host}]"
    if not host or "/" in place or not _is_port(port):
        raise ValueError(f"{text!r} is not HOST, HOST:PORT or http://HOST:PORT")
    return f"{host}:{port}"


def _is_port(text: str) -> bool:
    return text.isdecimal() and text.isascii() and int(text) <= 65535
