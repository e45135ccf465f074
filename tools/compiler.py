"""The compiler of Python's stubs: that of an old grpcio-tools, in a folder of its own.

Modules that it generates work with every protobuf from 4.25 and every grpcio from 1.62 on. Those of newer
compilers refuse an older protobuf than their own, and some a newer one: whoever installs our client beside
other packages would be bound to our versions. `buf generate` cannot take its place: Python's generator is
part of the compiler, and buf would fetch one from a network.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

VERSION = "1.62.3"
PYTHONS = ("3.11", "3.12")
"""For these there are wheels of that version."""

RUN = """
import sys
sys.path.insert(0, sys.argv.pop(1))
from grpc_tools import protoc
sys.exit(protoc.main(sys.argv))
"""


def protoc(arguments: Sequence[str], *, protos: Path) -> None:
    """Run the compiler in the folder `protos`; plugins are found beside this Python.

    Raises:
        SystemExit: the compiler cannot be had, or it has refused a proto.

    """
    python = _python()
    folder = _installed(python)
    include = folder / "grpc_tools/_proto"
    command = [python, "-c", RUN, str(folder), f"-I{protos}", f"-I{include}", *arguments]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    done = subprocess.run(command, check=False, cwd=protos, env={**os.environ, "PATH": path})  # noqa: S603
    if done.returncode:
        raise SystemExit(done.returncode)


def _python() -> str:
    """Return this Python, or another for which the old version has wheels."""
    if f"{sys.version_info[0]}.{sys.version_info[1]}" in PYTHONS:
        return sys.executable
    for version in reversed(PYTHONS):
        if found := shutil.which(f"python{version}"):
            return found
    raise SystemExit(f"grpcio-tools {VERSION} needs Python {' or '.join(PYTHONS)}: put one into the PATH")


def _installed(python: str) -> Path:
    """The folder with the compiler, kept in the user's cache; it appears whole or not at all."""
    version = subprocess.run(  # noqa: S603 - an interpreter that we chose
        [python, "-c", "import sys; print(sys.implementation.cache_tag)"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sdgrpc"
    folder = cache / f"grpcio-tools-{VERSION}-{version}"
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as made:
        pip = [python, "-m", "pip", "install", "--quiet", "--no-warn-conflicts", "--target", f"{made}/whole"]
        subprocess.run([*pip, f"grpcio-tools=={VERSION}"], check=True)  # noqa: S603 - as above
        try:
            Path(made, "whole").rename(folder)
        except OSError:  # somebody else was faster
            if not folder.is_dir():
                raise
    return folder
