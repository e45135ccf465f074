"""Deadlines on a device without tensors and a clock of the test's own: the work ends before its next step."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from sdgrpc.domain import ImageReady, Prepared
from sdgrpc.engine.job import Job
from sdgrpc.engine.loop import EngineLoop
from sdgrpc.engine.options import LoopOptions
from sdgrpc.engine.stream import EventStream
from sdgrpc.errors import DeadlineTooSoon
from sdgrpc.lora.fusing.cache import FusedSets
from tests.support.jobs import FakeRunner, make_task


class Clock:
    """Stands still until somebody sets it on."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class LateAt(FakeRunner):
    """Sets the clock past the deadline while it does what is named."""

    def __init__(self, where: str, clock: Clock) -> None:
        super().__init__(before_call=self._predicting)
        self.where, self.clock = where, clock
        self.finished: list[int] = []

    def _predicting(self, _jobs) -> None:
        if self.where == "stepping":
            self.clock.now = 100.0

    def prepare(self, job: Job) -> bool:
        done = super().prepare(job)
        if self.where == "preparing":
            self.clock.now = 100.0
        return done

    def advance(self, job: Job, prediction: object) -> bool:
        done = super().advance(job, prediction)
        if self.where == "the last step" and done:
            self.clock.now = 100.0
        return done

    def finish(self, job: Job) -> None:
        self.finished.append(job.job_id)
        super().finish(job)
        if self.where == "finishing":
            self.clock.now = 100.0


async def events(job: Job) -> tuple[list, BaseException | None]:
    seen = []
    try:
        async for item in job.stream:
            seen.append(item.event)  # noqa: PERF401 - what came before an error is wanted too
    except DeadlineTooSoon as error:
        return seen, error
    return seen, None


@pytest.mark.parametrize(
    ("where", "calls", "finished"),
    [
        ("the queue", 0, 0),
        ("preparing", 0, 0),
        ("stepping", 1, 0),
        ("the last step", 3, 0),
        ("finishing", 3, 1),
    ],
)
async def test_a_deadline_that_passes_ends_the_work(where: str, calls: int, finished: int) -> None:
    """Nothing is begun after it; what the job held is given back, and the next job is drawn."""
    clock = Clock()
    runner = LateAt(where, clock)
    loop = EngineLoop(runner, LoopOptions(), clock=clock)
    ids = itertools.count()
    try:
        stream = EventStream(asyncio.get_running_loop())
        job = Job(next(ids), make_task(steps=3), stream, clock=clock, deadline=10.0)
        if where == "the queue":
            clock.now = 100.0
        loop.queue.submit(job)
        seen, error = await events(job)
        assert isinstance(error, DeadlineTooSoon)
        assert (len(runner.calls), len(runner.finished)) == (calls, finished)
        assert runner.released == ([] if where == "the queue" else [job.job_id])
        assert any(isinstance(event, Prepared) for event in seen) == (calls > 0)
        assert any(isinstance(event, ImageReady) for event in seen) == (finished > 0)
        assert loop.queue.counts()[:2] == (0, 0)
        after = Job(next(ids), make_task(), EventStream(asyncio.get_running_loop()), clock=clock)
        runner.where = ""
        loop.queue.submit(after)
        assert (await events(after))[1] is None
    finally:
        loop.close()


async def test_a_deadline_between_fusing_and_encoding(open_tiny, monkeypatch) -> None:
    """A set that took too long to fuse is kept, and nothing is encoded for nobody."""
    from sdgrpc.engine import runner
    from tests.engine.test_local import ONE, run
    from tests.support.tasks import task

    encoded = []
    monkeypatch.setattr(runner, "encode", lambda *_, **__: encoded.append(1))
    acquire = FusedSets.acquire
    async with open_tiny() as engine:

        def late(sets, members):
            lease = acquire(sets, members)
            for job in engine._loop.queue.phases.begun:
                job.deadline = job.clock() - 1
            return lease

        monkeypatch.setattr(FusedSets, "acquire", late)
        with pytest.raises(DeadlineTooSoon, match="deadline passed"):
            await run(engine, task(loras=(ONE,)))
        assert encoded == []
        assert not [one for one in engine.status().resident_sets if one.in_use]
        assert engine.status().lora_sets == 1


async def test_a_job_with_no_time_at_all_is_refused_by_the_queue(open_tiny) -> None:
    """Once its size is known, with what it would take."""
    from tests.engine.test_local import run
    from tests.support.tasks import task

    async with open_tiny() as engine:
        await run(engine, task(steps=5))
        with pytest.raises(DeadlineTooSoon, match="this would take about"):
            async for _ in engine.submit(task(steps=50), time_limit=1e-6):
                pass
        assert engine.status().queued == 0
