"""Which commands there are."""

from __future__ import annotations

from typing import Annotated

import typer

from sdgrpc import __version__
from sdgrpc.cli import demo, embeddings, health, lora_checks, loras, models, serve, served
from sdgrpc.cli.cluster import commands as cluster
from sdgrpc.cli.doors import web
from sdgrpc.cli.drawing import commands as draw
from sdgrpc.cli.drawing import upscale
from sdgrpc.cli.jobs import commands as jobs
from sdgrpc.cli.observing import top


def build_app() -> typer.Typer:
    """Build the whole command line."""
    app = typer.Typer(
        name="sdgrpc",
        help="Draws with Stable Diffusion over gRPC, with LoRAs.",
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"]},
        pretty_exceptions_enable=False,
    )
    app.callback()(common)
    app.command("serve", cls=serve.ServeCommand)(serve.serve)
    app.command("web")(web.web)
    app.command("demo")(demo.demo)
    app.command("generate")(draw.generate)
    app.command("transform")(draw.transform)
    app.command("inpaint")(draw.inpaint)
    app.command("upscale")(upscale.upscale)
    app.command("health")(health.health)
    app.command("status")(served.status)
    app.command("top")(top.top)
    lora_app = typer.Typer(help="LoRA files, of a folder or of a running server.", no_args_is_help=True)
    lora_app.command("list")(loras.list_files)
    lora_app.command("inspect")(loras.inspect_file)
    lora_app.command("verify")(lora_checks.verify_folder)
    lora_app.command("convert")(lora_checks.convert_file)
    lora_app.command("served")(served.list_loras)
    lora_app.command("upload")(served.upload)
    app.add_typer(lora_app, name="loras")
    word_app = typer.Typer(
        help="Textual inversions, of a folder or of a running server.", no_args_is_help=True
    )
    word_app.command("list")(embeddings.list_files)
    word_app.command("served")(embeddings.list_served)
    app.add_typer(word_app, name="embeddings")
    model_app = typer.Typer(
        help="Models, those that `serve` would serve or those of a running server.", no_args_is_help=True
    )
    model_app.command("list")(models.list_models)
    model_app.command("served")(served.list_models)
    app.add_typer(model_app, name="models")
    cluster_app = typer.Typer(help="Replicas behind a server with --cluster.", no_args_is_help=True)
    cluster_app.command("status")(cluster.status)
    cluster_app.command("drain")(cluster.drain)
    cluster_app.command("scale")(cluster.scale)
    app.add_typer(cluster_app, name="cluster")
    job_app = typer.Typer(
        help="Jobs that outlive their connection: those that were sent with --keep.", no_args_is_help=True
    )
    job_app.command("list")(jobs.list_kept)
    job_app.command("attach")(jobs.attach)
    job_app.command("cancel")(jobs.cancel)
    app.add_typer(job_app, name="jobs")
    return app


def main() -> None:
    """Run the command line: the console script `sdgrpc` and `python -m sdgrpc`."""
    build_app()()


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sdgrpc {__version__}")
        raise typer.Exit


def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Draws with Stable Diffusion over gRPC, with LoRAs."""
