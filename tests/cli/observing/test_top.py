"""`sdgrpc top` in a real terminal of sixty columns."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sdgrpc.testing.scripted_catalog import scripted_catalog
from tests.support.server import environment


@dataclass
class Terminal:
    """A program in a terminal, and what it wrote to it."""

    process: subprocess.Popen[bytes]
    screen: int
    text: str = ""

    def until(self, holds: Callable[[str], bool]) -> None:
        """Read until what was written satisfies a condition; colours and places are left out."""
        while not holds(self.text):
            assert select.select([self.screen], [], [], 60)[0], self.text
            assert len(self.text) < 1 << 20, self.text[-2000:]
            try:
                came = os.read(self.screen, 1 << 16).decode(errors="replace")
            except OSError:  # Linux says so at the end
                raise AssertionError(self.text) from None
            self.text += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", came)


@contextmanager
def in_terminal(*arguments: str, columns: int = 60, lines: int = 20) -> Iterator[Terminal]:
    """Run the command line in a terminal of a size."""
    screen, inside = pty.openpty()
    fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    command = [sys.executable, "-m", "sdgrpc", *arguments]
    variables = {**environment(), "TERM": "xterm-256color"}
    with subprocess.Popen(command, stdin=inside, stdout=inside, stderr=inside, env=variables) as process:
        os.close(inside)
        try:
            yield Terminal(process, screen)
        finally:
            process.kill()
            os.close(screen)


def test_it_shows_the_load_until_it_is_interrupted() -> None:
    """The server's report is on the screen, a server that leaves is told of, and Ctrl-C ends it well."""
    with scripted_catalog() as catalog, in_terminal("top", "--server", catalog.target) as terminal:
        terminal.until(lambda text: "99 running" in text and "LoRA set" in text)
        assert catalog.target in terminal.text
        catalog.stopped.set()
        terminal.until(lambda text: "the server ended" in text)
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.process.wait(60) == 0
        assert "Traceback" not in terminal.text


def test_a_server_that_is_not_there_is_waited_for() -> None:
    """What is wrong stands on the screen meanwhile."""
    with in_terminal("top", "--server", "127.0.0.1:1") as terminal:
        terminal.until(
            lambda text: "no report" in text and "UNAVAILABLE" not in text and "127.0.0.1:1" in text
        )
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.process.wait(60) == 0


def test_it_needs_a_terminal(run) -> None:
    """In a pipe it says which command is for that."""
    result = run("top")
    assert result.exit_code == 2
    assert "status --watch" in " ".join(result.output.replace("│", " ").split())
