"""Pictures through the engine's upscalers, and second passes that go through one."""

from __future__ import annotations

import asyncio
import io
import threading
from contextlib import asynccontextmanager, suppress

import pytest
import torch
from PIL import Image

from sdgrpc.diffusion.upscaling.network import Upscaler, load
from sdgrpc.domain import (
    EncodedImage,
    ImageReady,
    Output,
    Picture,
    ResizeMode,
    SecondPass,
    TaskKind,
    UpscaleAccepted,
    UpscaleProgress,
    UpscaleTask,
)
from sdgrpc.engine.local import LocalEngine
from sdgrpc.engine.options import EngineOptions, LoopOptions
from sdgrpc.errors import Draining, QueueFull
from sdgrpc.images import decode, to_image, to_picture
from sdgrpc.lora.store.library import LoraLibrary
from tests.engine.test_local import run
from tests.support.tasks import gradient, task
from tests.support.upscalers import save_upscaler

pytest.importorskip("spandrel", reason="the extra [upscale] is not installed")
BARE = Output(omit_metadata=True)


@pytest.fixture(scope="module")
def upscaler(tmp_path_factory) -> Upscaler:
    place = save_upscaler(tmp_path_factory.mktemp("x4") / "x4.safetensors")
    return load("small", place, torch.device("cpu"))


@asynccontextmanager
async def opened(models, upscaler: Upscaler, **options):
    library = LoraLibrary([])
    engine = LocalEngine(
        models, library, EngineOptions(LoopOptions(**options)), upscalers={"small": upscaler}
    )
    try:
        yield engine
    finally:
        await engine.close()


def asked(side: int = 300, **changes) -> UpscaleTask:
    size = {"width": side * 4, "height": 160}
    return UpscaleTask("r", "small", gradient(side, 40), **{**size, **changes})


async def test_tiles_are_told_and_the_picture_comes_last(tiny_model, upscaler) -> None:
    """Two tiles of 256 for 300 pixels; the result is brought to the size that is asked for."""
    async with opened([tiny_model], upscaler) as engine:
        seen = [event async for event in engine.upscaling.upscale(asked())]
        small = [event async for event in engine.upscaling.upscale(asked(30))]
        sized = asked(30, width=64, height=80, media_type="image/webp")
        (*_, other) = [event async for event in engine.upscaling.upscale(sized)]
    kinds = [UpscaleAccepted, UpscaleProgress, UpscaleProgress, EncodedImage]
    assert [type(event) for event in seen] == kinds
    assert seen[0].tile_count == 2
    assert [(one.tile, one.tile_count) for one in seen[1:-1]] == [(1, 2), (2, 2)]
    assert Image.open(io.BytesIO(seen[-1].data)).tobytes() == upscaler.upscale(gradient(300, 40)).data
    assert [type(event) for event in small] == [UpscaleAccepted, UpscaleProgress, EncodedImage]
    assert (other.media_type, other.width, other.height) == ("image/webp", 64, 80)


class Held:
    """An upscaler that waits for the test before each tile."""

    def __init__(self, upscaler: Upscaler) -> None:
        self.info, self.tiles = upscaler.info, 0
        self.reached, self.open = threading.Event(), threading.Event()

    def upscale(self, picture: Picture, on_tile) -> Picture:
        for tile in range(1, 4):
            self.reached.set()
            assert self.open.wait(30)
            self.tiles += 1
            on_tile(tile, 3)
        return picture


async def test_who_leaves_ends_the_work_after_its_tile(tiny_model, upscaler) -> None:
    """Jobs are drawn meanwhile; the next picture has its turn."""
    held = Held(upscaler)
    async with opened([tiny_model], held) as engine:
        stream = engine.upscaling.upscale(asked())
        assert isinstance(await anext(stream), UpscaleAccepted)
        waiting = asyncio.ensure_future(anext(stream))
        assert await asyncio.to_thread(held.reached.wait, 30)
        assert any(isinstance(event, ImageReady) for event in await run(engine, task(steps=1)))
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting
        held.open.set()
        events = [event async for event in engine.upscaling.upscale(asked())]
        assert isinstance(events[-1], EncodedImage)
    assert held.tiles == 1 + 3


async def test_only_so_many_wait(tiny_model, upscaler) -> None:
    """More are refused at once; a closing engine ends those that wait."""
    held = Held(upscaler)
    async with opened([tiny_model], held, queue_size=1) as engine:
        streams = [engine.upscaling.upscale(asked()) for _ in range(2)]
        positions = [(await anext(stream)).queue_position for stream in streams]
        assert positions == [0, 1]
        waiting = [asyncio.ensure_future(anext(stream)) for stream in streams]
        assert await asyncio.to_thread(held.reached.wait, 30)
        with pytest.raises(QueueFull, match="queue_size"):
            await anext(engine.upscaling.upscale(asked()))
        closing = asyncio.ensure_future(engine.close())
        assert await asyncio.to_thread(engine.upscaling._closing.wait, 30)
        held.open.set()
        ends = await asyncio.gather(*waiting, return_exceptions=True)
        await closing
    assert [type(end) for end in ends] == [Draining, Draining]


async def test_a_second_pass_through_an_upscaler(tiny_model, upscaler) -> None:
    """It is the Transform, to the bit, of the first picture upscaled by hand."""
    second = SecondPass(width=96, height=64, strength=0.5, steps=4, upscaler="small").resolved(64, 64, 5)
    async with opened([tiny_model], upscaler) as engine:
        both = await run(engine, task(second_pass=second, output=BARE))
        (first,) = [
            one.image.data for one in await run(engine, task(output=BARE)) if isinstance(one, ImageReady)
        ]
        large = to_picture(to_image(upscaler.upscale(decode(first))))
        again = task(
            TaskKind.TRANSFORM,
            image=large,
            width=96,
            height=64,
            strength=0.5,
            steps=4,
            resize_mode=ResizeMode.CROP,
            output=BARE,
        )
        expected = await run(engine, again)
    pictures = [
        next(one.image.data for one in seen if isinstance(one, ImageReady)) for seen in (both, expected)
    ]
    assert pictures[0] == pictures[1]
