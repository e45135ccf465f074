"""A server process of our own: started, waited for, and stopped whatever happens."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from sdgrpc.client import Client
from sdgrpc.errors import SdgrpcError

LISTENING = "listening on "
KEPT_SETTINGS = ("SDGRPC_DEVICE", "SDGRPC_DTYPE")
STOP_SECONDS = 15
LOG_TAIL_LINES = 15


class ServerDied(SdgrpcError):
    """The server process ended before it was ready; the message ends with the last lines of its log."""


@contextmanager
def running_server(log: Path, arguments: Sequence[str] = (), *, ready_within: float = 110.0) -> Iterator[str]:
    """Run `sdgrpc serve` on a free loopback port and yield its target once its health service says SERVING.

    Its standard error goes to the file `log`. The process is gone when the block is left, also by
    Ctrl-C and by errors.

    Raises:
        ServerDied: it ended by itself before it was ready.
        UnavailableError: it was not ready within `ready_within` seconds.

    """
    command = [sys.executable, "-m", "sdgrpc", "serve", "--listen", "127.0.0.1:0", *arguments]
    with (
        log.open("w", encoding="utf-8") as sink,
        subprocess.Popen(  # noqa: S603 - our own interpreter and module
            command,
            stdout=subprocess.PIPE,
            stderr=sink,
            stdin=subprocess.DEVNULL,
            text=True,
            env=_environment(),
        ) as process,
    ):
        try:
            target = _read_target(process.stdout, log)
            with Client(target) as client:
                client.wait_until_ready(ready_within)
            yield target
        finally:
            _stop(process)


def _environment() -> dict[str, str]:
    """The demonstration shows the defaults, so of this server's settings only the device is the user's."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("SDGRPC_") or name in KEPT_SETTINGS
    }


def _read_target(stdout: IO[str] | None, log: Path) -> str:
    """Return HOST:PORT from the one line that a ready server prints."""
    for line in stdout or ():
        if line.startswith(LISTENING):
            return line.removeprefix(LISTENING).strip()
    tail = log.read_text("utf-8").splitlines()[-LOG_TAIL_LINES:]
    raise ServerDied("\n".join(["the server ended before it was ready; its log ends with:", *tail]))


def _stop(process: subprocess.Popen[str]) -> None:
    """Ask the process to stop, and end it if it does not, or if the user cannot wait."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        process.kill()
        process.wait()
