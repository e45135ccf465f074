"""Events that wait to travel."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from sdgrpc.domain import EncodedImage, ImageReady, Preview, Progress
from sdgrpc.engine.cluster.messages.observations import Stepped, Took
from sdgrpc.engine.cluster.messages.outbox import Outbox
from sdgrpc.engine.observing.observer import Stage

PICTURE = EncodedImage.__new__(EncodedImage)
STEP = Progress(1, 9, 0.0, 0.0, 0.0, (Preview(0, PICTURE),))


async def test_what_waited_travels_together() -> None:
    """In order, and with the latest previews only."""
    box = Outbox()
    for step in (1, 2, 3):
        await box.put(replace(STEP, step=step))
    events = await box.take()
    assert [event.step for event in events] == [1, 2, 3]
    assert [bool(event.previews) for event in events] == [False, False, True]


async def test_what_is_observed_comes_after_the_events() -> None:
    """Else a job's first stages would be told before anybody follows it, where its acceptance waits too."""
    box = Outbox()
    box.note(Stepped(1))
    await box.put(STEP)
    assert await box.take() == [STEP, Stepped(1)]
    box.note(Stepped(2))
    box.end()
    assert await box.take() == [Stepped(2)]


async def test_a_picture_holds_back_what_follows() -> None:
    """Until somebody takes it, so that no pictures heap up here."""
    box = Outbox()
    putting = asyncio.create_task(box.put(ImageReady(0, 7, PICTURE)))
    await asyncio.sleep(0)
    assert not putting.done()
    assert len(await box.take()) == 1
    await putting


async def test_the_end_is_nothing_more() -> None:
    """Whoever waits is told; what is there comes first."""
    box = Outbox()
    waiting = asyncio.create_task(box.take())
    await asyncio.sleep(0)
    box.end()
    assert await waiting == []
    await box.put(STEP)
    assert await box.take() == [STEP]
    assert await box.take() == []


async def test_that_a_job_begins_is_told_at_once() -> None:
    """Where it counts for somebody, from any thread; not before the job is accepted."""
    box, began = Outbox(tells_begin=True), Took(Stage.QUEUED, 0.5)
    await asyncio.to_thread(box.note, began)
    taking = asyncio.create_task(box.take())
    await asyncio.sleep(0)
    assert not taking.done()
    await box.put(STEP)
    assert await taking == [STEP, began]
    await asyncio.to_thread(box.note, Took(Stage.FUSED, 0.5))
    await asyncio.to_thread(box.note, began)
    assert await box.take() == [Took(Stage.FUSED, 0.5), began]


async def test_what_has_travelled_is_not_told_again() -> None:
    """A beginning that went with an event makes no message of nothing, which would be the end."""
    box, began = Outbox(tells_begin=True), Took(Stage.QUEUED, 0.5)
    box.note(began)
    await box.put(STEP)
    assert await box.take() == [STEP, began]
    taking = asyncio.create_task(box.take())
    for _ in range(3):
        await asyncio.sleep(0)
    assert not taking.done()
    box.end()
    assert await taking == []


async def test_that_a_job_of_nobody_begins_waits() -> None:
    """A message costs as much as a step of a small model: what nobody counts goes with the next event."""
    box, began = Outbox(), Took(Stage.QUEUED, 0.5)
    await box.put(STEP)
    await box.take()
    box.note(began)
    taking = asyncio.create_task(box.take())
    for _ in range(3):
        await asyncio.sleep(0)
    assert not taking.done()
    await box.put(STEP)
    assert await taking == [STEP, began]
