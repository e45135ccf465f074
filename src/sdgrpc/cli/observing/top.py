"""`top`: a running server's load in place, as it changes."""

from __future__ import annotations

import time
from collections.abc import Mapping

import typer
from rich.console import Console
from rich.live import Live

from sdgrpc.cli.connection import ConnectionOptions
from sdgrpc.cli.failures import is_interrupt
from sdgrpc.cli.grouped import takes
from sdgrpc.client import Client, ServerStatus, UnavailableError
from sdgrpc.terminal.load import Load

AGAIN_SECONDS = 1.0


@takes(ConnectionOptions, name="connection")
def top(connection: ConnectionOptions) -> None:
    """Watch how busy a server is, on one screen: jobs, queue, rows a call, LoRA sets. Ctrl-C ends it."""
    screen = Console(markup=False, highlight=False)
    if not screen.is_terminal:
        raise typer.BadParameter("needs a terminal; `sdgrpc status --watch` prints lines")
    with connection.connected() as client:
        load = Load(connection.server)
        try:
            with Live(load, console=screen, screen=True, refresh_per_second=4):
                follow(client, load)
        except BaseException as error:
            if not is_interrupt(error):
                raise


def follow(client: Client, load: Load) -> None:
    """Show every report, and go on where the server was away."""
    names = Names(client)
    while True:
        try:
            for report in client.watch_status():
                load.show(report, names.of(report))
            load.fail("the server ended the report")
        except UnavailableError as error:
            load.fail(error.message)
        time.sleep(AGAIN_SECONDS)


class Names:
    """What LoRA files are called, asked for again only where a set has a file that was not known."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._known: dict[str, str] = {}

    def of(self, report: ServerStatus) -> Mapping[str, str]:
        """Return the names by hash; a file that the catalog does not list has none."""
        asked = {lora.sha256 for one in report.lora_sets for lora in one.loras}
        if asked - self._known.keys():
            listed = {file.sha256: file.name for file in self._client.list_loras()}
            self._known = dict.fromkeys(asked, "") | listed
        return self._known
