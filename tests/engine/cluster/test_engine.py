"""The engine of many replicas, as the API sees it."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from sdgrpc.domain import LoraInfo, LoraQuery, LoraRef, Picture, UploadHeader, UpscaleTask
from sdgrpc.engine.base import Engine
from sdgrpc.engine.cluster.engine import RayEngine
from sdgrpc.engine.observing.observer import JobObserver, Observer
from sdgrpc.errors import Draining, LoraNotFound, QueueFull
from tests.support.engine import FakeEngine
from tests.support.fake_fleet import FakeFleet, opened
from tests.support.tasks import task

PICTURE = Picture(8, 8, 3, bytes(192))
CONTENT = b"a file"
HEADER = UploadHeader("mine", hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))


@pytest.fixture
def fleet() -> FakeFleet:
    """No replica yet."""
    return FakeFleet()


@pytest.fixture
async def engine(fleet: FakeFleet) -> AsyncIterator[RayEngine]:
    """Two replicas."""
    made = await opened(fleet)
    yield made
    await made.close()


def engines_of(fleet: FakeFleet) -> list[FakeEngine]:
    return list(fleet.engines.values())


async def test_it_is_an_engine(engine: RayEngine) -> None:
    """Of the models of any replica."""
    as_engine: Engine = engine
    assert [one.name for one in as_engine.models] == ["fake"]
    assert [one.resident for one in as_engine.model_states()] == [True]
    assert as_engine.status().ready


async def test_questions_are_answered_by_a_replica(fleet: FakeFleet, engine: RayEngine) -> None:
    """Also where one died and nobody knows it yet; failures keep their names."""
    fleet.kill("replica-0")
    for _ in range(3):
        page = await engine.list_loras(LoraQuery("fake", 10))
        assert {one.name for one in page.loras} >= {"inks", "dots"}
    assert (await engine.get_lora(LoraRef(name="inks"), "fake", include_modules=True)).info.name == "inks"
    assert await engine.list_embeddings("fake") is not None
    with pytest.raises(LoraNotFound, match="nowhere"):
        await engine.get_lora(LoraRef(name="nowhere"), "fake", include_modules=True)


async def test_a_set_is_prepared_where_its_jobs_go(fleet: FakeFleet, engine: RayEngine) -> None:
    """And a plan is made there."""
    loras = (LoraRef(0.5, name="inks"),)
    await engine.prepare_loras("fake", loras)
    planned = await engine.plan(task(model="fake", loras=loras))
    assert planned.loras[0].name == "inks"
    async for _ in engine.submit(task(model="fake", loras=loras)):
        pass
    assert [(len(one.planned), len(one.tasks)) for one in engines_of(fleet)].count((1, 1)) == 1


async def test_an_upload_reaches_every_replica(fleet: FakeFleet, engine: RayEngine) -> None:
    """In pieces; who dies on the way does not stop it."""
    upload = await engine.begin_upload(HEADER)
    assert not isinstance(upload, LoraInfo)
    await upload.write(CONTENT[:3])
    fleet.kill("replica-1")
    await upload.write(CONTENT[3:])
    await upload.commit()
    assert "mine" in engines_of(fleet)[0].catalog.files


async def test_a_picture_is_enlarged(engine: RayEngine) -> None:
    """With progress by tile."""
    asked = UpscaleTask("test", PICTURE, "large", 32, 32)
    assert [one.name for one in engine.upscaling.infos] == ["large", "double"]
    kinds = [type(event).__name__ async for event in engine.upscaling.upscale(asked)]
    assert kinds == ["UpscaleAccepted", "UpscaleProgress", "UpscaleProgress", "EncodedImage"]


async def test_a_grid_is_told_as_one_job(fleet: FakeFleet, engine: RayEngine) -> None:
    """Its pictures may come from several replicas."""
    grid = LoraRef(name="inks", strength_grid=((0.0, 0.0), (0.5, 0.5), (1.0, 1.0)))
    events = [event async for event in engine.submit(task(model="fake", steps=2, loras=(grid,)))]
    counts = Counter(type(event).__name__ for event in events)
    assert counts == {"Accepted": 1, "Prepared": 1, "Progress": 2, "ImageReady": 3, "Finished": 1}
    assert sum(len(one.tasks) for one in engines_of(fleet)) == 3


async def test_observers_hear_of_a_job_once(fleet: FakeFleet) -> None:
    """From its acceptance to one end, though it is run twice."""
    heard: list[Any] = []

    class Hearing(JobObserver):
        def ended(self, error: BaseException | None, previews_dropped: int) -> None:
            del previews_dropped
            heard.append(("ended", error))

    class Watching(Observer):
        def begin(self, task: Any) -> JobObserver:
            del task
            heard.append("begun")
            return Hearing()

    engine = await opened(fleet, observer=Watching())
    for one in engines_of(fleet):
        one.gate.clear()
    running = engine.submit(task(model="fake"))
    await anext(running)
    fleet.kill(next(name for name, one in fleet.engines.items() if one.tasks))
    for one in engines_of(fleet):
        one.gate.set()
    async for _ in running:
        pass
    assert heard == ["begun", ("ended", None)]
    await engine.close()


async def test_a_job_counts_once_its_client_knows_that_it_is_drawn(engine: RayEngine) -> None:
    """Not only with the next report: who compares counts before and after a call sees its own job."""
    for number in (1, 2):
        async for _ in engine.submit(task(model="fake", steps=1)):
            pass
        assert engine.status().jobs_finished == number


async def test_a_full_queue_is_refused_at_the_door(fleet: FakeFleet, engine: RayEngine) -> None:
    """Where all replicas together have no room."""
    for name, queued in (("replica-0", 2), ("replica-1", 0)):
        report = await fleet.report(name)
        full = replace(report.status, queue_size=1, queued=queued)
        engine.keeper.note(name, replace(report, status=full))
    with pytest.raises(QueueFull, match="2 jobs wait already on all replicas"):
        engine.check_room()


async def test_draining_waits_for_the_last_job(fleet: FakeFleet, engine: RayEngine) -> None:
    """New ones are refused meanwhile; those that are left at the end are told to go elsewhere."""
    for one in engines_of(fleet):
        one.gate.clear()
    running = engine.submit(task(model="fake"))
    await anext(running)
    await anext(running)
    draining = asyncio.ensure_future(engine.drain())
    await asyncio.sleep(0)
    with pytest.raises(Draining):
        engine.check_room()
    assert not draining.done()
    waiting, then = asyncio.ensure_future(anext(running)), list[int]()
    waiting.add_done_callback(lambda _: then.append(fleet.closed))
    await asyncio.sleep(0)
    await engine.close()
    with pytest.raises(Draining, match="another"):
        await waiting
    await draining
    assert then == [0]  # while there is a Ray that tells of deaths
    assert fleet.closed == 1
