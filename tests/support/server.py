"""A real `sdgrpc serve` process on a free loopback port."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

LISTENING = "listening on "
REPLICAS = os.environ.get("TEST_REPLICAS", "")
"""How many replicas on Ray each server has, if any: `make test-cluster`."""
of_one_engine = pytest.mark.skipif(bool(REPLICAS), reason="it is about what one engine does")


@dataclass(frozen=True)
class ServerProcess:
    """A server that prints nothing any more; `log` is its standard error."""

    target: str
    process: subprocess.Popen[str]
    log: Path

    def log_text(self) -> str:
        return self.log.read_text("utf-8")

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float = 60) -> int:
        """Its exit status, once it has ended by itself."""
        return self.process.wait(seconds)


def environment() -> dict[str, str]:
    """Ours, without the settings of a developer's shell."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("SDGRPC_", "OTEL_"))}


@contextmanager
def started_server(log: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Start a server and yield its process at once; end it with the block."""
    command = [sys.executable, "-m", "sdgrpc", "serve", "--listen", "127.0.0.1:0", *arguments]
    if REPLICAS and "--cluster" not in arguments:
        command += ["--cluster", "local", "--replicas", REPLICAS]
    with (
        log.open("w", encoding="utf-8") as sink,
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=sink,
            stdin=subprocess.DEVNULL,
            text=True,
            env=environment(),
        ) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()


def target_of(process: subprocess.Popen[str], log: Path) -> str:
    """HOST:PORT from the one line that a ready server prints."""
    line = process.stdout.readline()
    assert line.startswith(LISTENING), f"{line!r}; the log says: {log.read_text('utf-8')}"
    return line.removeprefix(LISTENING).strip()


@contextmanager
def running_server(log: Path, *arguments: str) -> Iterator[ServerProcess]:
    """Start a server, yield it once it is ready, end it with the block."""
    with started_server(log, *arguments) as process:
        yield ServerProcess(target_of(process, log), process, log)
