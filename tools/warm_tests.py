"""Run tests in forks of a process with the slow libraries imported: `tools/mutants.py` asks per mutant.

Importing torch, diffusers and peft takes longer than the tests of a LoRA formula. The server imports
them once; each question forks it, and the fork imports this project's code anew, as it is then on the disk.
"""

from __future__ import annotations

import importlib
import os
import select
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

LIBRARIES = ("torch", "diffusers", "transformers", "peft", "lycoris", "grpc", "hypothesis", "pytest")
READY = "ready"


def serve(path: Path, tests: Sequence[str]) -> None:
    """Listen at a Unix socket; whoever connects has the tests run and is told their exit status.

    Prints `ready` once. Ends once its standard input does, as it does when whoever started it dies.
    """
    for name in LIBRARIES:
        importlib.import_module(name)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        print(READY, flush=True)
        while listening in select.select([listening, sys.stdin], [], [])[0]:
            asking, _ = listening.accept()
            with asking:
                asking.sendall(f"{answer(asking, tests)}\n".encode())


def answer(asking: socket.socket, tests: Sequence[str]) -> int:
    """Run the tests in a fork and return the exit status; a fork that nobody waits for is killed: 1."""
    child = os.fork()
    if child == 0:
        os.setsid()
        os._exit(in_fork(tests))
    ended = os.pidfd_open(child)
    ready, _, _ = select.select([ended, asking.fileno()], [], [])
    if ended not in ready:
        os.killpg(child, signal.SIGKILL)
    os.close(ended)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 1


def in_fork(tests: Sequence[str]) -> int:
    """Run pytest without a word: what is asked is only whether anything fails."""
    import pytest  # noqa: PLC0415: the server has imported it

    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    return int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "-n", "0", *tests]))


def ask(path: Path) -> int:
    """Have the tests run once more; return pytest's exit status."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.connect(str(path))
        return int(asking.makefile().read())


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(Path(sys.argv[2]), sys.argv[3:])
    else:
        sys.exit(ask(Path(sys.argv[2])))
