"""`embeddings list` and `embeddings served`: textual inversions, of a folder or of a running server."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from sdgrpc.cli.as_json import AsJson, print_json
from sdgrpc.cli.connection import ConnectionOptions
from sdgrpc.cli.failures import failures_as_lines, must_exist, server_extra
from sdgrpc.cli.grouped import takes
from sdgrpc.cli.loras import read_model
from sdgrpc.terminal.console import console
from sdgrpc.terminal.text import printable

Row = tuple[str, str, int, str, str]
"""Name, base, vectors, SHA-256, and why it cannot be used."""


def list_files(
    embedding_dir: Annotated[
        list[Path] | None,
        typer.Option(metavar="FOLDER", help="As of `serve`; repeat it.", show_default="none"),
    ] = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="The settings file of `serve`.")] = None,
    model: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="A model in diffusers' layout: says which files fit it."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the textual inversions of a folder: the words that they are in prompts, and what each is for."""
    with failures_as_lines(), server_extra():
        from sdgrpc.settings import Settings

        must_exist(model, folder=True)
        settings = Settings.load(config, embedding_dir=embedding_dir or None)

        from sdgrpc.lora.embeddings.library import EmbeddingLibrary

        target = read_model(model)
        widths = None if target is None else target.names.token_widths
        library = EmbeddingLibrary(settings.embedding_dir or (), follow_links=settings.follow_links)
        found = library.listed(widths)
    if as_json:
        print_json([_record(one) for one in found])
    else:
        _show((one.name, one.base, one.vectors, one.sha256, one.refusal) for one in found)


@takes(ConnectionOptions, name="connection")
def list_served(
    connection: ConnectionOptions,
    model: Annotated[str, typer.Option(help="Judge them against this model.", show_default=False)] = "",
    as_json: AsJson = False,
) -> None:
    """List the textual inversions of a running server."""
    with connection.connected() as client:
        found = client.list_embeddings(model=model)
    if as_json:
        print_json(found)
    else:
        _show((one.name, one.base, one.vector_count, one.sha256, one.refusal) for one in found)


def _record(info: Any) -> dict[str, object]:  # noqa: ANN401 - EmbeddingInfo, which the client's start need not know
    """What ListEmbeddings says of a file, by its words."""
    return {
        "name": info.name,
        "sha256": info.sha256,
        "size_bytes": info.size,
        "base": info.base,
        "vector_count": info.vectors,
        "fits": info.fits,
        "refusal": info.refusal,
    }


def _show(rows: Iterable[Row]) -> None:
    table = Table("word", "base", "vectors", "sha256", "why it cannot be used", box=None)
    table.columns[0].no_wrap = True
    for name, base, vectors, sha256, refusal in rows:
        table.add_row(printable(name), base, str(vectors), sha256[:12] or "-", printable(refusal))
    if table.row_count:
        console().print(table)
    else:
        typer.echo("no textual inversions")
