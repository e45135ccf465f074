"""One task's state."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from sdgrpc.domain import Output, PreviewKind, PreviewOptions, Progress
from sdgrpc.engine.job import Job
from sdgrpc.engine.stream import EventStream
from tests.support.jobs import make_task


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def make_job(**task) -> Any:
    return Job(0, make_task(**task), EventStream(asyncio.get_running_loop()), clock=Clock())


async def progress_of(job: Job) -> Progress:
    job.stream.end()
    return [item.event async for item in job.stream][-1]  # type: ignore[return-value]


async def test_the_remaining_time_follows_from_the_steps_done():
    """Two of six steps in ten seconds leave twenty."""
    job = make_job(steps=6)
    job.clock.now = 5.0
    job.times.stepping = 5.0
    job.clock.now = 15.0
    job.progress(2, 6, 700.0, lambda: ())
    assert await progress_of(job) == Progress(2, 6, 700.0, 10.0, 20.0)


@pytest.mark.parametrize(
    ("every", "expected"), [(1, [1, 2, 3, 4, 5]), (0, [1, 2, 3, 4, 5]), (2, [2, 4]), (3, [3]), (9, [])]
)
async def test_previews_come_every_n_steps_but_not_at_the_last(every, expected):
    """The last step has no preview, since the image follows."""
    job = make_job(steps=6, output=Output(preview=PreviewOptions(PreviewKind.PICTURE, every)))
    assert [step for step in range(1, 7) if job.wants_preview(step, 6)] == expected


async def test_no_previews_unless_asked_for():
    """Without a preview kind no step has one."""
    assert not any(make_job(steps=6).wants_preview(step, 6) for step in range(1, 7))


async def test_where_the_time_went():
    """The phases add up to the time since the submission."""
    job = make_job()
    job.times.submitted, job.times.preparing, job.times.prepared, job.times.denoised = 1.0, 3.0, 4.0, 9.0
    job.clock.now = 11.0
    finished = job.finished()
    assert (finished.queued_seconds, finished.prepared_seconds) == (2.0, 1.0)
    assert (finished.denoised_seconds, finished.decoded_seconds) == (5.0, 2.0)


async def test_closing_twice_releases_once():
    """What a job held goes back exactly once."""
    job = make_job()
    released = []
    job.work = SimpleNamespace(close=lambda: released.append(1))
    job.close()
    job.close()
    assert released == [1]
