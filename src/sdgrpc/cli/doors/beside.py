"""`serve --web`: the HTTP door in the server's own process and event loop, as a caller like any other."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import typer

from sdgrpc.cli.doors.web import callers_of, web_extra
from sdgrpc.errors import SettingsError

if TYPE_CHECKING:
    import uvicorn

    from sdgrpc.settings import Settings
    from sdgrpc.web.serving import Listen


class BesideDoor:
    """A door before the server of this process, opened once jobs are welcome. None: there is no door.

    Raises:
        SettingsError: the port cannot be taken, or the server speaks TLS, which the door would need to trust.

    """

    def __init__(self, address: str | None, settings: Settings) -> None:
        self._place: Listen | None = None
        self._bound: socket.socket | None = None
        self._serving: asyncio.Task[None] | None = None
        self._uvicorn: uvicorn.Server | None = None
        if address is None:
            return
        if settings.tls_certificate is not None:
            raise SettingsError("web: the server has TLS; run `sdgrpc web` beside it, with --tls-ca")
        with web_extra():
            import sdgrpc.web.page  # noqa: F401 - takes seconds, in which the event loop would stand still
            from sdgrpc.web.serving import Listen

            self._place = Listen(address, insecure=True)  # which it is not, unless it is local
            if not self._place.is_local:
                raise SettingsError(f"web: {address} is not of this machine alone; run `sdgrpc web` with TLS")
            self._bound = self._place.bound()

    def opened(self, line: str) -> None:
        """Tell that the server listens, and open the door; called with `listening on ADDRESS`."""
        typer.echo(line)
        if self._place is not None:
            self._serving = asyncio.ensure_future(
                self._serve(self._place, line.removeprefix("listening on "))
            )

    async def _serve(self, place: Listen, target: str) -> None:
        with web_extra():
            from sdgrpc.client import AsyncClient
            from sdgrpc.web import build_app
            from sdgrpc.web.serving import beside

            app = build_app(AsyncClient(target), callers_of(place, [], []), page=True)
        assert self._bound is not None  # noqa: S101 - of the same address
        port = self._bound.getsockname()[1]
        host = f"[{place.host}]" if ":" in place.host else place.host
        self._uvicorn = beside(app, place, lambda: typer.echo(f"draw on http://{host}:{port}"))
        # Not `serve`, which would take the signals that the server listens for.
        await self._uvicorn._serve([self._bound])

    async def close(self) -> None:
        """Close it at once: the server behind it has ended, and with it every job."""
        if self._uvicorn is not None and self._serving is not None:
            self._uvicorn.should_exit = True
            await asyncio.gather(self._serving, return_exceptions=True)
        elif self._bound is not None:
            self._bound.close()
