"""The client draws beside the oldest and the newest of what it may be installed with."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from email.message import Message
from pathlib import Path

import pytest

from tests.packaging.conftest import SLOW, Environment

pytestmark = SLOW

DRAW = """
import asyncio, sys
from sdgrpc.client import AsyncClient, Client, InvalidRequestError

async def drawn(target):
    async with AsyncClient(target) as client:
        return await client.generate("a red star", steps=2, seed=1).images()

with Client(sys.argv[1]) as client:
    client.wait_until_ready()
    (image,) = client.generate("a red star", loras=["postcard:0.8"], steps=2, seed=1).images()
    image.save("star.png")
    assert image.open().size == (128, 128)
    (model,) = client.list_models()
    assert len(list(client.list_loras())) > 3
    try:
        client.generate("", steps=999).images()
    except InvalidRequestError as error:
        assert [one.field for one in error.violations] == ["sampling.steps"], error.violations
    else:
        raise AssertionError("999 steps were taken")
assert len(asyncio.run(drawn(sys.argv[1]))) == 1
assert "torch" not in sys.modules
"""


def floors(metadata: Message) -> list[str]:
    """The client's dependencies, each at the lowest version that the wheel allows."""
    plain = [one for one in metadata.get_all("Requires-Dist", []) if ";" not in one]
    return [one.replace(">=", "==") for one in plain]


def draws(own: Environment, target: str, folder: Path) -> None:
    # Warnings are errors, so that a protobuf that only just bears our modules is told.
    own.run("python", "-W", "error", "-c", DRAW, target, cwd=folder)
    assert (folder / "star.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="there are no such old wheels for this Python")
def test_the_oldest(
    wheel: Path, metadata: Message, environment: Callable[[], Environment], target: str, tmp_path: Path
) -> None:
    """At every floor that the wheel states."""
    own = environment()
    own.install(wheel, *floors(metadata))
    draws(own, target, tmp_path)


@pytest.mark.parametrize(
    "beside",
    [["grpcio==1.66.2", "protobuf==5.28.3"], ["grpcio==1.80.0", "protobuf==6.31.1"], []],
    ids=["protobuf-5", "protobuf-6", "newest"],
)
def test_beside_other_packages(
    wheel: Path,
    environment: Callable[[], Environment],
    target: str,
    tmp_path: Path,
    beside: Sequence[str],
) -> None:
    """With what others may have pinned, and with whatever is the newest."""
    own = environment()
    own.install(wheel, *beside)
    draws(own, target, tmp_path)


@pytest.mark.parametrize(
    "beside",
    [["grpcio==1.62.3", "grpcio-status==1.62.3", "protobuf==4.25.8"], ["grpcio==1.80.0", "protobuf==6.31.1"]],
    ids=["oldest", "protobuf-6"],
)
@pytest.mark.skipif(sys.version_info >= (3, 13), reason="there are no such old wheels for this Python")
def test_the_smallest_client(
    environment: Callable[[], Environment], target: str, tmp_path: Path, beside: Sequence[str]
) -> None:
    """clients/python with its requirements, which say the same floors."""
    client = Path(__file__).resolve().parents[2] / "clients/python"
    requirements = (client / "requirements.txt").read_text()
    for name in ("grpcio", "grpcio-status", "protobuf"):
        assert re.search(rf"^{name}>=", requirements, re.MULTILINE)
    own = environment()
    own.install("-r", client / "requirements.txt", *beside)
    own.run("python", client / "draw.py", target, tmp_path / "drawn", cwd=client)
    assert list((tmp_path / "drawn").glob("*.png"))
