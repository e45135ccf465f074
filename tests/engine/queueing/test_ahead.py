"""Whose next set is made, who waits for one, and who ends a job meanwhile."""

from __future__ import annotations

import pytest

from sdgrpc.engine.job import Job
from sdgrpc.engine.queueing.ahead import SetsAhead
from tests.support.jobs import make_task


def job(number: int) -> Job:
    return Job(number, make_task(), stream=None)


@pytest.fixture
def ahead() -> SetsAhead:
    return SetsAhead()


def test_sets_are_made_in_the_order_in_which_they_are_wanted(ahead: SetsAhead) -> None:
    """Each once, however often it is wanted."""
    one, two = job(1), job(2)
    for wanted in (one, two, one):
        ahead.want(wanted)
    assert ahead.take() is one
    ahead.want(one)
    assert ahead.made() == (False, None)
    assert ahead.take() is two
    ahead.made()
    assert ahead.take() is None


@pytest.mark.parametrize("taken", [False, True])
def test_who_waits_goes_on_once_the_set_is_made(ahead: SetsAhead, taken: bool) -> None:
    """Whether it was wanted or being made when the job came to it; once."""
    one = job(1)
    ahead.want(one)
    if taken:
        ahead.take()
    ahead.wait(one)
    assert not ahead.has_awake
    if not taken:
        ahead.take()
    ahead.made()
    assert ahead.has_awake
    assert ahead.awake() == [one]
    assert ahead.awake() == []


def test_who_comes_after_the_set_does_not_wait(ahead: SetsAhead) -> None:
    """It was made between the job's looking and its waiting."""
    one = job(1)
    ahead.want(one)
    ahead.take()
    ahead.made()
    ahead.wait(one)
    assert ahead.awake() == [one]


def test_the_thread_that_makes_a_set_ends_its_job(ahead: SetsAhead) -> None:
    """By the first reason that there was; other jobs' ends are not its business."""
    one, two, reason = job(1), job(2), ValueError("first")
    ahead.want(one)
    assert not ahead.end_later(one, None), "nobody works on it yet"
    ahead.take()
    assert not ahead.end_later(two, None)
    assert ahead.end_later(one, reason)
    assert ahead.end_later(one, ValueError("second"))
    assert ahead.made() == (True, reason)
    ahead.want(two)
    ahead.take()
    assert ahead.made() == (False, None)


def test_jobs_that_ended_are_forgotten(ahead: SetsAhead) -> None:
    """Wherever they stood; what is being made for one goes on."""
    wanted, waiting, awake = job(1), job(2), job(3)
    ahead.want(waiting)
    ahead.take()
    ahead.wait(waiting)
    ahead.want(wanted)
    ahead.wait(awake)
    for one in (wanted, waiting, awake):
        ahead.forget(one)
    ahead.made()
    assert ahead.take() is None
    assert not ahead.has_awake


@pytest.mark.parametrize("steps", [True, False])
def test_a_set_whose_files_are_looked_for(ahead: SetsAhead, steps: bool) -> None:
    """Who waits waits until it is made; a job that has ended or not begun wants none when they come."""
    one = job(1)
    ahead.expect(one)
    ahead.wait(one)
    assert not ahead.has_awake
    ahead.come(one, steps=steps)
    assert (ahead.take() is one) is steps
    ahead.made()
    assert ahead.has_awake is steps
