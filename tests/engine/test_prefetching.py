"""LoRA files read while their jobs wait for their turn in the engine."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sdgrpc.diffusion.sampling.predict import predict
from sdgrpc.domain import Finished, ImageReady, Prepared, Progress
from sdgrpc.engine.job import Unwanted
from sdgrpc.engine.local import LocalEngine
from sdgrpc.engine.observing.observer import JobObserver, Observer
from sdgrpc.engine.options import EngineOptions, LoopOptions
from sdgrpc.engine.sets.prefetching import Prefetching
from sdgrpc.lora.dialects.adapt import read_adapter
from sdgrpc.lora.fusing.cache import FusedSets, Lease
from sdgrpc.lora.store.library import LoraLibrary
from tests.engine.sets.test_prefetching import hashed
from tests.engine.test_local import ONE, TWO, images_of, run
from tests.support.tasks import task


class Watching(Observer, JobObserver):
    """Writes down how many files of each job had been read ahead."""

    def __init__(self) -> None:
        self.counts: list[int] = []

    def begin(self, task) -> JobObserver:
        del task
        return self

    def read_ahead(self, files: int) -> None:
        self.counts.append(files)


@asynccontextmanager
async def one_at_a_time(model, folder: Path, observer: Observer | None = None, *, prefetch: bool = True):
    """An engine that draws one job at a time and has parsed none of its files."""
    options = EngineOptions(LoopOptions(max_running_jobs=1), prefetch=prefetch)
    engine = LocalEngine([model], hashed(folder), options, observer)
    try:
        yield engine
    finally:
        await engine.close()


@pytest.fixture
def held(monkeypatch) -> threading.Event:
    """Holds all UNet calls until it is set."""
    gate = threading.Event()

    def gated(*arguments, **options) -> Sequence[torch.Tensor]:
        assert gate.wait(60)
        return predict(*arguments, **options)

    monkeypatch.setattr("sdgrpc.engine.runner.predict", gated)
    return gate


@pytest.fixture
def done(monkeypatch) -> threading.Semaphore:
    """Is released each time that a thread has read a file ahead, or found none to read."""
    count, read_next = threading.Semaphore(0), Prefetching._read_next

    def counted(ahead: Prefetching) -> None:
        read_next(ahead)
        count.release()

    monkeypatch.setattr(Prefetching, "_read_next", counted)
    return count


async def queued(engine: LocalEngine, asked) -> asyncio.Task:
    """Submit a task and read on once it is accepted."""
    job = engine.submit(asked)
    await anext(job)

    async def rest() -> list:
        return [event async for event in job]

    return asyncio.ensure_future(rest())


@pytest.mark.parametrize("prefetch", [True, False])
async def test_a_queued_jobs_files_are_there_at_its_turn(
    tiny_model, lora_dir, held, done, reads, prefetch: bool
) -> None:
    """They are read while another steps, once, are counted, and the picture is the same."""
    watching, both = Watching(), task(loras=(ONE, TWO))
    async with one_at_a_time(tiny_model, lora_dir, watching, prefetch=prefetch) as engine:
        first = await queued(engine, task(steps=3))
        second = await queued(engine, both)
        for _ in both.loras if prefetch else ():
            assert await asyncio.to_thread(done.acquire, timeout=60)
        assert sorted(reads) == (["one", "two"] if prefetch else [])
        held.set()
        assert isinstance((await first)[-1], Finished)
        events = await second
        assert sorted(reads) == ["one", "two"]
        await run(engine, both)
    assert watching.counts == ([2] if prefetch else [])
    async with one_at_a_time(tiny_model, lora_dir, prefetch=False) as engine:
        assert [event.image.data for event in events if isinstance(event, ImageReady)] == await images_of(
            engine, both
        )


async def test_a_job_that_meets_the_read_waits_for_it(tiny_model, lora_dir, monkeypatch) -> None:
    """It does not read the file a second time."""
    reached, go_on, threads = threading.Event(), threading.Event(), []
    begun, acquire = threading.Event(), FusedSets.acquire

    def acquired(sets: FusedSets, members) -> Lease:
        if members:
            begun.set()
        return acquire(sets, members)

    def gated(*arguments, **options):
        threads.append(threading.current_thread().name.rpartition("_")[0])
        reached.set()
        assert go_on.wait(60)
        return read_adapter(*arguments, **options)

    monkeypatch.setattr("sdgrpc.lora.store.contents.read_adapter", gated)
    monkeypatch.setattr(FusedSets, "acquire", acquired)
    async with one_at_a_time(tiny_model, lora_dir) as engine:
        first = await queued(engine, task(steps=2))
        second = await queued(engine, task(loras=(ONE,)))
        assert await asyncio.to_thread(reached.wait, 60)
        await first
        assert await asyncio.to_thread(begun.wait, 60)
        go_on.set()
        kinds = [type(event) for event in await second]
    assert kinds[0] is Prepared
    assert kinds[-1] is Finished
    assert threads == ["sdgrpc-prefetch"]


async def test_nothing_is_read_for_a_set_that_is_there(tiny_model, lora_dir, held, done, reads) -> None:
    """A queued job whose set is fused needs no file; another set of the same file does."""
    async with one_at_a_time(tiny_model, lora_dir) as engine:
        held.set()
        await run(engine, task(loras=(ONE,)))
        assert await asyncio.to_thread(done.acquire, timeout=60)
        forget(engine.library)
        held.clear()
        reads.clear()
        first = await queued(engine, task(steps=2))
        second = await queued(engine, task(loras=(ONE,), seed=9))
        assert not done.acquire(blocking=False)
        third = await queued(engine, task(loras=(replace(ONE, strength=0.1),)))
        assert await asyncio.to_thread(done.acquire, timeout=60)
        assert reads == ["one"]
        held.set()
        await asyncio.gather(first, second, third)
    assert reads == ["one"]


def forget(library: LoraLibrary) -> None:
    """Drop every parsed file but for the last."""
    library.parsed.capacity_bytes, most = 0, library.parsed.capacity_bytes
    library.find(TWO).adapter()
    library.parsed.capacity_bytes = most


async def test_a_cancelled_job_stops_its_read(tiny_model, lora_dir, held, monkeypatch) -> None:
    """What is being read for it ends with the next piece."""
    ended, reached, left = threading.Event(), threading.Event(), threading.Event()

    def read(*_arguments, alive, **_options):
        alive()
        reached.set()
        assert left.wait(60)
        try:
            alive()
        except Unwanted:
            ended.set()
            raise
        pytest.fail("it goes on")

    monkeypatch.setattr("sdgrpc.lora.store.contents.read_adapter", read)
    async with one_at_a_time(tiny_model, lora_dir) as engine:
        first = await queued(engine, task(steps=2))
        job = engine.submit(task(loras=(ONE,)))
        await anext(job)
        assert await asyncio.to_thread(reached.wait, 60)
        await job.aclose()
        left.set()
        assert await asyncio.to_thread(ended.wait, 60)
        held.set()
        assert [event.step for event in await first if isinstance(event, Progress)] == [1, 2]
