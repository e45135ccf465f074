"""Jobs on replicas that die, refuse, or leave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import pytest

from sdgrpc.domain import (
    Accepted,
    Event,
    Finished,
    ImageReady,
    LoraRef,
    Output,
    Prepared,
    PreviewKind,
    PreviewOptions,
    Progress,
    Task,
)
from sdgrpc.engine.cluster.engine import RayEngine
from sdgrpc.engine.cluster.running import DEATHS
from sdgrpc.errors import (
    Draining,
    EngineFailed,
    InvalidRequest,
    LoraNotFound,
    OutOfMemory,
    QueueFull,
    Unexpected,
)
from tests.support.engine import FakeEngine
from tests.support.fake_fleet import FakeFleet, LibraryEngine, opened
from tests.support.tasks import task as small_task

INKS = LoraRef(0.5, name="inks")


def task_of(**changes: Any) -> Task:
    return small_task(model="fake", steps=3, image_count=2, loras=(INKS,), **changes)


@pytest.fixture
def fleet() -> FakeFleet:
    """No replica yet."""
    return FakeFleet()


@pytest.fixture
async def engine(fleet: FakeFleet) -> AsyncIterator[RayEngine]:
    """Two replicas, of which nobody asks how they are."""
    made = await opened(fleet)
    yield made
    await made.close()


def one_drawing(fleet: FakeFleet) -> str:
    """The replica that has the job."""
    return next(name for name, engine in fleet.engines.items() if engine.status().running)


async def until(true: Callable[[], object]) -> None:
    """Let others go on until something is true that no event tells of."""
    while not true():  # noqa: ASYNC110
        await asyncio.sleep(0)


async def told(engine: RayEngine, task: Task) -> list[Event]:
    return [event async for event in engine.submit(task)]


def kinds_of(events: list[Event]) -> list[tuple[type, int]]:
    return [(type(event), getattr(event, "step", getattr(event, "index", 0))) for event in events]


GRAMMAR = [
    (Accepted, 0),
    (Prepared, 0),
    *((Progress, step) for step in (1, 2, 3)),
    *((ImageReady, index) for index in (0, 1)),
    (Finished, 0),
]


async def test_a_job_is_told_as_by_one_engine(engine: RayEngine) -> None:
    """Every event once and in order."""
    assert kinds_of(await told(engine, task_of())) == GRAMMAR


@pytest.mark.parametrize("number", range(len(GRAMMAR) - 1))
async def test_nobody_sees_a_death(fleet: FakeFleet, engine: RayEngine, number: int) -> None:
    """At whichever event it comes: no event is missing or comes twice, and the pictures are the same."""
    undisturbed = await told(engine, task_of())
    for one in fleet.engines.values():
        one.gate.clear()
    events = []
    async with aclosing(engine.submit(task_of())) as running:
        async for event in running:
            events.append(event)
            if len(events) == 2:
                for one in fleet.engines.values():
                    one.gate.set()
            if len(events) == number + 1:
                fleet.kill(next(name for name in list(fleet.engines) if fleet.engines[name].tasks[-1:]))
                for one in fleet.engines.values():
                    one.gate.set()
    assert kinds_of(events) == GRAMMAR
    pictures = [event.image.data for event in events if isinstance(event, ImageReady)]
    assert pictures == [event.image.data for event in undisturbed if isinstance(event, ImageReady)]


async def test_the_only_replica_is_waited_for() -> None:
    """A job whose replica died is drawn by the one that is started in its place."""
    fleet = FakeFleet()
    engine = await opened(fleet, count=1)
    fleet.engines["replica-0"].gate.clear()
    running = engine.submit(task_of())
    assert isinstance(await anext(running), Accepted)
    fleet.kill("replica-0")
    assert kinds_of([event async for event in running]) == GRAMMAR[1:]
    assert fleet.starts["replica-0"] == 2
    await engine.close()


async def test_a_job_that_kills_is_given_up(fleet: FakeFleet, engine: RayEngine) -> None:
    """After the second replica, so that no job takes down all of them."""

    def dying() -> FakeEngine:
        made = FakeEngine()
        made.gate.clear()
        return made

    fleet._engine = dying
    for one in fleet.engines.values():
        one.gate.clear()
    running = engine.submit(task_of())
    await anext(running)
    await anext(running)
    for _ in range(DEATHS - 1):
        fleet.kill(one_drawing(fleet))
        waiting = asyncio.ensure_future(anext(running))
        await until(lambda: any(one.status().running for one in fleet.engines.values()))
    fleet.kill(one_drawing(fleet))
    with pytest.raises(EngineFailed, match="2 replicas died"):
        await waiting


async def test_a_death_before_the_job_is_not_the_jobs() -> None:
    """It goes to a replica that is dead already, then to one that dies with it; the third draws it."""
    fleet = FakeFleet()
    engine = await opened(fleet, count=1)
    fleet.kill("replica-0")
    running = engine.submit(task_of())
    assert isinstance(await anext(running), Accepted)
    fleet.kill("replica-0")
    assert kinds_of([event async for event in running]) == GRAMMAR[1:]
    assert fleet.starts["replica-0"] == 3
    await engine.close()


@pytest.mark.parametrize("refusal", [QueueFull("full"), LoraNotFound("inks", "not here")])
async def test_another_replica_takes_what_one_refuses(
    fleet: FakeFleet, engine: RayEngine, refusal: Exception
) -> None:
    """Where its queue is full, or a file is not in its folders."""
    first = next(iter(fleet.engines.values()))
    first.failures["submit"] = refusal
    for _ in range(4):  # whichever is chosen first
        assert kinds_of(await told(engine, task_of())) == GRAMMAR
    assert not first.tasks


@pytest.mark.parametrize(
    "refusal",
    [QueueFull("full", retry_after=3.0), OutOfMemory("large")],
)
async def test_what_all_refuse_is_refused(fleet: FakeFleet, engine: RayEngine, refusal: Exception) -> None:
    """By its own name and words."""
    for one in fleet.engines.values():
        one.failures["submit"] = refusal
    with pytest.raises(type(refusal), match=str(refusal)):
        await told(engine, task_of())


async def test_a_failure_after_the_start_is_the_jobs(fleet: FakeFleet, engine: RayEngine) -> None:
    """It is not tried elsewhere: the same would happen there."""
    for one in fleet.engines.values():
        one.failures["step"] = OutOfMemory("too large")
    with pytest.raises(OutOfMemory, match="too large"):
        await told(engine, task_of())
    assert sum(len(one.tasks) for one in fleet.engines.values()) == 1


async def test_what_has_no_name_says_nothing(fleet: FakeFleet, engine: RayEngine) -> None:
    """A bug of a replica arrives as its log's id."""
    for one in fleet.engines.values():
        one.failures["step"] = ValueError("/secret/path")
    with pytest.raises(Unexpected) as caught:
        await told(engine, task_of())
    assert "secret" not in str(caught.value)


