"""Programs in Go that tests and tools run, built from their modules once, into `.tools`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / ".tools"
PICKER_MODULE = "sigs.k8s.io/gateway-api-inference-extension"
PICKER_VERSION = "v1.5.0"
"""The last release that has the endpoint picker; the chart names its image."""
PICKER = FOLDER / "epp"


def install(binary: Path, package: str) -> Path:
    """Return the path of a program, built with Go if it is not there yet.

    Args:
        binary: where it is to be; named as Go names it.
        package: the path of its package, with `@` and a version.

    Raises:
        FileNotFoundError: there is no Go toolchain.
        CalledProcessError: it does not build; Go has said why.

    """
    if not binary.exists():
        go = shutil.which("go")
        if go is None:
            raise FileNotFoundError(f"{binary.name} is built with Go, and there is no `go` on the PATH")
        environment = {**os.environ, "GOBIN": str(binary.parent)}
        subprocess.run([go, "install", package], check=True, env=environment)  # noqa: S603
    return binary


def module(name: str) -> Path:
    """Return the folder of a module, which Go's client fetches once, proving its content.

    Args:
        name: its path, with `@` and a version.

    Raises:
        FileNotFoundError: there is no Go toolchain, or the module cannot be had; says why.

    """
    go = shutil.which("go")
    if go is None:
        raise FileNotFoundError(f"{name} is fetched with Go, and there is no `go` on the PATH")
    command = [go, "mod", "download", "-json", name]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")  # noqa: S603
    found = json.loads(done.stdout or "{}")
    if "Dir" not in found:
        raise FileNotFoundError(f"{name}: {found.get('Error', done.stderr)}")
    return Path(found["Dir"])


def install_picker() -> Path:
    """Return the path of the endpoint picker, built within its module; raises as `install` and `module`."""
    if not PICKER.exists():
        folder = module(f"{PICKER_MODULE}@{PICKER_VERSION}")
        environment = {**os.environ, "GOWORK": "off", "GOFLAGS": "-mod=readonly"}
        command = ["go", "build", "-o", str(PICKER), "./cmd/epp"]
        subprocess.run(command, cwd=folder, env=environment, check=True)  # noqa: S603
    return PICKER
