"""`loras list` and `loras inspect`: LoRA files without any server."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from sdgrpc.cli.as_json import AsJson, print_json
from sdgrpc.cli.failures import failures_as_lines, must_exist, server_extra
from sdgrpc.terminal.console import MIB, console
from sdgrpc.terminal.text import printable

if TYPE_CHECKING:
    from sdgrpc.domain import LoraModuleInfo
    from sdgrpc.lora.bases.target import Target
    from sdgrpc.lora.describing.inspect import Inspection
    from sdgrpc.lora.store.beside import Beside
    from sdgrpc.lora.store.library import LoraEntry

WORDS = 5  # trigger words in the table


def list_files(
    lora_dir: Annotated[
        list[Path] | None,
        typer.Option(metavar="FOLDER", help="As of `serve`; repeat it.", show_default="the embedded model's"),
    ] = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="The settings file of `serve`.")] = None,
    follow_links: Annotated[bool | None, typer.Option("--follow-links", help="As of `serve`.")] = None,
    names: Annotated[bool, typer.Option("--names", help="Only the names; opens no file.")] = False,
    model: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="A model in diffusers' layout: says which files fit it."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the LoRA files of a folder by the names that requests use, and what each is for."""
    with failures_as_lines(), server_extra():
        from sdgrpc.settings import Settings

        must_exist(model, folder=True)
        settings = Settings.load(config, lora_dir=lora_dir or None, follow_links=follow_links)
        folders = settings.lora_dirs

        from sdgrpc.lora.store.library import LoraLibrary

        library = LoraLibrary(folders, follow_links=settings.follow_links)
        entries = library.entries()
        if names:
            for entry in entries:
                typer.echo(printable(entry.name))
        elif as_json:
            target = read_model(model)
            print_json([_record(entry, library.beside(entry), target) for entry in entries])
        elif entries:
            found = [(entry, library.beside(entry)) for entry in entries]
            console().print(_file_table(found, read_model(model)))
        else:
            typer.echo(f"no LoRA files in {', '.join(map(str, folders))}")


def read_model(folder: Path | None) -> Target | None:
    """Read the names of a model and what it is; None for none."""
    from sdgrpc.lora.bases.target import Target

    return None if folder is None else Target.of_folder(folder)


def _file_table(entries: list[tuple[LoraEntry, Beside]], model: Target | None) -> Table:
    table = Table("name", "MiB", "base", "algorithms", "rank", "fits" if model else "", box=None)
    if strengths := any(beside.preferred_strength is not None for _, beside in entries):
        table.add_column("strength", justify="right")
    table.add_column("trigger words, or why it is refused")
    table.columns[0].no_wrap = True
    table.columns[1].justify = "right"
    for entry, beside in entries:
        *said, note = map(printable, _describe(entry, beside, model))
        preferred = "" if beside.preferred_strength is None else f"{beside.preferred_strength:g}"
        told = (*said, preferred, note) if strengths else (*said, note)
        table.add_row(printable(entry.name), f"{entry.size / MIB:.1f}", *told)
    return table


def _record(entry: LoraEntry, beside: Beside, model: Target | None) -> dict[str, object]:
    """What `ListLoras` says of a file, by its words; without the hash, for which the whole file is read."""
    from sdgrpc.lora.describing.metadata import joined_words
    from sdgrpc.lora.describing.summary import LoraSummary, summarize

    try:
        found = summarize(entry.path, entry.name, model=model)
    except OSError as error:
        found = LoraSummary(entry.name, "", entry.size, refusal=f"cannot be read: {error.strerror}")
    return {
        "name": entry.name,
        "size_bytes": entry.size,
        "base": found.base,
        "algorithms": found.algorithms,
        "rank_min": found.rank_min,
        "rank_max": found.rank_max,
        "trigger_words": joined_words(beside, found.trigger_words),
        "fits": not found.refusal,
        "refusal": found.refusal,
        "preferred_strength": beside.preferred_strength,
        "has_thumbnail": beside.picture is not None,
        "air": beside.air,
        "base_model": beside.base_model,
    }


