"""The load of many engines as that of one."""

from __future__ import annotations

from dataclasses import replace

from sdgrpc.domain import EngineStatus
from sdgrpc.engine.cluster.sums import COUNTERS, counted, summed

ONE = EngineStatus(True, 1, 2, 4.0, 8.0, 1, 100, 3, 5, queue_size=64, estimated_wait_seconds=3.0)


def test_numbers_are_added() -> None:
    """Jobs, sets and steps a second add up; rows a call are a mean, the wait is the shortest."""
    other = EngineStatus(False, 2, 0, 0.0, 0.0, 1, 50, 1, 1, queue_size=64, estimated_wait_seconds=1.0)
    total = summed([ONE, other])
    assert (total.running, total.queued, total.queue_size) == (3, 2, 128)
    assert (total.steps_per_second, total.rows_per_call) == (8.0, 4.0)
    assert total.estimated_wait_seconds == 1.0
    assert total.ready


def test_one_is_itself() -> None:
    """Nothing is changed by adding nothing."""
    assert summed([ONE]) == ONE


def test_counts_of_the_dead_stay() -> None:
    """What only grows is added, what is of a moment is not."""
    past = replace(ONE, lora_set_hits=4, lora_set_misses=2, lora_set_evictions=1)
    total = counted(ONE, past)
    assert [getattr(total, name) for name in COUNTERS] == [6, 10, 4, 2, 1]
    assert (total.running, total.queued, total.lora_sets) == (ONE.running, ONE.queued, ONE.lora_sets)


def test_the_quietest_is_heard() -> None:
    """A sign of life of one replica does not hide that another gives none."""
    quiet = replace(ONE, heartbeat_seconds=50.0)
    assert summed([ONE, quiet]).heartbeat_seconds == 50.0


def test_nobody_is_not_ready() -> None:
    """The sum of no engine has no room."""
    assert not summed([]).ready
