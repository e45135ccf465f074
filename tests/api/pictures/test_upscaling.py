"""Upscale over the wire, with a scripted engine."""

from __future__ import annotations

import asyncio
import io

import grpc
import pytest
from PIL import Image

from sdgrpc.api.pictures.upscaling import upscale_table
from sdgrpc.domain import UpscalerInfo
from sdgrpc.v1 import catalog_pb2
from sdgrpc.v1 import diffusion_pb2 as pb
from tests.support.api import make_settings, png, running_api, violations_of
from tests.support.engine import FakeEngine


def request(**changes) -> pb.UpscaleRequest:
    return pb.UpscaleRequest(**{"image": pb.Image(data=png(20, 10)), **changes})


async def events_of(call) -> list[pb.UpscaleEvent]:
    return [event async for event in call]


async def violations(api, asked: pb.UpscaleRequest) -> dict[str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await events_of(api.stub.Upscale(asked))
    return violations_of(caught.value)


async def test_a_picture_comes_after_its_tiles() -> None:
    """Numbered events of one id, the size told before; the first upscaler is the default."""
    engine = FakeEngine()
    async with running_api(engine) as api:
        seen = await events_of(api.stub.Upscale(request(request_id="mine")))
        listed = await api.catalog.ListModels(catalog_pb2.ListModelsRequest())
    assert [event.WhichOneof("event") for event in seen] == ["accepted", "progress", "progress", "image"]
    assert [(event.request_id, event.sequence) for event in seen] == [("mine", at) for at in range(4)]
    accepted = seen[0].accepted
    assert (accepted.upscaler, accepted.width, accepted.height, accepted.tile_count) == ("large", 80, 40, 2)
    told = seen[2].progress
    assert (told.tile, told.tile_count, told.elapsed.ToMilliseconds()) == (2, 2, 1000)
    assert Image.open(io.BytesIO(seen[3].image.data)).size == (80, 40)
    assert list(listed.upscalers) == [
        catalog_pb2.Upscaler(name="large", scale=4, architecture="ESRGAN"),
        catalog_pb2.Upscaler(name="double", scale=2, architecture="Compact"),
    ]


async def test_what_is_asked_for_reaches_the_engine() -> None:
    """Alpha, the size with its proportions, the format; an id is made where none is given."""
    engine = FakeEngine()
    async with running_api(engine) as api:
        data = png(20, 10, (1, 2, 3, 128), "RGBA")
        asked = request(
            image=pb.Image(data=data), upscaler="double", width=50, media_type="image/webp", quality=7
        )
        await events_of(api.stub.Upscale(asked))
        await events_of(api.stub.Upscale(request(height=33)))
    first, second = engine.upscaling.tasks
    assert (first.upscaler, first.width, first.height, first.image.channels) == ("double", 50, 25, 4)
    assert (first.media_type, first.quality, first.image.data[:4]) == ("image/webp", 7, bytes((1, 2, 3, 128)))
    assert (second.width, second.height, second.quality, second.image.channels) == (66, 33, 90, 3)
    assert first.request_id not in ("", second.request_id)


async def test_what_is_wrong_is_named() -> None:
    """Every field at once; a result beyond the bounds of pictures; nothing reaches the engine."""
    engine = FakeEngine()
    async with running_api(engine, max_image_pixels=64 * 64) as api:
        asked = request(upscaler="none", media_type="image/gif", quality=101, width=-1)
        assert set(await violations(api, asked)) == {"upscaler", "media_type", "quality", "width"}
        assert set(await violations(api, pb.UpscaleRequest())) == {"image"}
        damaged = request(image=pb.Image(data=b"no picture"))
        assert "PNG" in (await violations(api, damaged))["image.data"]
        large = request(image=pb.Image(data=png(40, 40)))
        assert "160x160" in (await violations(api, large))["image"]
        assert "100x50" in (await violations(api, request(width=100)))["width"]
    assert engine.upscaling.tasks == []


async def test_without_upscalers_it_says_how_to_get_one() -> None:
    """The operator's setting is named."""
    engine = FakeEngine()
    engine.upscaling.infos = ()
    async with running_api(engine) as api:
        assert "--upscaler" in (await violations(api, request()))["upscaler"]
    engine.upscaling.infos = (UpscalerInfo("only", 2, "ESRGAN"),)


async def test_who_leaves_ends_the_work() -> None:
    """A cancelled call closes the engine's generator between two tiles."""
    engine = FakeEngine()
    engine.upscaling.gate.clear()
    async with running_api(engine) as api:
        call = api.stub.Upscale(request())
        async for event in call:
            assert event.HasField("accepted")
            break
        call.cancel()
        await asyncio.wait_for(engine.upscaling.left.wait(), 30)


def test_every_field_has_a_rule() -> None:
    """A field that the contract gains fails here until somebody decides what it may hold."""
    table = upscale_table(make_settings())
    assert set(table) == {field.name for field in pb.UpscaleRequest.DESCRIPTOR.fields}
