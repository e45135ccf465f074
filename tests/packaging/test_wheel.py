"""The wheel: what it says of itself, and that it draws where only it is installed."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable
from email.message import Message
from pathlib import Path

from PIL import Image

from tests.packaging.conftest import SLOW, Environment

pytestmark = SLOW


def test_the_index_would_take_it(wheel: Path) -> None:
    """`twine check` finds nothing to say, warnings included."""
    command = [sys.executable, "-m", "twine", "check", "--strict", wheel]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_what_it_says_of_itself(metadata: Message) -> None:
    """Who made it, what it is for, how far it is; and no tools for its own development."""
    assert metadata["Author"] == "the sdgrpc developers"
    assert "lora" in metadata["Keywords"]
    assert metadata["License-Expression"] == "Apache-2.0"
    assert any(one.startswith("Development Status") for one in metadata.get_all("Classifier", []))
    extras = ["cli", "cluster", "metrics", "server", "telemetry", "upscale", "web"]
    assert metadata.get_all("Provides-Extra") == extras
    plain = [one for one in metadata.get_all("Requires-Dist", []) if "extra ==" not in one]
    assert not [one for one in plain if one.startswith(("rich", "typer", "torch", "pydantic"))]


def test_what_is_in_it(wheel: Path) -> None:
    """The package, typed, with its model and its contract's modules; no tests."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    folders = {name.split("/")[0] for name in names}
    assert "sdgrpc" in folders
    assert len(folders) == 2  # and its metadata
    for name in (
        "py.typed",
        "v1/diffusion_pb2.py",
        "assets/tiny/model/unet/diffusion_pytorch_model.safetensors",
    ):
        assert f"sdgrpc/{name}" in names


def test_it_draws(wheel: Path, environment: Callable[[], Environment], tmp_path: Path) -> None:
    """The whole demonstration runs from the wheel; only the libraries beside it are this environment's."""
    own = environment()
    own.install("--no-deps", wheel)
    (own.packages / "libraries.pth").write_text(sysconfig.get_path("purelib"))
    where = own.run("python", "-c", "import sdgrpc; print(sdgrpc.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(own.folder)
    own.run("sdgrpc", "demo", "--output", "drawn", cwd=tmp_path)
    with Image.open(tmp_path / "drawn/contact-sheet.png") as sheet:
        assert sheet.width > 1000


def test_the_command_line_is_an_extra(
    wheel: Path, environment: Callable[[], Environment], tmp_path: Path
) -> None:
    """Without it, the command says what to install; with it, its help is there, and `serve` says the same."""
    own = environment()
    own.install(wheel)
    bare = own.tried("sdgrpc", "--help", cwd=tmp_path)
    assert bare.returncode == 1
    assert 'pip install "sdgrpc[cli]"' in bare.stderr
    own.install(f"{wheel}[cli]")
    assert "generate" in own.run("sdgrpc", "--help", cwd=tmp_path)
    serve = own.tried("sdgrpc", "serve", cwd=tmp_path)
    assert serve.returncode == 1
    assert 'pip install "sdgrpc[server]"' in serve.stderr
