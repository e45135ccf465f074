"""Run every grpcurl command of the README against a server of our own, with the real grpcurl.

`python -m tools.grpcurl` installs grpcurl with the Go toolchain, once, into `.tools`, starts a server with
the embedded model, and prints each command with its answer.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from sdgrpc.demo.server import running_server
from tools import go_programs

ROOT = Path(__file__).resolve().parent.parent
BINARY = ROOT / ".tools/grpcurl"
PACKAGE = "github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4"
README_SERVER = "localhost:50051"
LONGEST_TEXT = 120


@dataclass(frozen=True)
class Answer:
    """A command as the README has it, and what it printed."""

    command: str
    status: int
    output: str
    errors: str


def install() -> Path:
    """Return the path of grpcurl; raises as `go_programs.install`."""
    return go_programs.install(BINARY, PACKAGE)


def documented(readme: str) -> list[str]:
    """Return the README's grpcurl commands: indented lines, with those that an open quote goes on to."""
    commands: list[str] = []
    for line in re.findall(r"^    (.*)$", readme, re.MULTILINE):
        if commands and commands[-1].count("'") % 2:
            commands[-1] += "\n" + line
        elif line.startswith("grpcurl "):
            commands.append(line)
    return commands


def ask(grpcurl: Path, command: str, target: str) -> Answer:
    """Run one command of the README against the server at `target`."""
    words = [target if word == README_SERVER else word for word in shlex.split(command)[1:]]
    done = subprocess.run([grpcurl, *words], capture_output=True, text=True, cwd=ROOT, check=False)  # noqa: S603
    return Answer(command, done.returncode, done.stdout, done.stderr)


def shortened(text: str) -> str:
    """Cut the pictures, which are base64 text, out of JSON."""
    return re.sub(rf"\"([^\"\n]{{{LONGEST_TEXT}}})[^\"\n]*\"", r'"\1…"', text)


def main() -> int:
    """Run as a command."""
    grpcurl = install()
    failed = 0
    with tempfile.TemporaryDirectory() as folder, running_server(Path(folder) / "server.log") as target:
        for command in documented((ROOT / "README.md").read_text("utf-8")):
            answer = ask(grpcurl, command, target)
            print(f"$ {command}\n{shortened(answer.output)}{answer.errors}")
            failed += answer.status != 0
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
