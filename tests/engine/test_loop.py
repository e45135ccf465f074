"""The engine's threads, on a device without tensors."""

from __future__ import annotations

import asyncio
import itertools
import threading
from contextlib import contextmanager

import pytest

from sdgrpc.domain import Finished, ImageReady, Prepared, Progress
from sdgrpc.engine.job import Job
from sdgrpc.engine.loop import EngineLoop
from sdgrpc.engine.options import LoopOptions
from sdgrpc.engine.stream import EventStream
from sdgrpc.errors import Draining, OutOfMemory, QueueFull
from tests.support.jobs import FakeRunner, make_task


class Harness:
    """A loop, its fake device, and jobs for it."""

    def __init__(self, runner: FakeRunner, options: LoopOptions) -> None:
        self.runner = runner
        self.loop = EngineLoop(runner, options)
        self._ids = itertools.count()

    def job(self, **task) -> Job:
        return Job(next(self._ids), make_task(**task), EventStream(asyncio.get_running_loop()))

    def submit(self, **task) -> Job:
        job = self.job(**task)
        self.loop.queue.submit(job)
        return job


@contextmanager
def harness(runner: FakeRunner | None = None, **options):
    made = Harness(runner or FakeRunner(), LoopOptions(**options))
    try:
        yield made
    finally:
        made.loop.close()


class Gate:
    """Holds the step thread before a call until the test lets it go."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.open = threading.Event()

    def __call__(self, _jobs) -> None:
        self.reached.set()
        assert self.open.wait(30)

    async def wait(self) -> None:
        assert await asyncio.to_thread(self.reached.wait, 30)


async def events(job: Job) -> list:
    return [item.event async for item in job.stream]


async def test_a_job_runs_to_its_end():
    """The stream is prepared, every step, every image, finished; what the job held is given back."""
    with harness() as h:
        job = h.submit(steps=3, image_count=2)
        seen = await events(job)
        assert [type(event) for event in seen] == [Prepared, *[Progress] * 3, *[ImageReady] * 2, Finished]
        assert [event.step for event in seen if isinstance(event, Progress)] == [1, 2, 3]
        assert h.runner.released == [job.job_id]
        assert job.work is None


async def test_phases_run_on_their_own_threads():
    """Preparing, stepping and finishing never share a thread, so none stops another."""
    with harness() as h:
        await events(h.submit())
        kinds = {name.rsplit("_", 1)[0] for name in h.runner.threads}
        assert kinds == {"sdgrpc-prepare", "sdgrpc-step", "sdgrpc-finish"}


async def test_jobs_of_a_group_share_calls_from_whatever_step_they_are_at():
    """A job that comes later joins the calls of one that is under way."""
    gate = Gate()
    with harness(FakeRunner(gate)) as h:
        first = h.submit(steps=5)
        await gate.wait()
        second = h.submit(steps=2)
        iterator = aiter(second.stream)
        assert isinstance((await anext(iterator)).event, Prepared)
        gate.open.set()
        first_seen = await events(first)
        assert first_seen[-1].largest_batch == 2
        assert h.runner.calls[0] == [first.job_id]
        assert [first.job_id, second.job_id] in h.runner.calls


async def test_a_full_queue_refuses_at_once():
    """Beyond queue_size a job is refused with the time after which to try again; the others go on."""
    gate = Gate()
    with harness(FakeRunner(gate), queue_size=1, max_running_jobs=1) as h:
        running = h.submit()
        await gate.wait()
        waiting = h.submit()
        with pytest.raises(QueueFull, match="queue_size") as refusal:
            h.submit()
        assert refusal.value.retry_after >= 1.0
        gate.open.set()
        assert isinstance((await events(running))[-1], Finished)
        assert isinstance((await events(waiting))[-1], Finished)


async def test_a_cancelled_job_stops_before_its_next_step():
    """A job that is cancelled during a call gets no further one, and gives back what it held."""
    gate = Gate()
    with harness(FakeRunner(gate)) as h:
        job = h.submit(steps=50)
        await gate.wait()
        h.loop.cancel(job)
        gate.open.set()
        await events(job)
        assert h.runner.calls == [[job.job_id]]
        assert h.runner.released == [job.job_id]


async def test_a_cancelled_job_leaves_the_queue():
    """A job that is cancelled while it waits is never prepared and makes room at once."""
    gate = Gate()
    with harness(FakeRunner(gate), queue_size=1, max_running_jobs=1) as h:
        running = h.submit()
        await gate.wait()
        waiting = h.submit()
        h.loop.cancel(waiting)
        assert await events(waiting) == []
        replacement = h.submit()
        gate.open.set()
        await events(running)
        await events(replacement)
        # Two jobs that finish side by side may do so in either order.
        assert sorted(h.runner.released) == sorted([running.job_id, replacement.job_id])


@pytest.mark.parametrize("where", ["prepare", "finish"])
async def test_a_failing_job_ends_alone(where):
    """A failure ends its own stream with the error; the next job is drawn as if nothing had been."""
    with harness() as h:
        bad = h.submit(prompt=f"bad {where}")
        with pytest.raises(ValueError, match=where):
            await events(bad)
        assert isinstance((await events(h.submit()))[-1], Finished)


async def test_a_failing_call_costs_only_the_job_at_fault():
    """When a shared call fails, its jobs run alone: the culprit fails, its neighbour finishes."""
    gate = Gate()
    with harness(FakeRunner(gate)) as h:
        good = h.submit()
        await gate.wait()
        bad = h.submit(request_id="bad step")
        assert isinstance((await anext(aiter(bad.stream))).event, Prepared)
        gate.open.set()
        with pytest.raises(ValueError, match="bad step"):
            await events(bad)
        assert isinstance((await events(good))[-1], Finished)
        assert [good.job_id, bad.job_id] in h.runner.calls


async def test_jobs_end_where_the_memory_does_and_the_loop_lives():
    """A size of which not one row fits fails with RESOURCE_EXHAUSTED; what fits is drawn before and after."""
    runner = FakeRunner(memory_rows=2)
    with harness(runner) as h:
        many = [h.submit() for _ in range(5)]
        assert all(isinstance(seen[-1], Finished) for seen in [await events(job) for job in many])
        assert max(runner.rows) <= 2
        runner.memory_rows = 0
        with pytest.raises(OutOfMemory) as failure:
            await events(h.submit())
        assert (failure.value.code, failure.value.reason) == ("RESOURCE_EXHAUSTED", "OUT_OF_MEMORY")
        runner.memory_rows = 2
        assert isinstance((await events(h.submit()))[-1], Finished)


async def test_each_model_has_its_own_most_rows():
    """The operator's bound for a model holds for its jobs only."""
    gate = Gate()
    with harness(FakeRunner(gate), max_rows_per_call=3, rows_by_model={"big": 1}) as h:
        first = h.submit(model="big")
        await gate.wait()
        jobs = [first, *(h.submit(model="big") for _ in range(2)), *(h.submit(prompt="b") for _ in range(3))]
        for job in jobs[1:]:
            assert isinstance((await anext(aiter(job.stream))).event, Prepared)
        gate.open.set()
        ended = await asyncio.gather(*(events(job) for job in jobs))
        assert [seen[-1].largest_batch for seen in ended] == [1, 1, 1, 3, 3, 3]


