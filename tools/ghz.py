"""Put load on a server with ghz, the load tester of gRPC, which reads the contract from the server itself.

`python -m tools.ghz` installs ghz with the Go toolchain, once, into `.tools`, starts a server with the
embedded model, and prints what ghz says of 100 calls of Generate.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdgrpc.demo.server import running_server
from tools import go_programs

ROOT = Path(__file__).resolve().parent.parent
BINARY = ROOT / ".tools/ghz"
PACKAGE = "github.com/bojand/ghz/cmd/ghz@v0.120.0"
METHOD = "sdgrpc.v1.DiffusionService.Generate"
REQUEST: Mapping[str, Any] = {
    "prompt": "<lora:postcard:0.8> a red star on a white background",
    "sampling": {"steps": 1, "guidanceScale": 1},
    "width": 64,
    "height": 64,
}


def install() -> Path:
    """Return the path of ghz; raises as `go_programs.install`."""
    return go_programs.install(BINARY, PACKAGE)


def load(ghz: Path, target: str, *, calls: int, at_once: int, style: str = "json") -> str:
    """Return ghz's report on so many calls of Generate; `style` is one of its formats.

    Raises:
        CalledProcessError: ghz could not begin.

    """
    command = [ghz, "--insecure", "--call", METHOD, "--data", json.dumps(REQUEST)]
    amount = ["--total", str(calls), "--concurrency", str(at_once), "--format", style]
    done = subprocess.run([*command, *amount, target], capture_output=True, text=True, check=True)  # type: ignore[list-item]  # noqa: S603
    return done.stdout


def main() -> int:
    """Run as a command."""
    ghz = install()
    with tempfile.TemporaryDirectory() as folder, running_server(Path(folder) / "server.log") as target:
        print(load(ghz, target, calls=100, at_once=8, style="summary"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
