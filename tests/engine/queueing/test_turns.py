"""Whose turn it is: callers take turns, whatever each sends, simulated over thousands of random workloads."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdgrpc.engine.job import Job
from sdgrpc.engine.models.residency import ModelPool
from sdgrpc.engine.queueing.policy import FirstCome
from sdgrpc.engine.queueing.turns import Turns, Waiting, check_sets, check_share
from sdgrpc.errors import TokenQueueFull
from tests.support.jobs import make_task

CALLERS = ("ann", "bob", "eve", "")


def job(job_id: int, caller: str) -> Job:
    return Job(job_id, make_task(caller=caller), stream=None)


def begun(admission, queue: list[Job]) -> list[int]:
    """The ids of the queue's jobs in the order in which they begin."""
    ids = []
    while (chosen := admission.choose(queue, room=True)) is not None:
        queue.remove(chosen)
        ids.append(chosen.job_id)
    return ids


def test_one_caller_is_served_by_age():
    """Nothing is different where nobody has a name."""
    assert begun(FirstCome(), [job(number, "") for number in (3, 1, 2)]) == [1, 2, 3]


def test_a_long_queue_of_one_does_not_hold_another_up():
    """Who sent one job after another's hundred has it begun second."""
    queue = [*(job(number, "ann") for number in range(100)), job(100, "bob"), job(101, "bob")]
    assert begun(FirstCome(), queue)[:5] == [0, 100, 1, 101, 2]


def test_who_had_a_turn_goes_behind_who_had_none_for_longer():
    """Sending one job at a time brings no more turns than sending many."""
    admission, queue = FirstCome(), [job(number, "ann") for number in range(10)]
    order = []
    for number in range(10, 14):
        queue.append(job(number, "bob"))
        for _ in range(2):
            chosen = admission.choose(queue, room=True)
            queue.remove(chosen)
            order.append(chosen.task.caller)
    assert order == ["ann", "bob"] * 4


def test_the_place_is_that_in_the_order_of_turns():
    """A job that goes before forty older ones of another caller says so."""
    queue = [*(job(number, "ann") for number in range(40)), job(40, "bob")]
    admission = FirstCome()
    assert (admission.place(queue, queue[-1]), admission.place(queue, queue[39])) == (1, 40)


def test_running_jobs_of_a_caller_are_bounded():
    """More wait while others go past; each that ends lets one begin. Without a name there is no bound."""
    turns = Turns(max_running=2)
    admission = FirstCome(turns)
    ann = [job(number, "ann") for number in range(4)]
    queue = [*ann, job(4, "bob"), job(5, ""), job(6, ""), job(7, "")]
    assert sorted(begun(admission, queue)) == [0, 1, 4, 5, 6, 7]
    assert begun(admission, queue) == []
    admission.leave(ann[0])
    assert begun(admission, queue) == [2]


def test_waiting_jobs_of_a_caller_are_bounded():
    """The failure names the bound and when to come again; others, and who has no name, are let in."""
    with pytest.raises(TokenQueueFull, match=r"2 jobs of 'ann'.*max_queued_jobs_per_token") as caught:
        check_share(2, "ann", 2, 4.0)
    assert caught.value.retry_after == 4.0
    for waiting, caller, most in ((2, "ann", 3), (2, "ann", None), (0, "bob", 2), (2, "", 1)):
        check_share(waiting, caller, most, 4.0)


def test_sets_of_a_caller_are_bounded():
    """As many as jobs may wait, in words of their own."""
    with pytest.raises(TokenQueueFull, match=r"2 sets of 'ann' wait to be prepared"):
        check_sets(2, "ann", 2)
    for preparing, caller, most in ((1, "ann", 2), (2, "ann", None), (2, "", 1)):
        check_sets(preparing, caller, most)


def test_a_lease_takes_its_turn_and_counts():
    """A set that is prepared for a caller who runs as many as it may waits until one has ended."""
    pool = ModelPool({"m": "m"}, load=str, unload=str, turns=Turns(max_running=1))
    first = pool.lease(0, "m", "ann")
    second, other = pool.lease(1, "m", "ann"), pool.lease(2, "m", "bob")
    assert (first.model.done(), second.model.done(), other.model.done()) == (True, False, True)
    first.leave()
    pool.choose([], room=True)
    assert second.model.result(0) == "m"
    pool.close()