async def test_zero_steps_go_straight_to_the_images():
    """A task of strength 0 needs no call at all."""
    with harness() as h:
        seen = await events(h.submit(strength=0.0))
        assert [type(event) for event in seen] == [Prepared, ImageReady, Finished]
        assert h.runner.calls == []


async def test_draining_lets_jobs_finish_and_takes_no_new_ones():
    """After drain starts, new jobs are refused as UNAVAILABLE and the running one ends as usual."""
    gate = Gate()
    with harness(FakeRunner(gate)) as h:
        job = h.submit()
        await gate.wait()
        drained = asyncio.create_task(asyncio.to_thread(h.loop.queue.wait_idle))
        while True:
            try:
                h.loop.queue.check_room()
            except Draining:
                break
            await asyncio.sleep(0)
        assert not drained.done()
        gate.open.set()
        assert isinstance((await events(job))[-1], Finished)
        await drained


async def test_closing_ends_every_stream():
    """Closing tells the readers of running and waiting jobs that the server stopped; twice is no error."""
    gate = Gate()
    h = Harness(FakeRunner(gate), LoopOptions(max_running_jobs=1))
    running = h.submit(steps=100)
    await gate.wait()
    waiting = h.submit()
    gate.open.set()
    await asyncio.to_thread(h.loop.close)
    h.loop.close()
    for job in (running, waiting):
        with pytest.raises(Draining):
            await events(job)
    assert h.loop.queue.counts()[:2] == (0, 0)


async def test_many_jobs_all_finish():
    """A hundred jobs of several groups, cancelled here and there, leave nothing behind."""
    with harness(queue_size=200) as h:
        jobs = [h.submit(prompt="abc"[i % 3], steps=1 + i % 4) for i in range(100)]
        for job in jobs[::10]:
            h.loop.cancel(job)
        ended = await asyncio.gather(*(events(job) for job in jobs))
        for index, seen in enumerate(ended):
            if index % 10:
                assert isinstance(seen[-1], Finished)
        await asyncio.to_thread(h.loop.queue.wait_idle)
        assert h.loop.queue.counts()[:2] == (0, 0)
