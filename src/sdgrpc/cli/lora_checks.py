"""`loras verify` and `loras convert`: a folder's files judged, a pickle made readable."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from sdgrpc.cli.extras import server_extra
from sdgrpc.cli.failures import failures_as_lines
from sdgrpc.terminal.console import console
from sdgrpc.terminal.text import printable

if TYPE_CHECKING:
    from sdgrpc.lora.describing.verify import Row


def verify_folder(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Searched with its sub-folders.")],
    model: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="A model in diffusers' layout that the files are judged against.",
            show_default="each file's own base",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything, as JSON.")] = False,
) -> None:
    """Say of each LoRA file of a folder what it would change; exits with 1 if any would be refused."""
    with failures_as_lines(), server_extra():
        from sdgrpc.lora.describing.verify import Judge, verify
        from sdgrpc.machine.workers import one_thread

        if not folder.is_dir():
            raise NotADirectoryError(20, "is not a folder", str(folder))
        one_thread()
        rows = list(verify(folder, Judge.of_folder(model) if model else None))
    if as_json:
        typer.echo(json.dumps([row.as_dict() for row in rows], indent=2))
    elif rows:
        console().print(_table(rows), markup=False, highlight=False)
    else:
        typer.echo(f"no LoRA files in {folder}")
    if any(row.refusal for row in rows):
        raise typer.Exit(1)


def _table(rows: list[Row]) -> Table:
    table = Table("file", "base", "algorithms", "modules", "unmatched", "norm", "relative norm", box=None)
    table.add_column("refusal")
    table.columns[0].no_wrap = True
    for row in rows:
        norms = ["-" if norm is None else f"{norm:.3g}" for norm in (row.norm, row.relative_norm)]
        reason = row.refusal.removeprefix(f"LoRA {row.file!r}: ")
        cells = [row.file, row.base, ", ".join(row.algorithms) or "-", str(row.modules), str(row.unmatched)]
        table.add_row(*map(printable, [*cells, *norms, reason]))
    return table


def convert_file(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .pt, .bin or .ckpt file.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", show_default="beside FILE, as .safetensors"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Make a safetensors file of a pickled LoRA, without running any code that is in it."""
    with failures_as_lines(), server_extra():
        from sdgrpc.lora.describing.summary import summarize
        from sdgrpc.lora.files.convert import convert

        made = convert(file, output, overwrite=force)
        found = summarize(made.resolve(), made.name)
    algorithms = ", ".join(found.algorithms)
    told = f"{found.base}, {algorithms}, {found.modules} modules" if found.fits else found.refusal
    typer.echo(printable(f"{made}: {told}"))