def test_sending_and_dropping_holds_nobody_up_for_good():
    """Who held others up and left has had a turn: bob's overtaking of carl's job stays bounded."""
    loader = Later()
    pool = ModelPool({}, load=str, unload=str, max_overtakes=2, loader=loader)
    ids = count()

    def wants(model: str, caller: str) -> Job:
        return Job(next(ids), make_task(model=model, caller=caller), stream=None)

    queue = [wants("b", "carl")]
    assert pool.choose(queue, room=True) is None
    loader.run()
    pool.leave(pool.choose(queue, room=True))
    queue = [wants("a", "bob")]
    assert pool.choose(queue, room=True) is None
    loader.run()
    assert pool.choose(queue, room=True) is not None, "and stays, so that the model does"
    carls = wants("b", "carl")
    overtaken = 0
    for _ in range(20):
        queue = [carls, wants("c", "ann"), *(wants("a", "bob") for _ in range(5))]
        for _ in range(5):
            if (begun := pool.choose(queue, room=True)) is not None:
                queue.remove(begun)
                overtaken += 1
    assert overtaken <= 4, "two before ann's first, two before carl's"


class Later(Executor):
    """Keeps what it is given until `run`."""

    def __init__(self) -> None:
        self.work = []

    def submit(self, work, /, *arguments):
        self.work.append(lambda: work(*arguments))
        return Future()

    def run(self) -> None:
        while self.work:
            self.work.pop()()


@dataclass
class Entry:
    """A waiting job, how many of its caller's waited before it, and what others began since."""

    job: Job
    before: int
    others: Counter[str] = field(default_factory=Counter)


class World:
    """Callers send, drop and end jobs; every beginning is checked against the bound."""

    def __init__(self, admission, max_running: int | None) -> None:
        self.admission, self.max_running = admission, max_running
        self.queue: list[Entry] = []
        self.running: list[Job] = []
        self.count = 0

    def send(self, caller: str) -> None:
        before = sum(entry.job.task.caller == caller for entry in self.queue)
        self.queue.append(Entry(job(self.count, caller), before))
        self.count += 1

    def drop(self, number: int) -> None:
        self.admission.leave(self.queue.pop(number % len(self.queue)).job)

    def end(self, number: int) -> None:
        self.admission.leave(self.running.pop(number % len(self.running)))

    def held(self, caller: str) -> bool:
        """Whether a caller runs as many as it may."""
        running = sum(each.task.caller == caller for each in self.running)
        return bool(caller) and self.max_running is not None and running >= self.max_running

    def begin(self) -> bool:
        free = [entry for entry in self.queue if not self.held(entry.job.task.caller)]
        chosen = self.admission.choose([entry.job for entry in self.queue], room=True)
        assert (chosen is None) == (not free), "somebody begins whenever somebody may"
        if chosen is None:
            return False
        caller = chosen.task.caller
        assert not self.held(caller)
        for entry in free:
            if entry.job.task.caller == caller:
                assert entry.job.job_id >= chosen.job_id, "within a caller the oldest begins"
                continue
            entry.others[caller] += 1
            assert entry.others[caller] <= entry.before + 1
        self.queue = [entry for entry in self.queue if entry.job is not chosen]
        self.running.append(chosen)
        return True


OPS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 99)), max_size=80)


@pytest.mark.parametrize("kind", ["first come", "pool"])
@settings(max_examples=1500, deadline=None)
@given(max_running=st.sampled_from([None, 1, 2, 5]), ops=OPS)
def test_while_a_job_waits_every_other_caller_begins_at_most_one_more_than_its_own(kind, max_running, ops):
    """With k of its own caller's before it, at most k + 1 of each other begin; and everybody gets a turn."""
    turns = Turns(max_running)
    pool = ModelPool({"m": "m"}, load=str, unload=str, turns=turns, loader=Later())
    world = World(FirstCome(turns) if kind == "first come" else pool, max_running)
    for op, number in ops:
        if op < 5:
            world.send(CALLERS[min(op, number % 4)])
        elif op == 5 and world.queue:
            world.drop(number)
        elif op == 6 and world.running:
            world.end(number)
        else:
            world.begin()
    while world.queue:
        if not world.begin():
            world.end(0)


def test_the_order_is_one_of_all_who_wait():
    """Unbounded, nobody is left out and nobody twice."""
    waiting = [Waiting(number, "m", CALLERS[number % 3]) for number in range(20)]
    turns = Turns(max_running=1)
    assert sorted(turns.order(waiting, bounded=False)) == waiting
    assert len(turns.order(waiting)) == 3
