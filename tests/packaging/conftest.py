"""The wheel, built once, and environments to install it into."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path

import pytest

from sdgrpc.demo.server import running_server

SLOW = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not os.environ.get("SDGRPC_REQUIRE_ALL"), reason="installs packages; set SDGRPC_REQUIRE_ALL=1"
    ),
]
ROOT = Path(__file__).resolve().parents[2]


def clean() -> dict[str, str]:
    """The variables without those that would lead Python to this checkout."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}


@dataclass(frozen=True)
class Environment:
    """A virtual environment of its own."""

    folder: Path

    @property
    def packages(self) -> Path:
        (found,) = self.folder.glob("lib/python*/site-packages")
        return found

    def run(self, program: str, *arguments: object, cwd: Path) -> str:
        """Run one of its programs and return its output; it must end well."""
        done = self.tried(program, *arguments, cwd=cwd)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def tried(self, program: str, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run one of its programs, however it ends."""
        command = [self.folder / "bin" / program, *map(str, arguments)]
        return subprocess.run(
            command, cwd=cwd, capture_output=True, text=True, timeout=600, check=False, env=clean()
        )

    def install(self, *what: object) -> None:
        """Install with pip, whose own complaints are failures."""
        self.run("python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *what, cwd=ROOT)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as `pip wheel` builds it."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", folder, ROOT]
    subprocess.run(command, check=True, timeout=300)
    (found,) = folder.glob("sdgrpc-*.whl")
    return found


@pytest.fixture(scope="session")
def metadata(wheel: Path) -> Message:
    """What the wheel says of itself."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [one for one in archive.namelist() if one.endswith(".dist-info/METADATA")]
        return HeaderParser().parsestr(archive.read(name).decode())


@pytest.fixture
def environment(tmp_path: Path) -> Callable[[], Environment]:
    """Make an empty environment."""

    def make() -> Environment:
        folder = tmp_path / "environment"
        subprocess.run([sys.executable, "-m", "venv", folder], check=True, timeout=120)
        return Environment(folder)

    return make


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with the embedded model, of this environment."""
    with running_server(tmp_path_factory.mktemp("server") / "log") as running:
        yield running
