"""The README's Python, run as it stands against a real server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.documents import ROOT, blocks, name_of
from tests.support.server import running_server

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PROGRAMS = [
    pytest.param(body, id=f"{name_of(page)}-{number}")
    for page in PAGES
    for number, body in enumerate(blocks(page, "python"))
    if "sdgrpc.client" in body
]
NO_WINDOW = "from PIL import Image\nImage.Image.show = lambda *_, **__: None\n"
"""`show()` would open a window; everything else runs as printed."""


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    log = tmp_path_factory.mktemp("readme") / "server.log"
    with running_server(log) as server:
        yield server.target


def test_the_readme_has_a_program() -> None:
    """Otherwise nothing below would run."""
    assert PROGRAMS


@pytest.mark.parametrize("program", PROGRAMS)
def test_programs_run(program: str, address: str, tmp_path: Path) -> None:
    """Each program that uses the client ends without a failure, with only the address exchanged."""
    assert "localhost:50051" in program
    text = NO_WINDOW + program.replace("localhost:50051", address)
    done = subprocess.run(
        [sys.executable, "-c", text], cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
