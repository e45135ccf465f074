"""The choice of the jobs that share the next call, and how long it lets a job wait."""

from __future__ import annotations

import itertools
import math
from collections import Counter, deque
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdgrpc.engine.job import CallSize
from sdgrpc.engine.scheduler import NextCall, Rest, StepScheduler

ORDERS: tuple[NextCall, ...] = ("least_work", "least_slack", "oldest")


def make(
    *, max_rows: int = 8, patience: int = 4, batching: bool = True, order: NextCall = "oldest"
) -> StepScheduler:
    return StepScheduler(max_rows=lambda _: max_rows, patience=patience, batching=batching, order=order)


def test_nothing_waits():
    """An empty scheduler has no batch."""
    assert make().next_batch() == []


def test_a_group_shares_a_call():
    """Jobs of one group run together, oldest first; another group's do not join them."""
    scheduler = make()
    for job_id, group in enumerate("abab"):
        scheduler.add(job_id, group, 1)
    assert scheduler.next_batch() == [0, 2]


def test_rows_are_bounded():
    """A call holds at most max_rows latents."""
    scheduler = make(max_rows=4)
    for job_id in range(3):
        scheduler.add(job_id, "a", 2)
    assert scheduler.next_batch() == [0, 1]
    assert scheduler.next_batch() == [0, 2], "the one left out has waited longer than the other two"


def test_a_job_larger_than_a_call_runs_alone():
    """A job with more rows than a call allows still runs, by itself."""
    scheduler = make(max_rows=4)
    scheduler.add(0, "a", 9)
    scheduler.add(1, "a", 1)
    assert scheduler.next_batch() == [0]


def test_without_batching_every_call_has_one_job():
    """With batching off not even equal jobs share a call."""
    scheduler = make(batching=False)
    scheduler.add(0, "a", 1)
    scheduler.add(1, "a", 1)
    assert scheduler.next_batch() == [0]


def test_the_oldest_group_runs_first_until_patience_ends():
    """A younger group sits out `patience` calls, has one, and waits again."""
    scheduler = make(patience=3)
    scheduler.add(0, "a", 1)
    scheduler.add(1, "b", 1)
    assert [scheduler.next_batch() for _ in range(8)] == [[0], [0], [0], [1], [0], [0], [0], [1]]


@pytest.mark.parametrize(
    ("order", "expected"),
    [("least_work", [3, 2, 1, 0]), ("least_slack", [2, 3, 1, 0]), ("oldest", [0, 1, 2, 3])],
)
def test_the_order_prefers(order: NextCall, expected: list[int]) -> None:
    """Jobs without a deadline, tight, short, and too late: which is last by work and by slack, not by age."""
    scheduler = make(patience=100, order=order)
    rests = (Rest(5.0, 14.0), Rest(20.0), Rest(8.0, 20.0), Rest(2.0, 30.0))
    for job_id, rest in enumerate(rests):
        scheduler.add(job_id, job_id, 1, rest=rest)
    seen = []
    for _ in rests:
        (job_id,) = scheduler.next_batch(now=10.0)
        seen.append(job_id)
        scheduler.remove(job_id)
    assert seen == expected


@pytest.mark.parametrize("order", ORDERS)
def test_the_older_of_equals_is_first(order: NextCall) -> None:
    """Where nothing is known of the work and nobody has a deadline all orders are that of age."""
    scheduler = make(patience=3, order=order)
    scheduler.add(0, "a", 1)
    scheduler.add(1, "b", 1)
    assert [scheduler.next_batch(now=5.0) for _ in range(5)] == [[0], [0], [0], [1], [0]]


def test_a_job_tells_what_is_left_of_it_at_each_step() -> None:
    """One that has less left than another from its next step on is preferred from then on."""
    scheduler = make(patience=100, order="least_work")
    scheduler.add(0, "a", 1, rest=Rest(2.0))
    scheduler.add(1, "b", 1, rest=Rest(3.0))
    assert scheduler.next_batch() == [0]
    scheduler.update(1, "b", 1, rest=Rest(1.0))
    assert scheduler.next_batch() == [1]


