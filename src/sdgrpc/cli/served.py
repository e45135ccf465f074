"""`status`, `loras served`, `loras upload` and `models served`: what a running server has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from sdgrpc.cli.failures import failures_as_lines
from sdgrpc.client import Client, LoraFile, ServerStatus, Tls
from sdgrpc.terminal.console import MIB, console
from sdgrpc.terminal.text import printable

Server = Annotated[str, typer.Option(metavar="HOST:PORT", envvar="SDGRPC_SERVER")]
UseTls = Annotated[bool, typer.Option("--tls", help="Connect with TLS.")]
TlsCa = Annotated[Path | None, typer.Option(metavar="FILE", help="The authority to trust; implies --tls.")]


@contextmanager
def connected(server: str, tls: bool, tls_ca: Path | None) -> Iterator[Client]:
    """A client, with failures as lines."""
    trust = Tls(ca=tls_ca) if tls or tls_ca else None
    with failures_as_lines(server), Client(server, tls=trust) as client:
        yield client


def status(
    server: Server = "localhost:50051",
    watch: Annotated[bool, typer.Option("--watch", help="Go on, with a line whenever it changes.")] = False,
    tls: UseTls = False,
    tls_ca: TlsCa = None,
) -> None:
    """Say how busy a server is and which LoRA sets it holds ready."""
    with connected(server, tls, tls_ca) as client:
        reports = client.watch_status()
        typer.echo(_described(next(reports)))
        if watch:
            for report in reports:
                typer.echo(_line(report))


def _line(report: ServerStatus) -> str:
    return (
        f"{'ready' if report.ready else 'not ready'}: {report.running} running, "
        f"{report.queued} of at most {report.queue_size} waiting, "
        f"{report.steps_per_second:.1f} steps/s, {report.rows_per_call:.1f} rows per call, "
        f"a job sent now waits about {report.estimated_wait_seconds:.1f} s, {report.jobs_finished} finished"
    )


def _described(report: ServerStatus) -> str:
    lines = [_line(report)]
    lines += [
        f"model {printable(name)}: {size / MIB:.0f} MiB" for name, size in report.resident_models.items()
    ]
    lines.append(
        f"{len(report.lora_sets)} LoRA sets: {report.lora_set_bytes / MIB:.0f} MiB, "
        f"at most {report.lora_set_budget_bytes / MIB:.0f} MiB per model"
    )
    for each in report.lora_sets:
        members = ", ".join(f"{lora.sha256[:12]}:{lora.strength:g}" for lora in each.loras)
        used = ", in use" if each.in_use else ""
        lines.append(f"  {each.lora_set_id[:12]} on {printable(each.model)}: {members}{used}")
    return "\n".join(lines)


def list_models(server: Server = "localhost:50051", tls: UseTls = False, tls_ca: TlsCa = None) -> None:
    """List the models that a running server offers; the first is its default."""
    table = _table("name", "base", "inpainting", "size", "steps", "guidance", "dtype", "in memory")
    with connected(server, tls, tls_ca) as client:
        for model in client.list_models():
            table.add_row(
                printable(model.name),
                model.base,
                "yes" if model.inpainting else "no",
                f"{model.width}x{model.height}",
                str(model.steps),
                f"{model.guidance_scale:g}",
                model.dtype,
                f"{model.size_bytes / MIB:.0f} MiB" if model.resident else "no",
            )
    console().print(table, markup=False)


def list_loras(
    server: Server = "localhost:50051",
    model: Annotated[
        str, typer.Option(help="Which model they should fit.", show_default="the server's")
    ] = "",
    fitting: Annotated[bool, typer.Option("--fitting", help="Only those that fit the model.")] = False,
    tls: UseTls = False,
    tls_ca: TlsCa = None,
) -> None:
    """List the LoRA files that a running server offers."""
    table = _table(
        "name", "MiB", "base", "algorithms", "rank", "sha256", "trigger words, or why it is refused"
    )
    with connected(server, tls, tls_ca) as client:
        for file in client.list_loras(model=model, fitting_only=fitting):
            table.add_row(*map(printable, _row(file)))
    console().print(table, markup=False)


def _row(file: LoraFile) -> tuple[str, ...]:
    rank = f"{file.rank_min}-{file.rank_max}" if file.rank_min != file.rank_max else str(file.rank_max or "-")
    note = ", ".join(file.trigger_words) if file.fits else f"refused: {file.refusal}"
    size = f"{file.size_bytes / MIB:.1f}"
    return file.name, size, file.base, ", ".join(file.algorithms), rank, file.sha256[:12], note


def upload(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A safetensors file.")],
    name: Annotated[str, typer.Option(help="What to call it.", show_default="the file's own name")] = "",
    server: Server = "localhost:50051",
    tls: UseTls = False,
    tls_ca: TlsCa = None,
) -> None:
    """Bring a LoRA file to a running server that allows it; prints the name and hash to ask for."""
    with connected(server, tls, tls_ca) as client:
        done = client.upload_lora(file, name=name)
        known = "  (it was there)" if done.existed else ""
        typer.echo(f"{printable(done.file.name)}  {done.file.sha256}{known}")


def _table(*columns: str) -> Table:
    table = Table(*columns, box=None)
    table.columns[0].no_wrap = True
    return table