async def test_who_leaves_ends_the_work(fleet: FakeFleet, engine: RayEngine) -> None:
    """Closing the events drops the job on its replica."""
    for one in fleet.engines.values():
        one.gate.clear()
    running = engine.submit(task_of())
    await anext(running)
    await anext(running)
    drawing = fleet.engines[one_drawing(fleet)]
    await running.aclose()
    await until(lambda: drawing.cancelled)


@pytest.mark.parametrize("refusal", [QueueFull("full"), Draining("ends")])
async def test_full_queues_do_not_end_an_accepted_job(
    fleet: FakeFleet, engine: RayEngine, refusal: Exception
) -> None:
    """Where the job's replica died and no other has room: it waits until one has."""
    for one in fleet.engines.values():
        one.gate.clear()
    running = engine.submit(task_of())
    events = [await anext(running), await anext(running)]
    drawing = one_drawing(fleet)
    other = next(one for name, one in fleet.engines.items() if name != drawing)
    other.failures["submit"] = refusal
    fleet._engine = lambda: LibraryEngine(failures={"submit": refusal})
    waiting = asyncio.ensure_future(anext(running))
    fleet.kill(drawing)
    await until(lambda: fleet.starts[drawing] == 2 and len(engine.keeper.ready) == 2)
    for name in engine.keeper.ready:
        engine.keeper.note(name, await fleet.report(name))
    assert not waiting.done()
    for one in fleet.engines.values():
        one.failures.clear()
        one.gate.set()
    for name in engine.keeper.ready:
        engine.keeper.note(name, await fleet.report(name))
    events += [await waiting, *[event async for event in running]]
    assert kinds_of(events) == GRAMMAR


async def test_previews_are_made_while_they_are_wanted(fleet: FakeFleet, engine: RayEngine) -> None:
    """A replica is told when the reader of a job's previews comes and goes."""
    wants = [False]
    every = Output(preview=PreviewOptions(PreviewKind.PICTURE))
    for one in fleet.engines.values():
        one.gate.clear()
    running = engine.submit(task_of(output=every), previews_wanted=lambda: wants[0])
    await anext(running)
    await anext(running)
    number = next(iter(fleet._replicas[one_drawing(fleet)]._jobs))
    drawing = fleet._replicas[one_drawing(fleet)]._jobs[number]
    assert not drawing.previews
    wants[0] = True
    for one in fleet.engines.values():
        one.gate.set()
    await anext(running)
    await until(lambda: drawing.previews)
    await running.aclose()


async def test_a_set_stays_where_it_is(fleet: FakeFleet, engine: RayEngine) -> None:
    """Jobs of one set go to one replica, by its reports too."""
    for _ in range(4):
        await told(engine, task_of())
        for name in engine.keeper.ready:
            engine.keeper.note(name, await fleet.report(name))
    assert sorted(len(one.tasks) for one in fleet.engines.values()) == [0, 4]


async def test_bad_input_is_refused_once(fleet: FakeFleet, engine: RayEngine) -> None:
    """What is wrong with a request is wrong everywhere."""
    for one in fleet.engines.values():
        one.failures["prepare"] = InvalidRequest([])
    with pytest.raises(InvalidRequest):
        await told(engine, task_of())
    assert sum(len(one.tasks) for one in fleet.engines.values()) == 1
