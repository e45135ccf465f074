"""Guidance intervals and forecasts together, with everything else that a job may have, in the engine."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from sdgrpc.domain import (
    Accepted,
    Finished,
    GuidanceInterval,
    ImageReady,
    Output,
    PreviewKind,
    PreviewOptions,
    Progress,
    StepReuse,
    Task,
    TaskKind,
)
from tests.engine.test_local import ONE, TWO, images_of, pixels, run
from tests.engine.test_memory import limited  # noqa: F401 - a fixture
from tests.support.tasks import pixels_of, task

INTERVAL, REUSE = GuidanceInterval(0.2, 0.7), StepReuse(2)
CALLS = 9  # of ten steps: 0 and 1; 2, 3, 4 and 6; 7, 8 and 9


def less(kind: TaskKind = TaskKind.GENERATE, **changes) -> Task:
    """Ten steps with both."""
    return task(kind, steps=10, guidance_interval=INTERVAL, step_reuse=REUSE, **changes)


def calls_of(events: list) -> int:
    return next(event.unet_calls for event in events if isinstance(event, Finished))


async def test_with_lora_sets_side_by_side(open_tiny) -> None:
    """Each set's picture is the one that it has alone, and differs from those of the other sets."""
    asked = [less(loras=loras) for loras in ((), (ONE,), (TWO,), (ONE, TWO))]
    async with open_tiny(max_rows_per_call=8) as engine:
        alone = [await images_of(engine, one) for one in asked]
        together = await asyncio.gather(*(run(engine, one) for one in asked))
    assert [calls_of(events) for events in together] == [CALLS] * len(asked)
    for events, (expected,) in zip(together, alone, strict=True):
        (image,) = [event.image.data for event in events if isinstance(event, ImageReady)]
        assert np.abs(pixels(image) - pixels(expected)).max() <= 2
    assert len({data for (data,) in alone}) == len(asked)


async def test_inpainting_keeps_what_is_not_masked(open_tiny) -> None:
    """Forecast steps put the known latents back too: around the mask the input's bytes stay."""
    asked = less(TaskKind.INPAINT)
    async with open_tiny() as engine:
        events = await run(engine, asked)
        plain = await images_of(engine, task(TaskKind.INPAINT, steps=10))
    (image,) = [event.image.data for event in events if isinstance(event, ImageReady)]
    kept = pixels_of(asked.mask)[..., 0] == 0
    assert calls_of(events) == CALLS
    assert (pixels(image)[kept] == pixels_of(asked.image)[kept]).all()
    assert (pixels(image)[~kept] != pixels(plain[0])[~kept]).any(), "it is not the picture of all calls"


@pytest.mark.parametrize("kind", [PreviewKind.PICTURE, PreviewKind.LATENT, PreviewKind.DECODED])
async def test_every_step_has_its_preview(open_tiny, kind: PreviewKind) -> None:
    """Those that are forecast too, unless they were overtaken unread; each shows what its step predicts."""
    asked = less(output=Output(preview=PreviewOptions(kind)))
    async with open_tiny() as engine:
        events = [event async for event in engine.submit(asked)]
    steps = [event for event in events if isinstance(event, Progress)]
    shown = [event for event in steps if event.previews]
    assert [event.step for event in steps] == list(range(1, 11))
    assert 1 <= len(shown) <= 9
    assert not steps[-1].previews, "the image follows"


async def test_in_company_with_jobs_that_use_neither(open_tiny) -> None:
    """All share calls where their rows agree, and each has the picture that it has alone."""
    asked = [less(seed=1), task(steps=10, seed=2), task(steps=10, seed=3, step_reuse=REUSE)]
    asked.append(task(steps=10, seed=4, guidance_interval=INTERVAL))
    async with open_tiny(max_rows_per_call=8) as engine:
        alone = [await images_of(engine, one) for one in asked]
        together = await asyncio.gather(*(run(engine, one) for one in asked))
    assert [calls_of(events) for events in together] == [CALLS, 10, 7, 10]
    for events, (expected,) in zip(together, alone, strict=True):
        (image,) = [event.image.data for event in events if isinstance(event, ImageReady)]
        assert np.abs(pixels(image) - pixels(expected)).max() <= 2


async def test_a_cancelled_job_gives_its_set_back(open_tiny) -> None:
    """At a step that was forecast: nothing of it stays in the engine, and the next one is drawn."""
    async with open_tiny() as engine:
        stream = engine.submit(less(loras=(ONE,)))
        async for event in stream:
            if isinstance(event, Progress) and event.step == 6:
                break
        await stream.aclose()
        assert len(await images_of(engine, less(seed=9, loras=(ONE,)))) == 1
        status = engine.status()
        assert (status.running, status.queued) == (0, 0)
        assert not [one for one in status.resident_sets if one.in_use]


async def test_where_memory_is_short_the_rows_are_halved(open_tiny, limited) -> None:  # noqa: F811
    """Guided steps that do not fit go in smaller calls, unguided ones as a whole; the picture is the same."""
    asked = less(image_count=2)
    async with open_tiny(max_rows_per_call=8) as engine:
        alone = await images_of(engine, asked)
        seen = limited(2)
        drawn = await images_of(engine, asked)
    assert {2} <= set(seen) <= {2, 4}
    for one, other in zip(drawn, alone, strict=True):
        assert np.abs(pixels(one) - pixels(other)).max() <= 2


async def test_both_are_told_when_the_task_is_accepted(open_tiny) -> None:
    """As they were asked for; without them there are none."""
    async with open_tiny() as engine:
        asked = less()
        plain = replace(asked, sampling=replace(asked.sampling, guidance_interval=None, step_reuse=None))
        first, second = (await run(engine, asked))[0], (await run(engine, plain))[0]
    assert isinstance(first, Accepted)
    assert isinstance(second, Accepted)
    assert (first.task.sampling.guidance_interval, first.task.sampling.step_reuse) == (INTERVAL, REUSE)
    assert (second.task.sampling.guidance_interval, second.task.sampling.step_reuse) == (None, None)
