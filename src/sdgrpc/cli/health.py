"""`health`: is a server ready? For people, and for container health checks that have no other tool."""

from __future__ import annotations

from typing import Annotated

import typer

from sdgrpc.cli.served import Server, TlsCa, UseTls, connected


def health(
    server: Server = "localhost:50051",
    wait: Annotated[float, typer.Option(metavar="SECONDS", help="How long it may take to get ready.")] = 2.0,
    tls: UseTls = False,
    tls_ca: TlsCa = None,
) -> None:
    """Say whether a server takes jobs: exit status 0 if it does, 1 if not."""
    with connected(server, tls, tls_ca) as client:
        client.wait_until_ready(wait)
        typer.echo("serving")
