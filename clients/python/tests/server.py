"""A server with the embedded model, as tests/contract/README.md says: somebody's, or a process of our own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
CONTRACT = ROOT / "tests/contract"
LISTENING = "listening on "


@dataclass(frozen=True)
class Server:
    """`process` is None if somebody else started it."""

    target: str
    process: subprocess.Popen[str] | None = None

    def stop(self) -> None:
        """Send it SIGTERM."""
        self.process.send_signal(signal.SIGTERM)


def skip(why: str) -> None:
    """Skip the test, unless everything is required."""
    if os.environ.get("SDGRPC_REQUIRE_ALL") == "1":
        pytest.fail(f"SDGRPC_REQUIRE_ALL=1, but {why}")
    pytest.skip(why)


@contextmanager
def running_server(log: Path, arguments: Sequence[str]) -> Iterator[Server]:
    """Yield a server once it is ready; end it with the block if it is our own."""
    if target := os.environ.get("SDGRPC_CONTRACT_SERVER"):
        yield Server(target)
        return
    python = os.environ.get("SDGRPC_PYTHON", str(ROOT / ".venv/bin/python"))
    if shutil.which(python) is None:
        skip(f"SDGRPC_PYTHON names no Python with sdgrpc, and there is no {python}")
    own = {name: value for name, value in os.environ.items() if not name.startswith("SDGRPC_")}
    own.pop("PYTHONPATH", None)  # it leads to the stubs beside this folder
    command = [python, "-m", "sdgrpc", "serve", "--listen", "127.0.0.1:0", *arguments]
    with (
        log.open("w", encoding="utf-8") as sink,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=sink, text=True, env=own, cwd=ROOT
        ) as process,
    ):
        try:
            line = process.stdout.readline()
            assert line.startswith(LISTENING), f"the server ended; its log says: {log.read_text('utf-8')}"
            yield Server(line.removeprefix(LISTENING).strip(), process)
        finally:
            process.send_signal(signal.SIGTERM)  # does nothing if it has ended
    assert process.returncode == 0, log.read_text("utf-8")
