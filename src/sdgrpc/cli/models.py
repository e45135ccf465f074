"""`models list`: what `serve` would serve, read from the models' own files, without loading any weights."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from sdgrpc.cli.as_json import AsJson, print_json
from sdgrpc.cli.failures import failures_as_lines, server_extra
from sdgrpc.embedded import EMBEDDED
from sdgrpc.errors import ModelError
from sdgrpc.terminal.console import console
from sdgrpc.terminal.text import printable

SHOWN = ("title", "description", "default_width", "default_height", "default_steps", "default_guidance_scale")


def list_models(
    model: Annotated[
        list[str] | None, typer.Option(metavar="[NAME=]SOURCE", help="As of `serve`; repeat it.")
    ] = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="The settings file of `serve`.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the models that `serve` would serve, their defaults and what they can draw."""
    with failures_as_lines(), server_extra():
        from sdgrpc.settings import Settings

        settings = Settings.load(config, model=model or None)
        rows = [{"name": name, "source": source, **read_card(source)} for name, source in settings.models]
    if as_json:
        print_json(rows)
        return
    shown = console()
    for row in rows:
        shown.print(_table(row))
        if row is not rows[-1]:
            shown.print()


def read_card(source: str) -> dict[str, Any]:
    """Return what a model says of itself: its pipeline class and the values of its sdgrpc.json.

    A single file has its card beside it: `photo.sdgrpc.json` for `photo.safetensors`. Of a hub's model only
    what is in the cache is known; nothing is fetched.

    Raises:
        ModelError: the source is neither a file nor a folder in diffusers' layout, or its JSON is broken.

    """
    place = _place(source)
    if place is None:
        return {"pipeline": "on the hub, not in its cache yet"}
    index, card = place / "model_index.json", place / "sdgrpc.json"
    if place.is_file():
        index, card = place, place.with_suffix(".sdgrpc.json")
    if not index.is_file():
        raise ModelError(f"{source}: no diffusers model there ({index} is missing)")
    try:
        values = json.loads(card.read_text("utf-8")) if card.is_file() else {}
        pipeline = "single file" if index == place else json.loads(index.read_text("utf-8"))["_class_name"]
        return {"pipeline": pipeline} | {key: values[key] for key in SHOWN if key in values}
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{source}: its JSON cannot be read: {error}") from None


def _place(source: str) -> Path | None:
    """The folder or file of a source; None for a hub's model that is not in the cache."""
    from huggingface_hub import try_to_load_from_cache

    from sdgrpc.diffusion.checkpoints import hub

    if source == EMBEDDED:
        return Path(str(files("sdgrpc") / "assets/tiny/model"))
    place = Path(source).expanduser()
    if place.exists() or not hub.is_name(source):
        return place
    cached = try_to_load_from_cache(source, "model_index.json")
    return Path(cached).parent if isinstance(cached, str) else None


def _table(row: dict[str, Any]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for key, value in row.items():
        if key not in ("default_width", "default_height"):
            table.add_row(key.removeprefix("default_").replace("_", " "), printable(str(value)))
    if "default_width" in row and "default_height" in row:
        table.add_row("size", f"{row['default_width']}x{row['default_height']}")
    return table
