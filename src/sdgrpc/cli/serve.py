"""`serve`: load the models, listen, and stop cleanly."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sdgrpc.cli.extras import server_extra
from sdgrpc.cli.failures import failures_as_lines
from sdgrpc.cli.grouped import takes
from sdgrpc.embedded import EMBEDDED

if TYPE_CHECKING:
    from sdgrpc.engine.base import Engine
    from sdgrpc.settings import Settings

Bytes = typer.Option(metavar="BYTES", rich_help_panel="Limits")
Limit = typer.Option(metavar="N", rich_help_panel="Limits")
Strength = typer.Option(metavar="X", rich_help_panel="Limits")
Tls = typer.Option(metavar="FILE", rich_help_panel="TLS")


@dataclass(frozen=True)
class ServeOptions:
    """A flag for each of the server's settings; None leaves it to the other sources."""

    listen: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Port 0 takes a free one.", show_default="127.0.0.1:50051"),
    ] = None
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]SOURCE",
            help="A diffusers folder, a .safetensors file, a hub's owner/name, or `embedded`; repeat it.",
            show_default=EMBEDDED,
        ),
    ] = None
    lora_dir: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FOLDER",
            help="LoRA files, sub-folders included; repeat it.",
            show_default="the embedded model's",
        ),
    ] = None
    tokenizer: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="CLIP's vocabulary, for models in single files.")
    ] = None
    resident_models: Annotated[
        int | None,
        typer.Option(metavar="N", help="Models in memory at a time; others load when they are named."),
    ] = None
    upload_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Let clients upload LoRA files; they are kept here.", show_default="off"
        ),
    ] = None
    upload_budget_bytes: Annotated[int | None, Bytes] = None
    max_upload_bytes: Annotated[int | None, Bytes] = None
    device: Annotated[
        str | None, typer.Option(help="auto, cpu, mps, cuda or cuda:N.", show_default="auto")
    ] = None
    dtype: Annotated[
        str | None, typer.Option(help="auto, float32, float16 or bfloat16.", show_default="auto")
    ] = None
    queue_size: Annotated[int | None, typer.Option(metavar="N", help="Jobs that may wait.")] = None
    max_running_jobs: Annotated[int | None, typer.Option(metavar="N", help="Jobs drawn side by side.")] = None
    max_rows_per_call: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]N",
            help="Rows of a UNet call, for every model or for one; guidance takes two a picture; repeat it.",
            show_default="8",
        ),
    ] = None
    max_wait_calls: Annotated[
        int | None, typer.Option(metavar="N", help="Calls of others that a job may have to sit out.")
    ] = None
    batching: Annotated[
        bool | None, typer.Option("--batching/--no-batching", help="Let jobs share UNet calls.")
    ] = None
    lora_cache_bytes: Annotated[int | None, typer.Option(metavar="BYTES", help="For fused LoRA sets.")] = None
    prompt_cache_bytes: Annotated[int | None, typer.Option(metavar="BYTES", help="For encoded prompts.")] = (
        None
    )
    max_steps: Annotated[int | None, Limit] = None
    max_side: Annotated[int | None, Limit] = None
    max_pixels: Annotated[int | None, Limit] = None
    max_image_count: Annotated[int | None, Limit] = None
    max_prompt_chars: Annotated[int | None, Limit] = None
    max_loras: Annotated[int | None, Limit] = None
    lora_strength_min: Annotated[float | None, Strength] = None
    lora_strength_max: Annotated[float | None, Strength] = None
    allow_inline_loras: Annotated[
        bool | None,
        typer.Option(
            "--allow-inline-loras/--no-inline-loras",
            help="Take LoRA files in requests.",
            rich_help_panel="Limits",
        ),
    ] = None
    max_inline_lora_bytes: Annotated[int | None, Bytes] = None
    max_image_bytes: Annotated[int | None, Bytes] = None
    max_image_pixels: Annotated[int | None, Limit] = None
    max_image_side: Annotated[int | None, Limit] = None
    tls_certificate: Annotated[Path | None, Tls] = None
    tls_key: Annotated[Path | None, Tls] = None
    tls_client_ca: Annotated[Path | None, Tls] = None
    reflection: Annotated[
        bool | None,
        typer.Option("--reflection/--no-reflection", help="Let tools read the contract from the server."),
    ] = None
    drain_timeout: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="For running jobs when stopping.")
    ] = None
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None


@takes(ServeOptions)
def serve(
    options: ServeOptions,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="A TOML file of settings.")] = None,
) -> None:
    """Serve: prints `listening on HOST:PORT` once it is ready; Ctrl-C finishes the running jobs and stops.

    Every option is a setting that can also stand in the environment (SDGRPC_LISTEN) or in the file.
    """
    with failures_as_lines(), server_extra():
        from sdgrpc.api.server import configure_logging
        from sdgrpc.api.server import serve as serve_until_stopped
        from sdgrpc.machine.allocator import keep_freed_memory
        from sdgrpc.settings import Settings

        settings = Settings.load(config, **given_flags(options))
        configure_logging(settings.log_level)
        keep_freed_memory()
        try:
            asyncio.run(serve_until_stopped(settings, lambda: _open_engine(settings)))
        finally:
            gc.unfreeze()  # otherwise some libraries complain of leaks at the end


def _open_engine(settings: Settings) -> Engine:
    """Import torch only here, in the loading thread: the port answers before that."""
    from sdgrpc.engine.opening import open_engine

    # The libraries' half a million objects live as long as the process. Unless they are left out, each full
    # collection takes some 40 ms, which a LoRA file's thousands of keys can set off. Models come later.
    gc.collect()
    gc.freeze()
    return open_engine(settings)


def given_flags(options: ServeOptions) -> dict[str, object]:
    """Return the settings that flags were given for; Typer says [] for a list that was not."""
    values = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
    return {name: value for name, value in values.items() if value is not None and value != []}