def _describe(entry: LoraEntry, beside: Beside, model: Target | None) -> tuple[str, str, str, str, str]:
    """Return base, algorithms, ranks, whether it fits, and the trigger words or why it is refused."""
    from sdgrpc.lora.describing.metadata import joined_words
    from sdgrpc.lora.describing.summary import summarize

    try:
        found = summarize(entry.path, entry.name, model=model)
    except OSError as error:
        return "-", "-", "-", "", f"refused: cannot be read: {error.strerror}"
    ranks = sorted({rank for rank in (found.rank_min, found.rank_max) if rank})
    fits = ("yes" if found.fits else "no") if model else ""
    note = ", ".join(joined_words(beside, found.trigger_words)[:WORDS])
    if found.refusal:
        note = f"refused: {found.refusal.removeprefix(f'LoRA {entry.name!r}: ')}"
    algorithms = ", ".join(found.algorithms) or "-"
    return found.base if found.algorithms else "-", algorithms, "-".join(map(str, ranks)) or "-", fits, note


def inspect_file(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A safetensors file.")],
    as_json: AsJson = False,
) -> None:
    """Say what a LoRA file is for and what is in it; exits with 1 for one that would be refused."""
    with failures_as_lines(), server_extra():
        must_exist(file)
        from sdgrpc.lora.describing.inspect import inspect
        from sdgrpc.machine.workers import one_thread

        one_thread()
        found = inspect(file)
    if as_json:
        print_json(_as_json(found))
    else:
        console().print(_report_table(found))
    if found.refusal:
        typer.echo(f"error: {printable(found.refusal)}", err=True)
        raise typer.Exit(1)


def _as_json(found: Inspection) -> dict[str, Any]:
    """Return an inspection by the words of GetLora."""
    fields = asdict(found)
    unmatched = fields.pop("unmatched")
    return {
        "file": fields.pop("file"),
        "tensor_count": fields.pop("tensors"),
        "module_count": len(found.modules),
        "unmatched_tensors": len(unmatched),
        "unmatched_examples": unmatched,
        "fits": not found.refusal,
        **fields,
    }


def _report_table(found: Inspection) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("file", printable(found.file))
    table.add_row("sha256", found.sha256 or "- (refused by its header; the data were not read)")
    table.add_row("base", found.base)
    table.add_row("algorithms", ", ".join(found.algorithms))
    table.add_row("tensors", f"{found.tensors}, unmatched: {len(found.unmatched)}")
    for name, value in _told(found).items():
        if value:
            table.add_row(name, printable(value))
    for component, line in _components(found.modules).items():
        table.add_row(component, line)
    for number, warning in enumerate(found.warnings):
        table.add_row("" if number else "warnings", printable(warning))
    if found.metadata:
        table.add_row()
        table.add_row("metadata")
    for key, value in found.metadata.items():
        shown = printable(value if len(value) <= 80 else f"{value[:79]}…")
        table.add_row(Text(f"  {printable(key)}", "not bold"), shown)
    return table


def _told(found: Inspection) -> dict[str, str]:
    """Return what the file and those beside it say of its use."""
    preferred = found.preferred_strength
    return {
        "trigger words": ", ".join(found.trigger_words),
        "strength": "" if preferred is None else f"{preferred:g} is preferred",
        "trained on": found.base_model,
        "CivitAI": found.air,
        "picture": found.picture,
    }


def _components(modules: Sequence[LoraModuleInfo]) -> dict[str, str]:
    """Return a line for each component: how many modules, their ranks, and the norm of their change."""
    lines = {}
    for component in dict.fromkeys(module.component for module in modules):
        own = [module for module in modules if module.component == component]
        ranks = sorted({module.rank for module in own if module.rank is not None})
        norms = [module.delta_norm for module in own]
        known = [norm for norm in norms if norm is not None]
        norm = f"{math.hypot(*known):.3g}" if len(known) == len(norms) else "depends on the weights"
        shown = ", ".join(map(str, ranks))
        lines[component] = f"{len(own)} modules, rank {shown}, norm of the change {norm}"
    return lines
