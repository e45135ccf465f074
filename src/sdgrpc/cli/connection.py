"""How every command reaches a running server."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from sdgrpc.cli.failures import failures_as_lines
from sdgrpc.client import Client, Tls, UnavailableError

_T = TypeVar("_T")

LOADING = "LOADING"
PANEL = "Connection"
RETRY_SECONDS = 1.0


def _option(help_: str, metavar: str | None = None, variable: str | None = None) -> typer.models.OptionInfo:
    found: typer.models.OptionInfo = typer.Option(
        help=help_, metavar=metavar, envvar=variable, rich_help_panel=PANEL
    )
    return found


@dataclass(frozen=True)
class ConnectionOptions:
    """Where the server is, and as whom to connect."""

    server: Annotated[
        str, _option("HOST, HOST:PORT, http://… or https://…; the port is 50051.", "TARGET", "SDGRPC_SERVER")
    ] = "localhost:50051"
    token: Annotated[
        str, _option("For a server that asks for one; safer in the environment.", "TOKEN", "SDGRPC_TOKEN")
    ] = ""
    tls: Annotated[bool, typer.Option("--tls", help="Connect with TLS.", rich_help_panel=PANEL)] = False
    tls_ca: Annotated[
        Path | None, _option("The authority (PEM) to trust; implies --tls.", "FILE", "SDGRPC_CA")
    ] = None
    tls_certificate: Annotated[
        Path | None,
        _option(
            "This client's certificate (PEM), for a server that asks for one.",
            "FILE",
            "SDGRPC_CLIENT_CERTIFICATE",
        ),
    ] = None
    tls_key: Annotated[Path | None, _option("Its private key (PEM).", "FILE", "SDGRPC_CLIENT_KEY")] = None
    tls_server_name: Annotated[
        str, _option("The name in the server's certificate, where it is not the target's.", "NAME")
    ] = ""

    def trust(self) -> Tls | None:
        """TLS as the options ask for it; any of them turns it on."""
        if not (self.tls or self.tls_ca or self.tls_certificate or self.tls_key or self.tls_server_name):
            return None
        return Tls(self.tls_ca, self.tls_certificate, self.tls_key, self.tls_server_name)

    @contextmanager
    def connected(self) -> Iterator[Client]:
        """A client for the block, whose failures end the command as lines."""
        with (
            failures_as_lines(self.server),
            Client(self.server, tls=self.trust(), token=self.token or None) as client,
        ):
            yield client


def once_loaded(call: Callable[[], _T], seconds: float) -> _T:
    """Call, and again as the server says while it is loading, for at most `seconds`.

    Raises:
        UnavailableError: it is still loading then.

    """
    deadline, told = time.monotonic() + seconds, False
    while True:
        try:
            return call()
        except UnavailableError as error:
            wait = error.retry_after or RETRY_SECONDS
            if error.reason != LOADING or time.monotonic() + wait > deadline:
                raise
            if not told:
                typer.echo("the server is loading its model; waiting", err=True)
                told = True
            time.sleep(wait)
