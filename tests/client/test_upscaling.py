"""Upscale through both clients."""

from __future__ import annotations

import pytest

from sdgrpc.client import AsyncClient, Client, UpscalerInfo
from sdgrpc.testing.scripted_catalog import scripted_catalog
from sdgrpc.testing.server import png
from sdgrpc.v1 import diffusion_pb2 as pb


def test_tiles_are_told_and_the_picture_returned(client, server, tmp_path) -> None:
    """With the upscaler that made it; it saves, opens and shows itself."""
    told = []
    made = client.upscale(png(), upscaler="large", width=16, on_tile=told.append)
    assert (made.upscaler, made.image.width, made.image.data) == ("large", 16, png())
    assert [(one.tile, one.tile_count) for one in told] == [(1, 1)]
    made.save(tmp_path / "big.png")
    assert (tmp_path / "big.png").read_bytes() == made._repr_png_() == png()
    assert made.open().size == (8, 8)
    assert server.requests == [pb.UpscaleRequest(upscaler="large", image=pb.Image(data=png()), width=16)]


def test_what_is_told_may_end_the_call(client) -> None:
    """What `on_tile` raises reaches the caller."""

    def stop(_told) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        client.upscale(png(), on_tile=stop)


async def test_the_async_client_does_the_same(server) -> None:
    """The same result and tiles."""
    told = []
    async with AsyncClient(server.target) as client:
        made = await client.upscale(png(), on_tile=told.append)
    assert (made.upscaler, len(told)) == ("first", 1)


async def test_upscalers_are_listed() -> None:
    """By both."""
    expected = (UpscalerInfo("large", 4, "ESRGAN"),)
    with scripted_catalog() as catalog, Client(catalog.target) as client:
        assert client.list_upscalers() == expected
        async with AsyncClient(catalog.target) as other:
            assert await other.list_upscalers() == expected
