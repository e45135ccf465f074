"""`serve`: load the models, listen, and stop cleanly."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sdgrpc.cli.failures import failures_as_lines, server_extra
from sdgrpc.cli.settings_flags import settings_command

if TYPE_CHECKING:
    from sdgrpc.cli.doors.beside import BesideDoor
    from sdgrpc.cli.observing.watch import Watch
    from sdgrpc.engine.base import Engine
    from sdgrpc.machine.ending import ProcessEnd
    from sdgrpc.settings import Settings


FAILED_SECONDS = 0.95
"""From the evidence that the engine cannot go on to the end of the process."""


def serve_with(
    flags: Mapping[str, object],
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", envvar="SDGRPC_CONFIG", help="A TOML file of settings.")
    ] = None,
    web: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Also serve the page and the OpenAI images API there, on loopback: `sdgrpc web`.",
        ),
    ] = None,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Say every setting's value and where it was said, and end.")
    ] = False,
) -> None:
    """Serve, with the flags that were given."""
    with failures_as_lines(), server_extra():
        from sdgrpc.api.server import serve as serve_until_stopped
        from sdgrpc.cli.doors.beside import BesideDoor
        from sdgrpc.cli.observing.watch import watched
        from sdgrpc.errors import EngineFailed
        from sdgrpc.logs.configured import configure_logging
        from sdgrpc.logs.signals import listening_to_signals
        from sdgrpc.machine.allocator import keep_freed_memory
        from sdgrpc.machine.ending import STUCK, ProcessEnd
        from sdgrpc.settings import Settings

        settings = Settings.load(config, **flags)
        if print_config:
            print_settings(settings, config, flags)
            return
        configure_logging(settings.log_level, settings.log_format)
        keep_freed_memory()
        end = ProcessEnd()
        try:
            door = BesideDoor(web, settings)
            with listening_to_signals(settings.log_level), watched(settings) as watch:
                opening = partial(_open_engine, settings, end, watch)
                serving = partial(serve_until_stopped, settings, opening, end=end, observers=watch.calls)
                asyncio.run(_with_door(serving, door))
        except EngineFailed:
            end.now(STUCK)  # Python's own end would wait for threads that hang, or use a lost device
        finally:
            gc.unfreeze()  # otherwise some libraries complain of leaks at the end


async def _with_door(serving: Callable[..., Awaitable[None]], door: BesideDoor) -> None:
    """Serve, and close the door with the server."""
    try:
        await serving(announce=door.opened)
    finally:
        await door.close()


def _open_engine(settings: Settings, end: ProcessEnd, watch: Watch) -> Engine:
    """Import torch only here, in the loading thread: the port answers before that.

    A failed engine ends the process soon, whatever becomes of the event loop.
    """
    if settings.cluster is not None:
        from sdgrpc.engine.cluster.opening import open_cluster

        cluster = open_cluster(settings, settings.cluster, watch.jobs)
        watch.read_from(cluster)
        return cluster
    from sdgrpc.machine.allocator import libraries_kept
    from sdgrpc.machine.ending import STUCK

    with libraries_kept():
        from sdgrpc.engine.opening import open_engine
    failed = partial(end.by, FAILED_SECONDS, STUCK)
    engine = open_engine(settings, on_failure=failed, observer=watch.jobs)
    watch.read_from(engine)
    return engine


def print_settings(settings: Settings, config: Path | None, flags: Collection[str]) -> None:
    """Print the settings as a TOML file would say them, each with its source."""
    from sdgrpc.settings import sources_of

    values = sources_of(settings, config, flags)
    lines = [f"{one.name} = {one.value}" if one.value else f"# {one.name} is not set" for one in values]
    width = max(map(len, lines))
    for line, one in zip(lines, values, strict=True):
        typer.echo(f"{line:{width}}  # {one.source}")


def serve() -> None:
    """Serve: prints `listening on HOST:PORT` once it is ready; Ctrl-C finishes the running jobs and stops.

    Every option is a setting that can also stand in the environment (SDGRPC_LISTEN) or in the file.
    A flag goes before the environment, and that before the file.
    """


ServeCommand = settings_command(serve_with)