def test_a_job_is_in_time_until_the_rest_would_take_longer() -> None:
    """At the last moment it is still preferred, after it no more."""
    scheduler = make(patience=100, order="least_slack")
    scheduler.add(0, "a", 1)
    scheduler.add(1, "b", 1, rest=Rest(4.0, 10.0))
    assert scheduler.next_batch(now=6.0) == [1]
    assert scheduler.next_batch(now=6.1) == [0]


def test_removed_jobs_do_not_run():
    """A job that ended is never chosen again, and removing it twice does no harm."""
    scheduler = make()
    scheduler.add(0, "a", 1)
    scheduler.remove(0)
    scheduler.remove(0)
    assert scheduler.next_batch() == []
    assert len(scheduler) == 0


def test_a_job_changes_its_group() -> None:
    """From its next step on; one that ended is not brought back."""
    scheduler = make(max_rows=4)
    for job_id in range(2):
        scheduler.add(job_id, "guided", 2)
    assert scheduler.next_batch() == [0, 1]
    scheduler.update(0, "unguided", 1)
    assert scheduler.next_batch() == [0]
    scheduler.update(1, "unguided", 1)
    assert scheduler.next_batch() == [0, 1]
    scheduler.remove(0)
    scheduler.update(0, "unguided", 1)
    assert scheduler.next_batch() == [1]


def test_each_size_has_its_own_bound():
    """Calls of one size may have more rows than those of another."""
    small, large = CallSize("m", (8,)), CallSize("m", (64,))
    scheduler = StepScheduler(max_rows=lambda size: 2 if size is small else 1, patience=1)
    for job_id, size in enumerate((small, small, large, large)):
        scheduler.add(job_id, size, 1, size)
    assert [scheduler.next_batch() for _ in range(3)] == [[0, 1], [2], [3]]


def test_groups_that_would_come_too_late_together_come_earlier():
    """With patience 3 and four groups none sits out more than three calls, so the oldest cannot run on."""
    scheduler = make(patience=3)
    for job_id, group in enumerate("abcd"):
        scheduler.add(job_id, group, 1)
    assert [scheduler.next_batch() for _ in range(8)] == [[0], [1], [2], [3]] * 2


# Jobs of a simulation: seconds since the one before, group, rows, steps, and steps until it is cancelled.
JOBS = st.lists(
    st.tuples(
        st.integers(0, 6), st.sampled_from("abcd"), st.integers(1, 4), st.integers(1, 12), st.integers(1, 40)
    ),
    min_size=1,
    max_size=14,
)


