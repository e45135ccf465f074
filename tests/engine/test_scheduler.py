"""The choice of the jobs that share the next call."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sdgrpc.engine.scheduler import StepScheduler

WORKLOADS = st.lists(
    st.tuples(st.sampled_from("abcde"), st.integers(1, 4), st.integers(1, 30)), min_size=1, max_size=25
)


def make(*, max_rows: int = 8, patience: int = 4, batching: bool = True) -> StepScheduler:
    return StepScheduler(max_rows=max_rows, patience=patience, batching=batching)


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


def test_removed_jobs_do_not_run():
    """A job that ended is never chosen again, and removing it twice does no harm."""
    scheduler = make()
    scheduler.add(0, "a", 1)
    scheduler.remove(0)
    scheduler.remove(0)
    assert scheduler.next_batch() == []
    assert len(scheduler) == 0


@given(WORKLOADS, st.integers(1, 6), st.integers(1, 8), st.booleans())
def test_every_job_ends_and_none_waits_too_long(workload, patience, max_rows, batching):
    """Whatever the workload: all steps run, calls keep their bounds, and waits are below patience + jobs."""
    scheduler = make(max_rows=max_rows, patience=patience, batching=batching)
    left = {job_id: steps for job_id, (_, _, steps) in enumerate(workload)}
    for job_id, (group, rows, _) in enumerate(workload):
        scheduler.add(job_id, group, rows)
    waits = dict.fromkeys(left, 0)
    calls = 0
    while left:
        batch = scheduler.next_batch()
        calls += 1
        rows = [workload[job_id][1] for job_id in batch]
        assert len({workload[job_id][0] for job_id in batch}) == 1
        assert sum(rows) <= max_rows or len(batch) == 1
        assert batching or len(batch) == 1
        for job_id in left:
            waits[job_id] = 0 if job_id in batch else waits[job_id] + 1
            assert waits[job_id] <= patience + len(workload)
        for job_id in batch:
            left[job_id] -= 1
            if not left[job_id]:
                del left[job_id]
                scheduler.remove(job_id)
    assert calls <= sum(steps for _, _, steps in workload)
