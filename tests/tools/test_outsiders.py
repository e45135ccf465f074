"""Programs that others bring, each against a server and its door."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from sdgrpc.client import Client
from tools import outsiders


@pytest.fixture(scope="module")
def at() -> Iterator[outsiders.Addresses]:
    with outsiders.served() as addresses:
        yield addresses


@pytest.fixture(scope="module")
def expected(at: outsiders.Addresses) -> bytes:
    """What the Python client draws."""
    with Client(at.grpc) as client:
        (one,) = client.generate(outsiders.PROMPT, seed=outsiders.SEED, steps=outsiders.STEPS).images()
    return one.image.data


@pytest.mark.timeout(1200)  # the first run builds grpcurl and ghz
@pytest.mark.parametrize("name", outsiders.PROGRAMS)
def test_draws(name: str, at: outsiders.Addresses, expected: bytes, tmp_path: Path) -> None:
    """Each draws, byte for byte, what the Python client does; ghz keeps no pictures, and ends all calls."""
    try:
        drawn = outsiders.PROGRAMS[name](at, tmp_path)
    except outsiders.Missing as missing:
        if os.environ.get("SDGRPC_REQUIRE_ALL") == "1":
            pytest.fail(f"SDGRPC_REQUIRE_ALL=1, but {missing}")
        pytest.skip(f"needs {missing}")
    assert drawn == (None if name == "ghz" else expected)


def test_what_is_no_picture_is_found() -> None:
    """Noise, another size and one colour are refused, each by its reason."""
    noise = Image.frombytes("RGB", (128, 128), os.urandom(128 * 128 * 3))
    flat, small = Image.new("RGB", (128, 128), "red"), Image.new("RGB", (64, 64))
    for image, reason in ((noise, "noise"), (flat, "one colour"), (small, "64 x 64")):
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        with pytest.raises(outsiders.Unfit, match=reason):
            outsiders.checked(buffer.getvalue())
