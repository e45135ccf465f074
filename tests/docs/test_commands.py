"""The commands of README and docs/clients.md, run in turn as they stand, against the server they start."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.docs.documents import ROOT, commands
from tests.support.server import running_server
from tools import grpcurl

TALKS = re.compile(
    r"sdgrpc (generate|transform|inpaint|loras upload|status|health|models served|loras served)\b"
)
README, CLIENTS = ROOT / "README.md", ROOT / "docs/clients.md"


def of(page: Path) -> list[str]:
    """The commands of a page that talk to a server on this machine, and end."""
    return [
        one for one in commands(page) if TALKS.match(one) and "--watch" not in one and "--server" not in one
    ]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that looks as the clone does after the demonstration."""
    folder = tmp_path_factory.mktemp("clone")
    (folder / "src").symlink_to(ROOT / "src")
    (folder / "demo").mkdir()
    mask = Image.new("L", (128, 128))
    mask.paste(255, (64, 0, 128, 128))
    mask.save(folder / "demo/mask.png")
    return folder


@pytest.fixture(scope="module")
def target(place: Path) -> Iterator[str]:
    """The server that the README starts, on a free port."""
    (started,) = [one for one in commands(README) if one.startswith("sdgrpc serve") and "photo=" not in one]
    flags = shlex.split(started)[2:]
    flags = [str(place / one) if one == "uploads" else one for one in flags]
    with running_server(place / "log", *flags) as server:
        yield server.target


def test_there_are_commands() -> None:
    """Otherwise nothing below would run."""
    assert len(of(README)) >= 6
    assert len(of(CLIENTS)) >= 5


@pytest.mark.parametrize("page", [README, CLIENTS], ids=lambda page: page.name)
def test_commands_run(page: Path, place: Path, target: str) -> None:
    """Each ends well, in the order of the page, with only the server's port given by the environment."""
    (place / "sdgrpc").write_text(f'#!/bin/sh\nexec {sys.executable} -m sdgrpc "$@"\n')
    (place / "sdgrpc").chmod(0o755)
    environment = {**os.environ, "SDGRPC_SERVER": target, "PATH": f"{place}:{os.environ['PATH']}"}
    for command in of(page):
        done = subprocess.run(
            ["bash", "-ec", command],
            cwd=place,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"
    for made in place.glob("*.png"):
        with Image.open(made) as picture:
            assert picture.size == (128, 128)


def test_the_picture_out_of_grpcurl(place: Path, target: str) -> None:
    """The line with jq and base64 leaves a picture."""
    if missing := [name for name in ("go", "jq", "base64") if shutil.which(name) is None]:
        assert not os.environ.get("SDGRPC_REQUIRE_ALL"), missing
        pytest.skip(f"needs {missing}")
    (command,) = [one for one in commands(CLIENTS) if "jq" in one]
    words = command.replace("localhost:50051", target).replace("grpcurl ", f"{grpcurl.install()} ", 1)
    subprocess.run(["bash", "-ec", f"set -o pipefail; {words}"], cwd=place, check=True, timeout=120)
    with Image.open(place / "star.png") as picture:
        assert picture.size == (128, 128)
