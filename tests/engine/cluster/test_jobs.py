"""How many jobs of one caller wait on all replicas together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from sdgrpc.domain import Accepted, Event, LoraRef, Picture, Prepared, Progress, Task, UpscaleTask
from sdgrpc.engine.cluster.engine import RayEngine
from sdgrpc.engine.cluster.jobs import Inside, Job, begins
from sdgrpc.engine.cluster.messages.observations import Took
from sdgrpc.engine.cluster.routing.holdings import Wanted
from sdgrpc.engine.observing.observer import Stage
from sdgrpc.errors import TokenQueueFull
from tests.support.fake_fleet import FakeFleet, LibraryEngine, opened
from tests.support.tasks import task as small_task

MOST = 3


class Queueing(LibraryEngine):
    """Accepts jobs, which begin once their turn has come."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.turn = asyncio.Event()

    async def submit(self, task: Task, **keywords: Any) -> AsyncGenerator[Event, None]:
        async with aclosing(super().submit(task, **keywords)) as events:
            async for event in events:
                if isinstance(event, Prepared):
                    await self.turn.wait()
                yield event

    async def prepare(self, *args: Any, **keywords: Any) -> Any:
        await self.turn.wait()
        return await self.catalog.prepare_loras(*args, **keywords)


def task_of(caller: str = "ann", **changes: Any) -> Task:
    return small_task(model="fake", steps=2, caller=caller, **changes)


@pytest.fixture
def fleet() -> FakeFleet:
    """Replicas whose jobs wait."""
    return FakeFleet(Queueing)


@pytest.fixture
async def engine(fleet: FakeFleet) -> AsyncIterator[RayEngine]:
    """Two replicas, and at most three jobs of each caller may wait."""
    made = await opened(fleet, most_queued=MOST)
    yield made
    await made.close()


async def accepted(engine: RayEngine, *tasks: Task) -> list[AsyncGenerator[Event, None]]:
    """Jobs that wait, for as long as somebody has their events."""
    jobs = list(map(engine.submit, tasks))
    for events in jobs:
        assert isinstance(await anext(events), Accepted)
    return jobs


async def test_the_bound_is_that_of_all_replicas(fleet: FakeFleet, engine: RayEngine) -> None:
    """Though none of them has as many: the next is refused as by one engine; others are let in."""
    waiting = await accepted(engine, *[task_of()] * MOST)
    assert sorted(len(one.tasks) for one in fleet.engines.values()) == [1, 2]
    for refused in (lambda: anext(engine.submit(task_of())), lambda: engine.plan(task_of())):
        with pytest.raises(TokenQueueFull, match=r"3 jobs of 'ann' wait already \(max_queued") as caught:
            await refused()
        assert caught.value.retry_after == 1.0
    waiting += await accepted(engine, *map(task_of, ("bob", "", "", "", "")))


async def test_who_begins_or_leaves_makes_room(fleet: FakeFleet, engine: RayEngine) -> None:
    """A job that has begun waits no more, nor does one whose client went."""
    events = await accepted(engine, *[task_of()] * MOST)
    await events[0].aclose()
    engine.check_room("ann")
    events += await accepted(engine, task_of())
    with pytest.raises(TokenQueueFull):
        engine.check_room("ann")
    for one in fleet.engines.values():
        one.turn.set()
    assert isinstance(await anext(events[1]), Prepared)
    engine.check_room("ann")


async def test_a_job_that_is_run_again_waits_again(fleet: FakeFleet, engine: RayEngine) -> None:
    """It is in a queue once more, is not refused though the share is full by now, and begins once more."""
    for one in fleet.engines.values():
        one.turn.set()
        one.gate.clear()
    (first,) = await accepted(engine, task_of())
    assert isinstance(await anext(first), Prepared)
    drawing = next(name for name, one in fleet.engines.items() if one.tasks)
    for one in fleet.engines.values():
        one.turn.clear()
    waiting = await accepted(engine, *[task_of()] * (MOST - 1))
    engine.check_room("ann")
    coming = [asyncio.ensure_future(anext(events)) for events in (first, *waiting)]
    fleet.kill(drawing)
    while len([task for one in fleet.engines.values() for task in one.tasks]) < MOST:  # noqa: ASYNC110
        await asyncio.sleep(0)
    with pytest.raises(TokenQueueFull):
        engine.check_room("ann")
    for one in fleet.engines.values():
        one.turn.set()
        one.gate.set()
    assert [type(event) for event in await asyncio.gather(*coming)] == [Progress, Prepared, Prepared]
    engine.check_room("ann")


