"""`health`: is a server ready? For people, and for container health checks that have no other tool."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sdgrpc.cli.failures import failures_as_lines
from sdgrpc.client import Client, Tls


def health(
    server: Annotated[str, typer.Option(metavar="HOST:PORT", envvar="SDGRPC_SERVER")] = "localhost:50051",
    wait: Annotated[float, typer.Option(metavar="SECONDS", help="How long it may take to get ready.")] = 2.0,
    tls: Annotated[bool, typer.Option("--tls", help="Connect with TLS.")] = False,
    tls_ca: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The authority to trust; implies --tls.")
    ] = None,
) -> None:
    """Say whether a server takes jobs: exit status 0 if it does, 1 if not."""
    trust = Tls(ca=tls_ca) if tls or tls_ca else None
    with failures_as_lines(server), Client(server, tls=trust) as client:
        client.wait_until_ready(wait)
        typer.echo("serving")