@dataclass
class Simulation:
    """The scheduler under jobs that come and go, in simulated seconds: a call takes one and one per row."""

    jobs: list[tuple[int, str, int, int, int]]
    scheduler: StepScheduler
    max_rows: int
    max_running: int
    now: int = 0
    most_running: int = 0
    left: dict[int, int] = field(default_factory=dict)
    waits: dict[int, int] = field(default_factory=dict)
    longest: dict[int, int] = field(default_factory=dict)
    served: Counter[int] = field(default_factory=Counter)
    changes: bool = False

    def run(self) -> None:
        arrivals = list(itertools.accumulate(job[0] for job in self.jobs))
        queue = deque(range(len(self.jobs)))
        while queue or self.left:
            while queue and len(self.left) < self.max_running and arrivals[queue[0]] <= self.now:
                self._start(queue.popleft())
            if self.left:
                self._call()
            else:
                self.now = arrivals[queue[0]]

    def _start(self, job_id: int) -> None:
        _, _, _, steps, patience = self.jobs[job_id]
        self.left[job_id] = min(steps, patience)
        self.scheduler.add(job_id, *self._wanted(job_id), rest=self._rest(job_id))
        self.waits[job_id] = self.longest[job_id] = 0
        self.most_running = max(self.most_running, len(self.left))

    def _call(self) -> None:
        batch = self.scheduler.next_batch(self.now)
        rows = sum(self._wanted(job_id)[1] for job_id in batch)
        assert batch
        assert len({self._wanted(job_id)[0] for job_id in batch}) == 1
        assert rows <= self.max_rows or len(batch) == 1
        self.now += 1 + rows
        for job_id in self.left:
            self.waits[job_id] = 0 if job_id in batch else self.waits[job_id] + 1
            self.longest[job_id] = max(self.longest[job_id], self.waits[job_id])
        for job_id in batch:
            self.served[job_id] += 1
            self.left[job_id] -= 1
            self.scheduler.update(job_id, *self._wanted(job_id), rest=self._rest(job_id))
            if not self.left[job_id]:
                del self.left[job_id]
                self.scheduler.remove(job_id)

    def _rest(self, job_id: int) -> Rest:
        """Every third job has no deadline, the others one of some times what they take."""
        since, _, rows, steps, _ = self.jobs[job_id]
        seconds = self.left[job_id] * (1.0 + rows)
        return Rest(seconds, self.now + (1 + since) * steps if job_id % 3 else math.inf)

    def _wanted(self, job_id: int) -> tuple[str, int]:
        """A job's group and rows: three steps of a long one in its own group, three in another by half."""
        _, group, rows, steps, _ = self.jobs[job_id]
        guided = not self.changes or steps < 6 or self.served[job_id] // 3 % 2
        return (group, rows) if guided else (group.upper(), -(-rows // 2))


def simulate(
    jobs,
    max_rows: int,
    patience: int,
    max_running: int,
    *,
    batching: bool = True,
    changes: bool = False,
    order: NextCall = "oldest",
) -> Simulation:
    scheduler = make(max_rows=max_rows, patience=patience, batching=batching, order=order)
    simulation = Simulation(jobs, scheduler, max_rows, max_running, changes=changes)
    simulation.run()
    return simulation


@given(
    JOBS,
    st.integers(1, 8),
    st.integers(1, 6),
    st.integers(1, 10),
    st.booleans(),
    st.booleans(),
    st.sampled_from(ORDERS),
)
@settings(max_examples=3000, deadline=None, derandomize=True)
def test_no_job_waits_too_long(jobs, max_rows, patience, max_running, batching, changes, order):
    """In 3000 random workloads every job gets all its steps and its waits keep the documented bound.

    The bound is max_wait_calls calls of others, or one round of all running jobs where that is longer.
    """
    simulation = simulate(
        jobs, max_rows, patience, max_running, batching=batching, changes=changes, order=order
    )
    assert simulation.most_running <= max_running
    bound = max(patience, simulation.most_running - 1)
    for job_id, (_, _, _, steps, cancelled_after) in enumerate(jobs):
        assert simulation.served[job_id] == min(steps, cancelled_after)
        assert simulation.longest[job_id] <= bound


@given(JOBS, st.integers(3, 6), st.sampled_from(ORDERS))
@settings(max_examples=500, deadline=None, derandomize=True)
def test_no_group_waits_for_more_than_max_wait_calls(jobs, patience, order):
    """Where each group fits a call, with up to four groups, the bound is the setting's number itself."""
    simulation = simulate(jobs, 4 * len(jobs), patience, len(jobs), order=order)
    assert max(simulation.longest.values()) <= patience


@given(JOBS)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_patience_costs_no_calls_when_jobs_are_alone(jobs):
    """One job at a time needs exactly its own steps: waiting is the queue's matter then."""
    simulation = simulate(jobs, 8, 4, 1)
    assert set(simulation.longest.values()) == {0}


def test_the_bound_can_be_missed():
    """The simulation notices a scheduler without patience."""
    jobs = [(0, "a", 1, 12, 40), (0, "b", 1, 1, 40)]
    simulation = Simulation(jobs, make(patience=10**6), 8, 2)
    simulation.run()
    assert simulation.longest[1] == 12


def test_the_oldest_jobs_group_is_told_by_equality_alone() -> None:
    """Not by identity and not by order: groups are tuples made anew for each job."""
    scheduler = StepScheduler(max_rows=lambda _: 2, patience=8)
    scheduler.add(0, tuple("b1"), 1)
    scheduler.add(1, tuple("a1"), 1)
    scheduler.add(2, tuple("b1"), 1)
    assert [scheduler.next_batch() for _ in range(3)] == [[0, 2]] * 3


def test_the_first_call_runs_at_the_very_last_moment() -> None:
    """Of three calls the second has to begin one call before its patience ends, and not earlier."""
    scheduler = StepScheduler(max_rows=lambda _: 1, patience=5)
    for job_id, group in enumerate("abc"):
        scheduler.add(job_id, group, 1)
    # b has waited 4 and c would come too late after it: b runs at the fifth call, c at the sixth.
    assert [scheduler.next_batch()[0] for _ in range(7)] == [0, 0, 0, 0, 1, 2, 0]
