"""Which replicas there are, and that those which die or hang come back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from sdgrpc.domain import Event, ReplicaState, Task
from sdgrpc.engine.cluster import keeper as keeping
from sdgrpc.engine.cluster.engine import RayEngine
from sdgrpc.engine.cluster.messages.carrying import Carried
from sdgrpc.errors import EngineFailed, ModelError, ReplicaNotFound
from tests.support.fake_fleet import FakeFleet, LibraryEngine, opened
from tests.support.tasks import task


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replicas are asked without a pause, and started again at once."""
    monkeypatch.setattr(keeping, "REPORT_SECONDS", 0.0)
    monkeypatch.setattr(keeping, "SLOWEST_START", 0.0)


@pytest.fixture
def fleet() -> FakeFleet:
    """No replica yet."""
    return FakeFleet()


@pytest.fixture
async def engine(fleet: FakeFleet) -> AsyncIterator[RayEngine]:
    """Two replicas that are followed."""
    made = await opened(fleet)
    following = asyncio.ensure_future(made.failed())
    yield made
    following.cancel()
    await made.close()


async def until(engine: RayEngine, ready: int) -> None:
    """Wait for so many replicas that take jobs."""
    while len(engine.keeper.ready) != ready:
        await engine.keeper.changed()


async def test_a_dead_replica_comes_back(fleet: FakeFleet, engine: RayEngine) -> None:
    """Though no job was there to notice, under its name."""
    fleet.kill("replica-1")
    while fleet.starts["replica-1"] < 2:
        await engine.keeper.changed()
    await until(engine, 2)
    assert fleet.starts["replica-0"] == 1


async def test_one_that_hangs_is_ended(fleet: FakeFleet) -> None:
    """It answers nothing for as long as an engine may be silent."""
    engine = await opened(fleet, patience=0.01)
    following = asyncio.ensure_future(engine.failed())
    fleet.deaf.add("replica-0")
    while fleet.starts["replica-0"] < 2:
        await engine.keeper.changed()
    await until(engine, 2)
    following.cancel()
    await engine.close()


async def test_a_job_on_one_that_hangs_is_drawn_elsewhere(fleet: FakeFleet) -> None:
    """Its client sees the events that are left, each once."""
    engine = await opened(fleet, patience=0.01)
    following = asyncio.ensure_future(engine.failed())
    for one in fleet.engines.values():
        one.gate.clear()
    running = engine.submit(task(model="fake", steps=2))
    assert [type(await anext(running)).__name__ for _ in range(2)] == ["Accepted", "Prepared"]
    name = next(name for name, one in fleet.engines.items() if one.status().running)
    other = next(one for one in fleet.engines if one != name)
    fleet.engines[other].gate.set()
    fleet.deaf.add(name)
    names = [type(event).__name__ async for event in running]
    assert names == ["Progress", "Progress", "ImageReady", "Finished"]
    assert fleet.starts[name] == 2
    following.cancel()
    await engine.close()


async def test_counts_never_fall(fleet: FakeFleet, engine: RayEngine) -> None:
    """What a replica had drawn before it died stays counted."""
    for _ in range(3):
        async for _ in engine.submit(task(model="fake")):
            pass
    while sum(one.jobs_finished for one in engine.status().replicas) < 3:
        await engine.keeper.changed()
    for name in ("replica-0", "replica-1"):
        fleet.kill(name)
    await until(engine, 0)
    await until(engine, 2)
    assert engine.status().jobs_finished == 3


async def test_each_replica_is_told_of(fleet: FakeFleet, engine: RayEngine) -> None:
    """With its process and where it is; one that starts has neither."""
    assert [one.state for one in engine.status().replicas] == [ReplicaState.READY] * 2
    assert all(one.node == "here" and one.process_id for one in engine.status().replicas)
    fleet.kill("replica-0")
    await until(engine, 1)
    first = engine.status().replicas[0]
    assert (first.name, first.state, first.process_id) == ("replica-0", ReplicaState.STARTING, 0)


async def test_more_are_added(engine: RayEngine) -> None:
    """They take jobs once they are open."""
    assert engine.replicas.scale(4, 4) == 2
    await until(engine, 4)
    assert list(engine.keeper.ready) == ["replica-0", "replica-1", "replica-2", "replica-3"]


async def test_one_that_leaves_finishes_first(fleet: FakeFleet, engine: RayEngine) -> None:
    """Its job ends there, and then its process."""
    for one in fleet.engines.values():
        one.gate.clear()
    running = engine.submit(task(model="fake", steps=2))
    await anext(running)
    await anext(running)
    name = next(name for name, one in fleet.engines.items() if one.status().running)
    drawing = fleet.engines[name]
    assert engine.replicas.drain(name) == [name]
    assert name not in engine.keeper.ready
    state = next(one for one in engine.status().replicas if one.name == name).state
    assert state is ReplicaState.DRAINING
    drawing.gate.set()
    assert len([event async for event in running]) == 4
    while name in fleet.engines:
        await engine.keeper.changed()
    assert drawing.finished == 1
    (left,) = engine.status().replicas
    assert left.name != name
    assert engine.status().jobs_finished == 1


async def test_a_node_is_drained_whole(fleet: FakeFleet, engine: RayEngine) -> None:
    """By its address; since one replica at least is kept, another is started. Others are not found."""
    with pytest.raises(ReplicaNotFound, match="elsewhere"):
        engine.replicas.drain("elsewhere")
    assert engine.replicas.drain("here") == ["replica-0", "replica-1"]
    while list(engine.keeper.ready) != ["replica-2"] or len(fleet.engines) > 1:
        await engine.keeper.changed()


async def test_waiting_jobs_move(fleet: FakeFleet, engine: RayEngine) -> None:
    """A job that was accepted and has not begun leaves the replica that is drained, and is told once."""

    class Waiting(LibraryEngine):
        async def submit(self, task: Task, **keywords: Any) -> AsyncGenerator[Event, None]:
            async with aclosing(super().submit(task, **keywords)) as events:
                yield await anext(events)
                await asyncio.Event().wait()

    for name in fleet.engines:
        fleet.replace(name, Waiting())
    running = engine.submit(task(model="fake", steps=2))
    await anext(running)
    name = next(name for name, count in engine.keeper._router.loads.items() if count)
    other = next(one for one in engine.keeper.ready if one != name)
    fleet.replace(other, LibraryEngine())
    engine.replicas.drain(name)
    names = [type(event).__name__ async for event in running]
    assert names == ["Prepared", "Progress", "Progress", "ImageReady", "Finished"]


async def test_without_any_replica_the_engine_fails(fleet: FakeFleet, engine: RayEngine) -> None:
    """Once each of them died three times while it started; jobs are told so."""
    failed = asyncio.ensure_future(engine.failed())
    fleet.unopened = Carried.of(ModelError("the disk is gone"))
    for name in ("replica-0", "replica-1"):
        fleet.kill(name)
    await failed
    with pytest.raises(EngineFailed, match="no replica is left"):
        await anext(engine.submit(task(model="fake")))


async def test_what_keeps_a_replica_from_opening_is_said(fleet: FakeFleet) -> None:
    """By the error of its engine."""
    fleet.unopened = Carried.of(ModelError("no such folder"))
    with pytest.raises(ModelError, match="no such folder"):
        await opened(fleet)
