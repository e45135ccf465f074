"""`web`: the HTTP door in front of a running server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sdgrpc.cli.connection import ConnectionOptions
from sdgrpc.cli.failures import failures_as_lines
from sdgrpc.cli.grouped import takes
from sdgrpc.errors import SettingsError

if TYPE_CHECKING:
    from sdgrpc.web.guard import Callers
    from sdgrpc.web.serving import Listen

PANEL = "The door"


def _file(help_: str) -> typer.models.OptionInfo:
    found: typer.models.OptionInfo = typer.Option(metavar="FILE", help=help_, rich_help_panel=PANEL)
    return found


@takes(ConnectionOptions, name="connection")
def web(
    connection: ConnectionOptions,
    listen: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT", help="Where to listen; port 0 takes a free one.", rich_help_panel=PANEL
        ),
    ] = "127.0.0.1:8080",
    insecure: Annotated[
        bool,
        typer.Option("--insecure", help="Let other machines reach it without TLS.", rich_help_panel=PANEL),
    ] = False,
    listen_certificate: Annotated[Path | None, _file("Its certificate chain (PEM): HTTPS.")] = None,
    listen_key: Annotated[Path | None, _file("Its private key (PEM).")] = None,
    listen_client_ca: Annotated[
        Path | None, _file("Callers must show a certificate of this authority (PEM).")
    ] = None,
    host_name: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="A further name that it goes by; can be repeated.", rich_help_panel=PANEL
        ),
    ] = None,
    cors: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ORIGIN",
            help="Pages that may call, as https://example.org, or *; can be repeated. None by default.",
            rich_help_panel=PANEL,
        ),
    ] = None,
) -> None:
    """Serve a page to draw on and the OpenAI images API; see docs/page.md and docs/openai.md.

    A caller's bearer token is passed on to the server, which decides. --token is for callers without one, and
    only on loopback: whoever reaches the door would draw with it.
    """
    with failures_as_lines(connection.server), web_extra():
        from sdgrpc.client import AsyncClient
        from sdgrpc.web import build_app
        from sdgrpc.web.serving import Listen, serve

        place = Listen(listen, insecure, listen_certificate, listen_key, listen_client_ca)
        if connection.token and not place.is_local:
            raise SettingsError(
                f"token: other machines may reach {listen}, and would draw with it; let them show their own"
            )
        client = AsyncClient(connection.server, tls=connection.trust(), token=connection.token or None)
        app = build_app(client, callers_of(place, host_name or [], cors or []), page=True)
        serve(app, place, lambda address: typer.echo(f"listening on {address}"))


def callers_of(place: Listen, names: list[str], origins: list[str]) -> Callers:
    """Return who may call: a door on loopback goes by loopback's names alone, unless it is told others."""
    from sdgrpc.web.guard import LOOPBACK, Callers

    own = [*LOOPBACK, place.host] if place.is_local else [place.host]
    hosts = [name.lower() for name in (*own, *names)] if place.is_local or names else None
    return Callers(hosts, origins)


@contextmanager
def web_extra() -> Iterator[None]:
    """Say which extra to install where an import of the door's libraries fails."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "sdgrpc":
            raise
        raise SettingsError(
            f'{error.name} is missing; this command needs the web extra: pip install "sdgrpc[web]"'
        ) from None
