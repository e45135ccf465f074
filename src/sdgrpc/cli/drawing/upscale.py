"""`upscale`: a picture enlarged by one of the server's upscalers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from sdgrpc.cli.as_json import AsJson, print_json
from sdgrpc.cli.connection import ConnectionOptions
from sdgrpc.cli.drawing.parsing import parse_size
from sdgrpc.cli.failures import failures_as_lines
from sdgrpc.cli.grouped import takes
from sdgrpc.cli.output import OutputPattern
from sdgrpc.domain import UpscaleProgress
from sdgrpc.terminal.console import progress_console
from sdgrpc.terminal.text import printable


@takes(ConnectionOptions, name="connection")
def upscale(
    connection: ConnectionOptions,
    picture: Annotated[Path, typer.Argument(metavar="FILE", help="A PNG, JPEG or WebP file.")],
    output: Annotated[
        str,
        typer.Option("--output", "-o", help="File name, whose suffix is the format; `-` is standard output."),
    ] = "upscaled.png",
    upscaler: Annotated[
        str, typer.Option(metavar="NAME", help="One of the server's.", show_default="its first")
    ] = "",
    size: Annotated[
        str | None,
        typer.Option(
            metavar="WIDTHxHEIGHT",
            help="Pixels; `2048x` or `x2048` give one side.",
            show_default="as large as the upscaler makes it",
        ),
    ] = None,
    file_format: Annotated[
        str | None,
        typer.Option(
            "--format", metavar="png|jpeg|webp", help="Of the picture.", show_default="the suffix's, or png"
        ),
    ] = None,
    quality: Annotated[int, typer.Option(help="Of jpeg and webp, 1 to 100.", show_default="90")] = 0,
    as_json: AsJson = False,
) -> None:
    """Enlarge a picture by a network."""
    console = progress_console()
    with failures_as_lines(connection.server):
        width, height = parse_size(size)
        pattern = OutputPattern(output, file_format or "")
        pattern.check(count=1, seed=None, as_json=as_json)
    with connection.connected() as client, Progress(console=console, transient=True) as bar:
        shown = bar.add_task("tiles", total=None)

        def on_tile(told: UpscaleProgress) -> None:
            bar.update(shown, total=told.tile_count, completed=told.tile)

        made = client.upscale(
            picture,
            upscaler=upscaler,
            width=width,
            height=height,
            media_type=pattern.media_type,
            quality=quality,
            on_tile=on_tile,
        )
        image = made.image
        if pattern.is_stream:
            sys.stdout.buffer.write(image.data)
            sys.stdout.buffer.flush()
            return
        path = pattern.path(index=0, seed=0, count=1)
        path.parent.mkdir(parents=True, exist_ok=True)
        made.save(path)
    if as_json:
        print_json({"path": path, "upscaler": made.upscaler, "width": image.width, "height": image.height})
        return
    size_told = f"{image.width}x{image.height}"
    typer.echo(f"saved {printable(str(path))} ({size_told}, {printable(made.upscaler)})")
