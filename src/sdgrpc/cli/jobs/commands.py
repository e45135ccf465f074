"""`jobs list`, `jobs attach` and `jobs cancel`: what `--keep` was sent with, found again."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from sdgrpc.cli.as_json import AsJson, print_json
from sdgrpc.cli.connection import ConnectionOptions
from sdgrpc.cli.failures import failures_as_lines
from sdgrpc.cli.grouped import takes
from sdgrpc.cli.output import OutputPattern, save
from sdgrpc.client import JobState, KeptJob
from sdgrpc.terminal.console import MIB, console, progress_console
from sdgrpc.terminal.text import printable
from sdgrpc.terminal.views import open_view, watch

RequestId = Annotated[str, typer.Argument(metavar="ID", help="As `--keep` or `jobs list` told it.")]


@takes(ConnectionOptions, name="connection")
def list_kept(connection: ConnectionOptions, as_json: AsJson = False) -> None:
    """List the jobs that a server keeps for you, the oldest first."""
    with connection.connected() as client:
        jobs = client.list_jobs()
    if as_json:
        print_json(jobs)
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("id", "call", "state", "steps", "pictures", "MiB", "forgotten"):
        table.add_column(heading, justify="right" if heading == "MiB" else "left")
    for job in jobs:
        table.add_row(*_row(job))
    console().print(table)


def _row(job: KeptJob) -> tuple[str, ...]:
    state = job.state.value
    if job.state is JobState.FAILED:
        state = f"failed: {job.failure_reason}"
    return (
        printable(job.request_id),
        job.method.lower(),
        state,
        f"{job.step} of {job.step_count}",
        f"{job.images_finished} of {job.image_count}",
        f"{job.size_bytes / MIB:.1f}",
        "" if job.expires is None else job.expires.astimezone().strftime("%H:%M:%S"),
    )


@takes(ConnectionOptions, name="connection")
def attach(
    request_id: RequestId,
    connection: ConnectionOptions,
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            help="File name; {seed} and {index} are filled in. `-` writes to standard output.",
        ),
    ] = "sdgrpc-{seed}.png",
    as_json: AsJson = False,
) -> None:
    """Wait for a job that is kept, show how far it is, and save its pictures."""
    with failures_as_lines(connection.server):
        pattern = OutputPattern(output, "")
        pattern.check(count=1, seed=None, as_json=as_json)
    with connection.connected() as client:
        view = open_view(progress_console(), printable(request_id))
        save(watch(client.attach(request_id), view), pattern, as_json=as_json)


@takes(ConnectionOptions, name="connection")
def cancel(request_id: RequestId, connection: ConnectionOptions, as_json: AsJson = False) -> None:
    """Cancel a job that is kept; one that has ended stays as it is."""
    with connection.connected() as client:
        before = client.cancel_job(request_id)
    if as_json:
        print_json(before)
    elif before.state in (JobState.QUEUED, JobState.RUNNING):
        typer.echo(f"cancelled {printable(request_id)} at step {before.step} of {before.step_count}")
    else:
        typer.echo(f"{printable(request_id)} was {before.state.value} already")
