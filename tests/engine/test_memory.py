"""A device that runs out of memory, through the whole engine: a UNet that refuses more than so many rows."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
import torch

from sdgrpc.domain import Finished, ImageReady, Output, PreviewKind, PreviewOptions, Progress
from sdgrpc.errors import OutOfMemory
from tests.engine.test_local import images_of, pixels, run
from tests.support.tasks import task

MESSAGE = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 8589934592 bytes."


@pytest.fixture
def limited(tiny_model, monkeypatch):
    """A function that lets the UNet run out of memory beyond that many rows; returns the rows it is given."""
    forward = tiny_model.unet.forward

    def limit(most: int) -> list[int]:
        seen: list[int] = []

        def wrapped(sample, *rest, **options):
            seen.append(sample.shape[0])
            if sample.shape[0] > most:
                raise RuntimeError(MESSAGE)
            return forward(sample, *rest, **options)

        monkeypatch.setattr(tiny_model.unet, "forward", wrapped)
        return seen

    return limit


@pytest.mark.parametrize("most", [4, 2, 1])
async def test_jobs_are_drawn_in_smaller_calls(open_tiny, limited, most):
    """Jobs that do not fit together are drawn all the same, as each is alone within 2 of 255.

    Down to one row: then the UNet is asked about the prompt and the negative prompt one after the other.
    """
    asked = [task(seed=seed, image_count=2, prompt=f"cat {seed}") for seed in range(3)]
    async with open_tiny(max_rows_per_call=16) as engine:
        alone = [await images_of(engine, one) for one in asked]
    async with open_tiny(max_rows_per_call=16) as engine:
        seen = limited(most)
        together = await asyncio.gather(*(images_of(engine, one) for one in asked))
    assert max(rows for rows in seen if rows <= most) == most
    assert seen.count(max(seen)) <= len(asked), "what failed is tried again by another job alone, and once"
    for images, expected in zip(together, alone, strict=True):
        for one, other in zip(images, expected, strict=True):
            assert np.abs(pixels(one) - pixels(other)).max() <= 2


@pytest.mark.parametrize("call", [1, 2])
async def test_a_passing_shortage_leaves_no_trace(open_tiny, tiny_model, monkeypatch, call):
    """After a call that ran out of memory the same request alone gives the bytes that it always gave."""
    forward, calls = tiny_model.unet.forward, []

    def wrapped(sample, *rest, **options):
        calls.append(sample.shape[0])
        if len(calls) == call:
            raise torch.OutOfMemoryError(MESSAGE)
        return forward(sample, *rest, **options)

    async with open_tiny() as engine:
        expected = await images_of(engine, task())
        with monkeypatch.context() as patch:
            patch.setattr(tiny_model.unet, "forward", wrapped)
            assert await images_of(engine, task())
            assert 1 in calls
        assert await images_of(engine, task()) == expected


async def test_a_job_of_which_not_one_row_fits_fails_alone(open_tiny, limited, monkeypatch):
    """It ends with RESOURCE_EXHAUSTED (OUT_OF_MEMORY) and advice; the engine draws the next one."""
    async with open_tiny() as engine:
        expected = await images_of(engine, task())
        with monkeypatch.context():
            limited(0)
            with pytest.raises(OutOfMemory, match="smaller picture") as failure:
                await run(engine, task())
        assert (failure.value.code, failure.value.reason) == ("RESOURCE_EXHAUSTED", "OUT_OF_MEMORY")
        limited(1000)
        (image,) = await images_of(engine, task())
        assert np.abs(pixels(image) - pixels(expected[0])).max() <= 2
        assert (engine.status().running, engine.status().queued) == (0, 0)


async def test_a_larger_neighbour_fails_and_the_smaller_one_is_drawn(open_tiny, tiny_model, monkeypatch):
    """Jobs of another size are not touched by one that cannot be drawn at all."""
    forward = tiny_model.unet.forward

    def wrapped(sample, *rest, **options):
        if sample.shape[-1] > 8:
            raise RuntimeError(MESSAGE)
        return forward(sample, *rest, **options)

    monkeypatch.setattr(tiny_model.unet, "forward", wrapped)
    async with open_tiny() as engine:
        small, large = await asyncio.gather(
            run(engine, task()), run(engine, task(width=128)), return_exceptions=True
        )
    assert isinstance(small[-1], Finished)  # type: ignore[has-type]
    assert isinstance(large, OutOfMemory)  # type: ignore[has-type]


async def test_a_preview_that_does_not_fit_is_left_out(open_tiny, tiny_model, monkeypatch):
    """The picture matters more: the steps go on without previews."""

    def exhausted(*_, **__):
        raise RuntimeError(MESSAGE)

    asked = task(output=Output(preview=PreviewOptions(PreviewKind.DECODED)))
    async with open_tiny() as engine:
        stream = engine.submit(asked)
        seen = []
        with monkeypatch.context() as patch:
            patch.setattr(tiny_model.vae, "decode", exhausted)
            async for event in stream:
                seen.append(event)
                if isinstance(event, Progress) and event.step == event.step_count:
                    break
        await stream.aclose()
    assert all(event.previews == () for event in seen if isinstance(event, Progress))
    assert not any(isinstance(event, ImageReady) for event in seen)


async def test_a_picture_that_cannot_be_decoded_fails_its_job(open_tiny, tiny_model, monkeypatch):
    """Running out of memory at the very end is told as such, and the next job is drawn."""

    def exhausted(*_, **__):
        raise RuntimeError(MESSAGE)

    async with open_tiny() as engine:
        with monkeypatch.context() as patch:
            patch.setattr(tiny_model.vae, "decode", exhausted)
            with pytest.raises(OutOfMemory):
                await run(engine, task())
        assert len(await images_of(engine, task())) == 1