@pytest.mark.parametrize("count", [MOST, MOST + 1])
async def test_each_picture_of_a_grid_waits(engine: RayEngine, count: int) -> None:
    """As each is a job to one engine: a grid of more than may wait is refused."""
    strengths = tuple((0.1 * number, 0.1 * number) for number in range(count))
    events = engine.submit(task_of(loras=(LoraRef(name="inks", strength_grid=strengths),)))
    if count > MOST:
        with pytest.raises(TokenQueueFull):
            await anext(events)
        engine.check_room("ann")
        return
    assert isinstance(await anext(events), Accepted)
    with pytest.raises(TokenQueueFull):
        engine.check_room("ann")
    await events.aclose()
    engine.check_room("ann")


async def test_pictures_to_enlarge_take_no_share(fleet: FakeFleet, engine: RayEngine) -> None:
    """They have a queue of their own in each engine."""
    for one in fleet.engines.values():
        one.upscaling.gate.clear()
    asked = UpscaleTask("test", Picture(8, 8, 3, bytes(192)), "large", 32, 32)
    enlarging = [engine.upscaling.upscale(asked) for _ in range(MOST)]
    for one in enlarging:
        await anext(one)
    assert len(await accepted(engine, *[task_of()] * MOST)) == MOST


async def test_sets_are_bounded_by_the_sum_as_well(fleet: FakeFleet, engine: RayEngine) -> None:
    """So many may be prepared for one caller at a time; where one ends another may come."""
    for one in fleet.engines.values():
        one.prepare_loras = one.prepare
    loras = [[LoraRef(0.1 * number, name="inks")] for number in range(MOST + 1)]
    preparing = [asyncio.ensure_future(engine.prepare_loras("fake", one, caller="ann")) for one in loras[1:]]
    await asyncio.sleep(0)
    with pytest.raises(TokenQueueFull, match=r"3 sets of 'ann' wait to be prepared already"):
        await engine.prepare_loras("fake", loras[0], caller="ann")
    for one in fleet.engines.values():
        one.turn.set()
    await engine.prepare_loras("fake", loras[0], caller="bob")
    await asyncio.gather(*preparing)
    await engine.prepare_loras("fake", loras[0], caller="ann")


def job_of(caller: str = "ann") -> Job:
    return Job("draw", task_of(caller), Wanted("fake"), (), None, bool)


def test_a_request_at_the_door_is_counted_once() -> None:
    """Its place there is kept until its job is accepted, and the job is on its way to a replica before."""
    inside, job = Inside(2), job_of()
    with inside.holding(job):
        inside.check("ann", ahead=1)
        with pytest.raises(TokenQueueFull, match="2 jobs"):
            inside.check("ann", ahead=2)
        job.seen.add(Accepted.__name__)
        with pytest.raises(TokenQueueFull, match="2 jobs"):
            inside.check("ann", ahead=1)
    inside.check("ann", ahead=1)


def test_when_to_come_again_is_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    """From how long jobs are at work, as one engine does: a mean that follows the last ones."""
    monkeypatch.setattr("time.monotonic", lambda: 111.0)
    inside, waiting, drawn = Inside(1), job_of(), job_of("bob")
    drawn.began = 100.0
    inside.note_finished(drawn)
    with inside.holding(waiting), pytest.raises(TokenQueueFull) as caught:
        inside.check("ann")
    assert caught.value.retry_after == pytest.approx(1.0 + 0.2 * 10.0)


def test_a_job_begins_when_it_leaves_the_queue() -> None:
    """Before it is prepared; whatever else is observed says nothing of that."""
    assert begins(Took(Stage.QUEUED, 1.0))
    assert begins(Prepared())
    assert not any(map(begins, [Took(Stage.FUSED, 1.0), Accepted(0, task_of())]))
