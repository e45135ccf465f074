"""`cluster status`, `cluster drain` and `cluster scale`: the replicas behind a server."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from sdgrpc.cli.as_json import AsJson, print_json
from sdgrpc.cli.connection import ConnectionOptions
from sdgrpc.cli.grouped import takes
from sdgrpc.client import ReplicaStatus
from sdgrpc.terminal.console import MIB, console
from sdgrpc.terminal.text import printable

Name = Annotated[
    str,
    typer.Argument(metavar="NAME", help="A replica or a node, as `cluster status` has them."),
]
Range = Annotated[str, typer.Argument(metavar="N|MIN:MAX", help="How many; MIN:MAX follows the queue.")]


@takes(ConnectionOptions, name="connection")
def status(connection: ConnectionOptions, as_json: AsJson = False) -> None:
    """List the replicas that draw behind a server, and how busy each is."""
    with connection.connected() as client:
        replicas = next(client.watch_status()).replicas
    if as_json:
        print_json(replicas)
        return
    if not replicas:
        typer.echo("this server draws by itself")
        return
    table = Table(box=None, pad_edge=False)
    for heading in (
        "name",
        "state",
        "node",
        "process",
        "running",
        "waiting",
        "sets",
        "MiB",
        "steps/s",
        "finished",
    ):
        table.add_column(heading, justify="left" if heading in ("name", "state", "node") else "right")
    for one in replicas:
        table.add_row(*_row(one))
    console().print(table)


def _row(one: ReplicaStatus) -> tuple[str, ...]:
    numbers = (one.process_id or "", one.running, one.queued, one.lora_sets, one.lora_set_bytes // MIB)
    return (
        printable(one.name),
        one.state,
        printable(one.node),
        *map(str, numbers),
        f"{one.steps_per_second:.1f}",
        str(one.jobs_finished),
    )


@takes(ConnectionOptions, name="connection")
def drain(name: Name, connection: ConnectionOptions, as_json: AsJson = False) -> None:
    """Let a replica go, or all of a node: it finishes what it has begun, and what waits there moves."""
    with connection.connected() as client:
        leaving = client.drain_replicas(name)
    if as_json:
        print_json(leaving)
    else:
        typer.echo(f"{', '.join(map(printable, leaving))} leaves once its jobs have ended")


@takes(ConnectionOptions, name="connection")
def scale(replicas: Range, connection: ConnectionOptions, as_json: AsJson = False) -> None:
    """Have so many replicas from now on, until the server ends."""
    least, _, most = replicas.partition(":")
    if not (least.isdecimal() and (most or least).isdecimal()):
        raise typer.BadParameter(f"{replicas!r} is not N or MIN:MAX", param_hint="N|MIN:MAX")
    with connection.connected() as client:
        before = client.scale_replicas(int(least), int(most or least))
    if as_json:
        print_json({"before": before, "least": int(least), "most": int(most or least)})
    else:
        typer.echo(f"{replicas} replicas from now on; there were {before}")
