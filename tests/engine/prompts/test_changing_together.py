"""Jobs whose prompts change as the steps go, side by side with others in the engine.

A picture of a shared call may differ from that of a call alone by 2 of 255: sums of other sizes are rounded
otherwise, as for any jobs that share calls.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from sdgrpc.domain import Finished, GuidanceInterval, ImageReady, Progress, SecondPass, StepReuse, Task
from tests.engine.test_local import ONE, TWO, images_of, pixels, run
from tests.support.tasks import task

STEPS, MOST = 8, 2
RED, BLUE = "a red cat", "a blue dog"
LONG = "a blue dog on green grass, " * 20
"""More than one chunk of tokens."""


def changing(prompt: str = f"[{RED}:{BLUE}:0.5]", **changes) -> Task:
    return task(**({"steps": STEPS, "prompt": prompt} | changes))


def image_of(events: list) -> bytes:
    (image,) = [event.image.data for event in events if isinstance(event, ImageReady)]
    return image


async def alone_and_together(engine, asked: list[Task]) -> tuple[list[bytes], list[list]]:
    """The picture of each task drawn alone, and the events of all that are drawn at once."""
    alone = [image_of(await run(engine, one)) for one in asked]
    return alone, list(await asyncio.gather(*(run(engine, one) for one in asked)))


def difference(events: list, expected: bytes) -> int:
    return int(np.abs(pixels(image_of(events)) - pixels(expected)).max())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"guidance_interval": GuidanceInterval(0.25, 0.75)},
        {"step_reuse": StepReuse(2)},
        {"second_pass": SecondPass(width=96, height=96, strength=0.5, steps=8)},
    ],
    ids=["plain", "interval", "reuse", "two passes"],
)
async def test_each_has_its_picture_of_alone(open_tiny, changes: dict) -> None:
    """Editing and alternation beside a plain prompt, longer and shorter ones, and LoRAs of some steps."""
    asked = [
        changing(seed=1, **changes),
        changing(f"[{RED}|{BLUE}]", negative_prompt="[x:y:3]", seed=2, **changes),
        changing(f"[{RED}:{LONG}:0.5]", seed=3, **changes),
        changing(RED, seed=4, **changes),
        changing(seed=5, loras=(replace(ONE, end=0.5), replace(TWO, start=0.25)), **changes),
    ]
    async with open_tiny(max_rows_per_call=16) as engine:
        alone, together = await alone_and_together(engine, asked)
        status = engine.status()
    assert max(events[-1].largest_batch for events in together) > 1
    assert max(difference(*one) for one in zip(together, alone, strict=True)) <= MOST
    # What is told apart is so by far more: each picture is none of the others, and not the plain prompt's.
    assert difference(together[0], image_of(together[3])) > 10 * MOST
    assert not [one for one in status.resident_sets if one.in_use]


async def test_texts_of_one_length_share_every_call(open_tiny) -> None:
    """A call takes what each of its jobs says in its own step, whichever that is."""
    asked = [changing(f"[{RED}|{BLUE}]", seed=1), changing(f"[{BLUE}|{RED}]", seed=1)]
    async with open_tiny(max_rows_per_call=16) as engine:
        alone, together = await alone_and_together(engine, asked)
    assert [events[-1].largest_batch for events in together] == [2, 2]
    for events, expected in zip(together, alone, strict=True):
        assert difference(events, expected) <= MOST
    assert difference(together[0], alone[1]) > 10 * MOST


async def test_parts_beside_plain_prompts(open_tiny) -> None:
    """Those of as many parts share calls, whatever they weigh; the others have calls of their own."""
    asked = [
        changing(f"{RED} :1.2 AND [{BLUE}|{RED}] :0.6", seed=1),
        changing(f"{BLUE} AND {RED} :-0.5", seed=2),
        changing(RED, seed=3),
        changing(f"{RED}:0.5 AND {BLUE}:0.5", guidance_scale=1.0, seed=4),
        changing(" AND ".join([RED, BLUE] * 4), seed=5),
    ]
    async with open_tiny(max_rows_per_call=6) as engine:
        alone, together = await alone_and_together(engine, asked)
    assert [events[-1].largest_batch for events in together] == [2, 2, 1, 1, 1]
    assert max(difference(*one) for one in zip(together, alone, strict=True)) <= MOST
    assert difference(together[0], alone[2]) > 10 * MOST


async def test_parts_that_are_cancelled(open_tiny) -> None:
    """No further step, nothing stays; those beside are as alone."""
    left, stays = changing(f"{RED} AND {BLUE}"), changing(f"{BLUE} AND {RED} :0.5", seed=3)
    async with open_tiny(max_rows_per_call=16) as engine:
        (expected,) = await images_of(engine, stays)
        beside = asyncio.create_task(run(engine, stays))
        stream = engine.submit(left)
        async for event in stream:
            if isinstance(event, Progress) and event.step == 2:
                break
        await stream.aclose()
        events = await beside
        await asyncio.wait_for(engine.drain(), 60)
        status = engine.status()
    assert difference(events, expected) <= MOST
    assert (status.running, status.queued, status.jobs_finished) == (0, 0, 2)


@pytest.mark.parametrize("changes", [{}, {"guidance_interval": GuidanceInterval(0.25, 0.75)}])
@pytest.mark.parametrize("step", [1, 4, 5])
async def test_a_job_that_is_cancelled_in_its_midst(open_tiny, step: int, changes: dict) -> None:
    """Before, at and after its change: it makes no further step, and those beside it are as alone."""
    loras = (replace(ONE, end=0.5), replace(TWO, start=0.5))
    left, stays = changing(f"[{RED}:{LONG}:0.5]", loras=loras, **changes), changing(seed=3, **changes)
    async with open_tiny(max_rows_per_call=16) as engine:
        (expected,) = await images_of(engine, stays)
        beside = asyncio.create_task(run(engine, stays))
        stream = engine.submit(left)
        async for event in stream:
            if isinstance(event, Progress) and event.step == step:
                break
        await stream.aclose()
        events = await beside
        again = await run(engine, left)
        await asyncio.wait_for(engine.drain(), 60)
        status = engine.status()
    assert isinstance(events[-1], Finished)
    assert difference(events, expected) <= MOST
    assert (status.running, status.queued, status.jobs_finished) == (0, 0, 3)
    assert not [one for one in status.resident_sets if one.in_use]
    assert [event.step for event in again if isinstance(event, Progress)] == list(range(1, STEPS + 1))


async def test_guidance_is_asked_for_within_the_interval_alone(open_tiny) -> None:
    """What a negative prompt says outside of it changes nothing; within it does."""
    interval = GuidanceInterval(0.25, 0.75)
    prompts = ["x", "[y:x:2]", "[x:y:6]", "[x:y:5]"]
    async with open_tiny() as engine:
        drawn = [
            (await images_of(engine, changing(RED, negative_prompt=said, guidance_interval=interval)))[0]
            for said in prompts
        ]
    plain, before, after, within = map(pixels, drawn)
    assert (before == plain).all()
    assert (after == plain).all()
    assert not (within == plain).all()
