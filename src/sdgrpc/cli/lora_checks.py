"""`loras verify` and `loras convert`: a folder's files judged, a pickle made readable."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from sdgrpc.cli.as_json import AsJson, print_json
from sdgrpc.cli.failures import failures_as_lines, must_exist, server_extra
from sdgrpc.terminal.console import console
from sdgrpc.terminal.text import printable

if TYPE_CHECKING:
    from sdgrpc.lora.describing.summary import LoraSummary
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
    follow_links: Annotated[
        bool, typer.Option("--follow-links", help="Take what links lead to outside of the folder.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say of each LoRA file of a folder what it would change; exits with 1 if any would be refused."""
    with failures_as_lines(), server_extra():
        must_exist(folder, folder=True)
        must_exist(model, folder=True)
        from sdgrpc.lora.describing.verify import Judge, verify
        from sdgrpc.machine.workers import one_thread

        one_thread()
        judge = Judge.of_folder(model) if model else None
        rows = list(verify(folder, judge, follow_links=follow_links))
    if as_json:
        print_json([_record(row) for row in rows])
    elif rows:
        console().print(_table(rows))
    else:
        typer.echo(f"no LoRA files in {folder}")
    for row in rows if not as_json else ():
        for warning in row.warnings:
            typer.echo(printable(f"{row.file}: {warning}"))
    if any(row.refusal for row in rows):
        raise typer.Exit(1)


def _record(row: Row) -> dict[str, object]:
    """A row by the contract's words."""
    return {
        "file": row.file,
        "base": row.base,
        "algorithms": row.algorithms,
        "module_count": row.modules,
        "unmatched_tensors": row.unmatched,
        "delta_norm": row.norm,
        "relative_delta_norm": row.relative_norm,
        "fits": not row.refusal,
        "refusal": row.refusal,
        "warnings": row.warnings,
    }


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
    as_json: AsJson = False,
) -> None:
    """Make a safetensors file of a pickled LoRA, without running any code that is in it.

    A file that holds no LoRA leaves nothing, and the exit status is 1.
    """
    target = output or file.with_suffix(".safetensors")
    with failures_as_lines(), server_extra():
        must_exist(file)
        must_exist(target.parent, folder=True)
        if target.exists() and not force:
            raise FileExistsError(17, "is there already; --force replaces it", str(target))
        found = _converted(file, target)
    if as_json:
        print_json({"file": target, **_summary(found)})
    else:
        told = f"{found.base}, {', '.join(found.algorithms)}, {found.modules} modules"
        typer.echo(printable(f"{target}: {told if found.fits else found.refusal}"))


def _converted(file: Path, target: Path) -> LoraSummary:
    """Convert beside the target, look at what came out, and put it there only if it is a LoRA."""
    from sdgrpc.errors import LoraUnsupported
    from sdgrpc.lora.describing.summary import summarize
    from sdgrpc.lora.files.convert import convert

    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".sdgrpc-convert-") as folder:
        made = convert(file, Path(folder) / target.name)
        found = summarize(made.resolve(), target.name)
        if not found.algorithms:
            reason = found.refusal.removeprefix(f"LoRA {target.name!r}: ")
            raise LoraUnsupported(file.name, f"holds no LoRA, and nothing was written: {reason}")
        made.replace(target)
    return found


def _summary(found: LoraSummary) -> dict[str, object]:
    return {
        "base": found.base,
        "algorithms": found.algorithms,
        "module_count": found.modules,
        "fits": found.fits,
        "refusal": found.refusal,
    }
