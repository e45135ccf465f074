"""`status`, `loras served`, `loras upload` and `models served`: what a running server has."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from sdgrpc.cli.as_json import AsJson, print_json
from sdgrpc.cli.connection import LOADING, ConnectionOptions
from sdgrpc.cli.failures import must_exist
from sdgrpc.cli.grouped import takes
from sdgrpc.client import LoraFile, ReplicaStatus, ServerStatus, UnavailableError
from sdgrpc.terminal.console import MIB, console
from sdgrpc.terminal.text import printable


@takes(ConnectionOptions, name="connection")
def status(
    connection: ConnectionOptions,
    watch: Annotated[bool, typer.Option("--watch", help="Go on, with a line whenever it changes.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say how busy a server is and which LoRA sets it holds ready; `loading` while it is not."""
    with connection.connected() as client:
        reports = client.watch_status()
        try:
            first = next(reports)
        except UnavailableError as error:
            if error.reason != LOADING:
                raise
            if as_json:
                print_json({"state": "loading"})
            else:
                typer.echo("loading")
            return
        if as_json:
            print_json(_record(first), line=watch)
        else:
            typer.echo(_described(first))
        if watch:
            for report in reports:
                if as_json:
                    print_json(_record(report), line=True)
                else:
                    typer.echo(_line(report))


def _state(report: ServerStatus) -> str:
    return "ready" if report.ready else "loading"


def _record(report: ServerStatus) -> dict[str, Any]:
    return {"state": _state(report), **asdict(report)}


def _line(report: ServerStatus) -> str:
    return (
        f"{_state(report)}: {report.running} running, "
        f"{report.queued} of at most {report.queue_size} waiting, "
        f"{report.steps_per_second:.1f} steps/s, {report.rows_per_call:.1f} rows per call, "
        f"a job sent now waits about {report.estimated_wait_seconds:.1f} s, {report.jobs_finished} finished"
    )


def _described(report: ServerStatus) -> str:
    lines = [_line(report)]
    lines += map(_replica, report.replicas)
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


def _replica(one: ReplicaStatus) -> str:
    where = f", {printable(one.node)}, process {one.process_id}" if one.node else ""
    return (
        f"{printable(one.name)} ({one.state}{where}): {one.running} running, {one.queued} waiting, "
        f"{one.lora_sets} LoRA sets, {one.jobs_finished} finished"
    )


@takes(ConnectionOptions, name="connection")
def list_models(connection: ConnectionOptions, as_json: AsJson = False) -> None:
    """List the models that a running server offers; the first is its default."""
    with connection.connected() as client:
        models = client.list_models()
        if as_json:
            print_json(models)
            return
        strengths, upscalers = client.lora_strength_range(), client.list_upscalers()
    table = _table("name", "base", "inpainting", "size", "steps", "guidance", "dtype", "in memory", "autov2")
    for model in models:
        table.add_row(
            printable(model.name),
            model.base,
            "yes" if model.inpainting else "no",
            f"{model.width}x{model.height}",
            str(model.steps),
            f"{model.guidance_scale:g}",
            model.dtype,
            f"{model.size_bytes / MIB:.0f} MiB" if model.resident else "no",
            model.autov2 or "-",
        )
    console().print(table)
    typer.echo(f"LoRA strengths from {strengths.minimum:g} to {strengths.maximum:g}")
    for upscaler in upscalers:
        name, what = printable(upscaler.name), printable(upscaler.architecture)
        typer.echo(f"upscaler {name}: {upscaler.scale} times, {what}")


@takes(ConnectionOptions, name="connection")
def list_loras(
    connection: ConnectionOptions,
    model: Annotated[
        str, typer.Option(help="Which model they should fit.", show_default="the server's")
    ] = "",
    fitting: Annotated[bool, typer.Option("--fitting", help="Only those that fit the model.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the LoRA files that a running server offers."""
    with connection.connected() as client:
        files = list(client.list_loras(model=model, fitting_only=fitting))
    if as_json:
        print_json(files)
        return
    table = _table(
        *("name", "MiB", "base", "algorithms", "rank", "sha256", "autov3", "strength"),
        "trigger words, or why it is refused",
    )
    for file in files:
        table.add_row(*map(printable, _row(file)))
    console().print(table)


def _row(file: LoraFile) -> tuple[str, ...]:
    rank = f"{file.rank_min}-{file.rank_max}" if file.rank_min != file.rank_max else str(file.rank_max or "-")
    note = ", ".join(file.trigger_words) if file.fits else f"refused: {file.refusal}"
    size = f"{file.size_bytes / MIB:.1f}"
    algorithms = ", ".join(file.algorithms)
    preferred = "-" if file.preferred_strength is None else f"{file.preferred_strength:g}"
    hashes = file.sha256[:12], file.autov3 or "-"
    return file.name, size, file.base, algorithms, rank, *hashes, preferred, note


@takes(ConnectionOptions, name="connection")
def upload(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A safetensors file.")],
    connection: ConnectionOptions,
    name: Annotated[str, typer.Option(help="What to call it.", show_default="the file's own name")] = "",
    as_json: AsJson = False,
) -> None:
    """Bring a LoRA file to a running server that allows it; prints the name and hash to ask for."""
    with connection.connected() as client:
        must_exist(file)
        done = client.upload_lora(file, name=name)
    if as_json:
        print_json({"lora": done.file, "existed": done.existed})
    else:
        known = "  (it was there)" if done.existed else ""
        typer.echo(f"{printable(done.file.name)}  {done.file.sha256}{known}")


def _table(*columns: str) -> Table:
    table = Table(*columns, box=None)
    table.columns[0].no_wrap = True
    return table
