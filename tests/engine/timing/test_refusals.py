"""Which deadlines can be kept."""

from __future__ import annotations

import pytest

from sdgrpc.engine.job import Job
from sdgrpc.engine.options import LoopOptions
from sdgrpc.engine.queueing.phases import Phases
from sdgrpc.engine.timing.estimates import ENOUGH, Estimates
from sdgrpc.engine.timing.refusals import Door
from sdgrpc.errors import DeadlineTooSoon
from tests.support.jobs import make_task


class World:
    """A door whose calls of one row take a second, and jobs before it."""

    def __init__(self, **options) -> None:
        estimates = Estimates()
        for _ in range(ENOUGH):
            estimates.called(make_task(), 1, 1.0)
            estimates.finished(make_task(), 2.0)
        self.door = Door(LoopOptions(**options), estimates)
        self.jobs = Phases()
        self.count = 0

    def job(self, steps: int = 10, seconds: float | None = None, **task) -> Job:
        self.count += 1
        made = Job(self.count, make_task(steps=steps, **task), stream=None, clock=lambda: 50.0)
        made.deadline = None if seconds is None else 50.0 + seconds
        return made

    def running(self, *steps: int) -> None:
        for number in steps:
            job = self.job(number)
            self.jobs.stepping[job.job_id] = job

    def queued(self, *steps: int) -> None:
        self.jobs.queued.extend(self.job(number) for number in steps)

    def refuses(self, job: Job, place: int | None = None) -> bool:
        self.jobs.queued.append(job)
        place = len(self.jobs.queued) - 1 if place is None else place
        try:
            self.door.check_deadline(job, self.jobs, place)
        except DeadlineTooSoon:
            return True
        finally:
            self.jobs.queued.remove(job)
        return False


def test_a_job_that_takes_longer_than_its_deadline_is_refused() -> None:
    """Ten steps of a second and two seconds to decode; the message says so and what to do."""
    world = World()
    assert not world.refuses(world.job(10, seconds=12.5))
    assert not world.refuses(world.job(10))
    with pytest.raises(DeadlineTooSoon, match="12 s: 10 s for 10 steps of 64x64, 2 s to decode") as refusal:
        world.door.check_deadline(world.job(10, seconds=11.5), world.jobs, 0)
    assert (refusal.value.code, refusal.value.reason) == ("DEADLINE_EXCEEDED", "DEADLINE_TOO_SOON")
    assert "allow more time" in str(refusal.value)


def test_what_is_not_known_is_let_in() -> None:
    """Another size, another model."""
    world = World()
    assert not world.refuses(world.job(seconds=0.1, width=128))
    assert not world.refuses(world.job(seconds=0.1, model="other"))


def test_jobs_that_must_end_first_count() -> None:
    """With one place, the running job's six steps and the queued one's five come first."""
    world = World(max_running_jobs=1)
    world.running(6)
    world.queued(5)
    assert world.refuses(world.job(10, seconds=22.5))
    assert not world.refuses(world.job(10, seconds=23.5))
    assert not world.refuses(world.job(10, seconds=18.5), place=0), "a caller whose turn it is goes first"


def test_steps_that_were_taken_do_not_count() -> None:
    """Only what a running job still has before it."""
    world = World(max_running_jobs=1)
    world.running(100)
    (other,) = world.jobs.begun
    other.steps_done = 98
    assert not world.refuses(world.job(10, seconds=14.5))


def test_a_job_beside_others_waits_for_its_turns_only() -> None:
    """One of two steps sits out eight calls a step at most, however long the other is."""
    world = World(max_wait_calls=8, next_call="oldest")
    world.running(100)
    assert world.refuses(world.job(2, seconds=19.5))
    assert not world.refuses(world.job(2, seconds=20.5))


@pytest.mark.parametrize(("next_call", "least"), [("least_work", 4 + 6), ("least_slack", 6), ("oldest", 14)])
def test_only_jobs_that_go_before_it_count(next_call: str, least: float) -> None:
    """Beside jobs of four steps and of 60, one of four steps and two seconds to decode, with patience 2.

    By work the shorter goes before it, by slack nobody need, by age both, for eight calls at most.
    """
    world = World(max_wait_calls=2, next_call=next_call)
    world.running(4, 60)
    assert world.refuses(world.job(4, seconds=least - 0.5))
    assert not world.refuses(world.job(4, seconds=least + 0.5))
