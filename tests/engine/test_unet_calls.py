"""One batch of jobs through a device without tensors."""

from __future__ import annotations

import asyncio

import pytest

from sdgrpc.engine.job import Job
from sdgrpc.engine.limits import RowLimits
from sdgrpc.engine.stream import EventStream
from sdgrpc.engine.timing.meter import Meter
from sdgrpc.engine.unet_calls import Calls
from sdgrpc.errors import OutOfMemory
from tests.support.jobs import FakeRunner, make_task


def prepared(runner: FakeRunner, *tasks: dict) -> list[Job]:
    jobs = [
        Job(number, make_task(**task), EventStream(asyncio.get_running_loop()))
        for number, task in enumerate(tasks)
    ]
    for job in jobs:
        runner.prepare(job)
    return jobs


def evaluate(runner: FakeRunner, jobs: list[Job], limits: RowLimits | None = None) -> dict[int, object]:
    calls = Calls(runner, limits or RowLimits(8), Meter())
    return {job.job_id: answer for job, answer in calls.evaluate(jobs)}


async def test_a_call_that_does_not_fit_is_halved_until_it_does():
    """Every job gets its answer, in as few calls as fit, and the next batch starts with what was learned."""
    runner, limits = FakeRunner(memory_rows=2), RowLimits(8)
    jobs = prepared(runner, *[{}] * 5)
    answers = evaluate(runner, jobs, limits)
    assert answers == dict.fromkeys(range(5), "answer to request 1")
    assert runner.calls == [[0, 1], [2, 3], [4]]
    tries: list[int] = []
    runner.before_call = lambda part: tries.append(len(part))
    evaluate(runner, jobs, limits)
    assert tries == [2, 2, 1]
    assert {job.largest_batch for job in jobs} == {1, 2}


async def test_one_job_with_many_rows_is_halved_too():
    """Down to one row: the runner then evaluates its rows apart."""
    runner = FakeRunner(memory_rows=1)
    assert evaluate(runner, prepared(runner, {"image_count": 6})) == {0: "answer to request 1"}
    assert runner.rows == [1]


async def test_a_job_alone_tries_whole_calls_once():
    """Whatever was learned; in company, or once it has failed, it keeps to that."""
    runner, limits = FakeRunner(memory_rows=2), RowLimits(8)
    jobs = prepared(runner, {"image_count": 4}, {"image_count": 4})
    tries: list[int] = []
    runner.before_call = lambda part: tries.append(limits.of(part[0].size))
    evaluate(runner, jobs[:1], limits)
    evaluate(runner, jobs[:1], limits)
    assert tries == [8, 2, 2], "a whole call, and then halves"
    assert jobs[0].whole_calls_fail
    runner.memory_rows = 8
    evaluate(runner, jobs[1:], limits)
    assert (runner.rows, limits.of(jobs[1].size)) == ([2, 2, 4], 4)


async def test_when_not_one_row_fits_every_job_ends_alone_with_that():
    """Jobs of a group have the same size, so none of them can be drawn."""
    runner = FakeRunner(memory_rows=0)
    answers = evaluate(runner, prepared(runner, {}, {}))
    assert all(isinstance(answer, OutOfMemory) for answer in answers.values())
    assert sorted(answers) == [0, 1]
    assert runner.calls == []


async def test_a_size_that_does_not_fit_leaves_others_alone():
    """The bound of one shape says nothing about another's."""
    runner, limits = FakeRunner(memory_rows=1), RowLimits(8)
    evaluate(runner, prepared(runner, {}, {}), limits)
    runner.memory_rows = 8
    evaluate(runner, prepared(runner, *[{"width": 128}] * 3), limits)
    assert runner.calls[-1] == [0, 1, 2]


async def test_a_failure_costs_only_the_job_at_fault():
    """A shared call that fails is run again job by job."""
    runner = FakeRunner()
    answers = evaluate(runner, prepared(runner, {}, {"request_id": "bad step"}, {}))
    assert isinstance(answers.pop(1), ValueError)
    assert answers == {0: "answer to request 1", 2: "answer to request 1"}


async def test_the_meter_counts_the_calls_that_were_made():
    """Rows per call are those that the device saw."""
    runner, meter = FakeRunner(memory_rows=2), Meter()
    list(Calls(runner, RowLimits(8), meter).evaluate(prepared(runner, *[{}] * 4)))
    assert meter.rates()[0] == pytest.approx(2.0)
