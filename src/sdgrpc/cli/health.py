"""`health`: is a server ready? For people, and for container health checks that have no other tool."""

from __future__ import annotations

import os
import socket
import ssl
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sdgrpc.cli.as_json import AsJson, print_json
from sdgrpc.cli.connection import LOADING, ConnectionOptions
from sdgrpc.cli.failures import failures_as_lines
from sdgrpc.cli.grouped import takes
from sdgrpc.client import UnavailableError

if TYPE_CHECKING:
    from sdgrpc.settings import Settings

EVERYWHERE = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 - to connect to, not to listen on
HANDSHAKE_SECONDS = 2.0


@takes(ConnectionOptions, name="connection")
def health(
    connection: ConnectionOptions,
    wait: Annotated[float, typer.Option(metavar="SECONDS", help="How long it may take to get ready.")] = 2.0,
    as_json: AsJson = False,
) -> None:
    """Say whether a server takes jobs: exit status 0 if it does, 1 if not.

    Without --server it is the one that `serve` would start here: port and TLS are those of the environment
    (SDGRPC_LISTEN, SDGRPC_TLS_CERTIFICATE …) and of the file that SDGRPC_CONFIG names. No token is needed.
    """
    with failures_as_lines():
        found = own_server(connection)
    with found.connected() as client:
        try:
            client.wait_until_ready(wait)
        except UnavailableError as error:
            if as_json:
                print_json({"state": "loading" if error.reason == LOADING else "unreachable"})
            raise
        if as_json:
            print_json({"state": "serving"})
        else:
            typer.echo("serving")


def own_server(connection: ConnectionOptions) -> ConnectionOptions:
    """Return where the server of this environment is, unless another is named.

    Raises:
        SettingsError: the environment's settings are wrong; the server would not start with them either.
        OSError: nobody answers the handshake from which the certificate's name is read.

    """
    if connection.server != ConnectionOptions.server:
        return connection
    try:
        from sdgrpc.settings import Settings
    except ModuleNotFoundError:  # a client alone: there is no server here whose settings could count
        return connection
    config = os.environ.get("SDGRPC_CONFIG")
    settings = Settings.load(Path(config) if config else None)
    listen = settings.listen
    if not listen.startswith("unix:"):
        listen = f"{EVERYWHERE.get(settings.host, settings.host)}:{listen.rpartition(':')[2]}"
    return _with_tls(replace(connection, server=listen), settings)


def _with_tls(connection: ConnectionOptions, settings: Settings) -> ConnectionOptions:
    """Trust the server's own certificate, by the name in it, and show it where one is asked for."""
    if settings.tls_certificate is None or connection.tls_ca:
        return connection
    connection = replace(connection, tls_ca=settings.tls_certificate)
    if settings.tls_client_ca and not connection.tls_certificate:
        connection = replace(connection, tls_certificate=settings.tls_certificate, tls_key=settings.tls_key)
    if connection.tls_server_name:
        return connection
    return replace(connection, tls_server_name=_certified_name(connection))


def _certified_name(connection: ConnectionOptions) -> str:
    """The name in the certificate that the server shows, which must be the one that it was given."""
    context = ssl.create_default_context(cafile=connection.tls_ca)
    context.check_hostname = False  # it is this name that is asked for
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.set_alpn_protocols(["h2"])
    if connection.tls_certificate and connection.tls_key:
        context.load_cert_chain(connection.tls_certificate, connection.tls_key)
    host, _, port = connection.server.rpartition(":")
    with (
        socket.create_connection((host.strip("[]"), int(port)), HANDSHAKE_SECONDS) as raw,
        context.wrap_socket(raw) as shaken,
    ):
        shown = shaken.getpeercert() or {}
    names = [str(one[1]) for one in shown.get("subjectAltName", ()) if one[0] in ("DNS", "IP Address")]
    return names[0].replace("*", "health") if names else ""
