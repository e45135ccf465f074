"""Listening: uvicorn, on loopback unless told otherwise."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from starlette.applications import Starlette

from sdgrpc.errors import SettingsError

GRACE_SECONDS = 5
HEADER_BYTES = 64 << 10


@dataclass(frozen=True)
class Listen:
    """Where to listen, and with which TLS files (PEM). `client_ca` asks callers for a certificate.

    Raises:
        SettingsError: HOST:PORT has no such form; other machines may reach it without TLS and `insecure`.

    """

    address: str = "127.0.0.1:8080"
    insecure: bool = False
    certificate: Path | None = None
    key: Path | None = None
    client_ca: Path | None = None

    def __post_init__(self) -> None:
        host, colon, port = self.address.rpartition(":")
        if not (colon and host and port.isdecimal() and int(port) <= 65535):
            raise SettingsError(f"listen: {self.address!r} is not HOST:PORT")
        if (self.certificate is None) != (self.key is None):
            raise SettingsError("the certificate and its key belong together; give both or none")
        if self.client_ca is not None and self.certificate is None:
            raise SettingsError("a client authority needs a certificate and its key")
        if not (self.is_local or self.insecure or self.certificate):
            raise SettingsError(
                f"listen: other machines may reach {self.address}, and there is no TLS; give a certificate "
                "and its key, or --insecure where something else protects it"
            )

    @property
    def host(self) -> str:
        """Without the brackets of an IPv6 address."""
        return self.address.rpartition(":")[0].strip("[]")

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def check_files(self) -> None:
        """Read the TLS files.

        Raises:
            SettingsError: one is missing or not what it should be, and which.

        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        for path in (self.certificate, self.key, self.client_ca):
            if path is not None and not path.is_file():
                raise SettingsError(f"{path} is no file")
        try:
            if self.certificate is not None:
                context.load_cert_chain(self.certificate, self.key)
        except (OSError, ValueError) as error:
            raise SettingsError(
                f"{self.certificate} and {self.key} are no certificate (PEM) and its key: {_reason(error)}"
            ) from None
        try:
            if self.client_ca is not None:
                context.load_verify_locations(self.client_ca)
        except (OSError, ValueError) as error:
            raise SettingsError(f"{self.client_ca} is no authority (PEM): {_reason(error)}") from None

    def bound(self) -> socket.socket:
        """Take the port.

        Raises:
            SettingsError: it is taken, or the host is none of this machine's.

        """
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        taken = socket.socket(family)
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind((self.host, int(self.address.rpartition(":")[2])))
        except OSError as error:
            taken.close()
            raise SettingsError(f"cannot listen on {self.address}: {error.strerror or error}") from None
        return taken


def serve(app: Starlette, listen: Listen, ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; `ready` is told the address.

    Raises:
        SettingsError: the port cannot be taken, or a TLS file not be used.

    """
    listen.check_files()
    bound = listen.bound()
    scheme = "https" if listen.certificate else "http"
    host = f"[{listen.host}]" if ":" in listen.host else listen.host
    address = f"{scheme}://{host}:{bound.getsockname()[1]}"
    server = _Server(config(app, listen), lambda: ready(address))
    asyncio.run(server.serve([bound]))


def config(app: Starlette, listen: Listen) -> uvicorn.Config:
    """Return uvicorn's settings."""
    return uvicorn.Config(
        app,
        access_log=False,
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
        h11_max_incomplete_event_size=HEADER_BYTES,
        ssl_certfile=listen.certificate,
        ssl_keyfile=listen.key,
        ssl_ca_certs=str(listen.client_ca) if listen.client_ca else None,
        ssl_cert_reqs=ssl.CERT_REQUIRED if listen.client_ca else ssl.CERT_NONE,
    )


def beside(app: Starlette, listen: Listen, ready: Callable[[], None]) -> uvicorn.Server:
    """Return a server for an event loop that is not its own; `ready` is called once it listens."""
    return _Server(config(app, listen), ready)


def _reason(error: Exception) -> str:
    """Return what OpenSSL or the system says, without where in its source."""
    if isinstance(error, ssl.SSLError):
        return (error.reason or "no PEM in it").replace("_", " ").lower().replace("pem", "PEM")
    return str(getattr(error, "strerror", None) or error)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready
        self._ending: list[Callable[[], None]] = config.app.state.ending  # type: ignore[union-attr]

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for tell in self._ending:
            tell()
        await super().shutdown(sockets)
