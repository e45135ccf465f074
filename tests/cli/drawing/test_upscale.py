"""`upscale` against a scripted server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sdgrpc.testing.server import png
from sdgrpc.v1 import diffusion_pb2 as pb


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    place = tmp_path / "small.png"
    place.write_bytes(png())
    return place


def test_it_saves_the_picture(run, server, picture: Path, tmp_path: Path) -> None:
    """Where, how large and by which upscaler is said; folders are made."""
    result = run("upscale", picture, "--server", server.target, "-o", tmp_path / "out/big.png")
    assert result.exit_code == 0, result.output
    assert result.stdout == f"saved {tmp_path / 'out/big.png'} (8x8, first)\n"
    assert (tmp_path / "out/big.png").read_bytes() == png()


def test_it_sends_every_option(run, server, picture: Path) -> None:
    """Each flag lands in its field, the format by the suffix."""
    flags = "--upscaler large --size 96x64 --quality 70 -o x.webp --json"
    result = run("upscale", picture, "--server", server.target, *flags.split())
    assert server.requests == [
        pb.UpscaleRequest(
            upscaler="large",
            image=pb.Image(data=png()),
            width=96,
            height=64,
            media_type="image/webp",
            quality=70,
        )
    ]
    assert json.loads(result.stdout) == {"path": "x.webp", "upscaler": "large", "width": 96, "height": 64}


def test_a_picture_on_standard_output(run, server, picture: Path) -> None:
    """And nothing else."""
    result = run("upscale", picture, "--server", server.target, "-o", "-")
    assert result.stdout_bytes == png()


@pytest.mark.parametrize(
    ("flags", "message"), [(["--size", "big"], "--size"), (["-o", "x.gif"], "must end in")]
)
def test_wrong_flags_are_named(run, server, picture: Path, flags: list[str], message: str) -> None:
    """Before anything is sent."""
    result = run("upscale", picture, "--server", server.target, *flags)
    assert result.exit_code == 1
    assert message in result.stderr
    assert server.requests == []
