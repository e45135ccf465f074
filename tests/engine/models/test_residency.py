"""Which job begins where only some models fit in memory: simulated models, loaded when the test says so."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import Executor, Future

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdgrpc.engine.job import Job
from sdgrpc.engine.models.residency import ModelPool
from sdgrpc.errors import Draining, ModelError
from tests.support.jobs import make_task


class Later(Executor):
    """Runs what it was given when it is told to."""

    def __init__(self) -> None:
        self.waiting = []

    def submit(self, work, /, *arguments):
        self.waiting.append(lambda: work(*arguments))
        return Future()

    def run(self) -> None:
        self.waiting.pop(0)()


class World:
    """A pool whose models are their names, its queue, and what happened."""

    def __init__(self, capacity: int = 1, max_overtakes: int = 8, held: tuple[str, ...] = ()) -> None:
        self.loader = Later()
        self.log: list[str] = []
        self.broken: dict[str, Exception] = {}
        self.queue: list[Job] = []
        self.running: dict[int, Job] = {}
        self.changes = 0
        self.count = 0
        self.pool: ModelPool[str] = ModelPool(
            {name: name for name in held},
            load=self._load,
            unload=self._unload,
            capacity=capacity,
            max_overtakes=max_overtakes,
            loader=self.loader,
        )
        self.pool.on_change = self._changed

    def _load(self, name: str) -> str:
        if name in self.broken:
            raise self.broken[name]
        self.log.append(f"+{name}")
        return name

    def _unload(self, name: str) -> None:
        assert name not in {job.task.model for job in self.running.values()}, "a model with jobs was put out"
        self.log.append(f"-{name}")

    def _changed(self) -> None:
        self.changes += 1

    def next_id(self) -> int:
        self.count += 1
        return self.count

    def submit(self, *models: str, caller: str = "") -> list[Job]:
        jobs = [Job(self.next_id(), make_task(model=model, caller=caller), stream=None) for model in models]
        self.queue += jobs
        return jobs

    def begin(self, *, room: bool = True) -> Job | None:
        job = self.pool.choose(self.queue, room=room)
        if job is not None:
            self.queue.remove(job)
            self.running[job.job_id] = job
        return job

    def begin_all(self) -> list[Job]:
        begun = []
        while (job := self.begin()) is not None:
            begun.append(job)
        return begun

    def end(self, *jobs: Job) -> None:
        for job in jobs:
            del self.running[job.job_id]
            self.pool.leave(job)


def test_a_job_waits_for_its_model_and_then_begins() -> None:
    """Its model is loaded beside the rest; the loop hears of it, and the job is given it."""
    world = World()
    (job,) = world.submit("a")
    assert world.begin() is None
    assert world.pool.resident() == {}
    world.loader.run()
    assert world.changes == 1
    assert world.begin() is job
    assert world.pool.of(job.job_id) == "a"


def test_without_room_nothing_begins_but_models_are_loaded() -> None:
    """A full loop takes no job; the model of the one that waits is there when it does."""
    world = World()
    (job,) = world.submit("a")
    assert world.begin(room=False) is None
    world.loader.run()
    assert world.begin(room=False) is None
    assert world.begin() is job


def test_a_model_with_jobs_is_never_put_out() -> None:
    """Another waits until the last job of the one there has ended; then they are exchanged."""
    world = World()
    world.submit("a", "a")
    world.begin()
    world.loader.run()
    jobs = world.begin_all()
    world.submit("b")
    assert world.begin() is None
    world.end(jobs[0])
    assert world.begin() is None
    assert not world.loader.waiting
    world.end(jobs[1])
    assert world.begin() is None
    world.loader.run()
    assert world.log == ["+a", "-a", "+b"]
    assert world.begin().task.model == "b"


def test_the_model_used_longest_ago_makes_room() -> None:
    """With two places the third model takes that of the one that nobody asked for lately."""
    world = World(capacity=2)
    for model in ("a", "b", "a", "c"):
        world.submit(model)
        job = world.begin()
        if job is None:
            world.loader.run()
            job = world.begin()
        world.end(job)
    assert world.log == ["+a", "+b", "-b", "+c"]


def test_a_waiting_job_is_overtaken_only_so_often() -> None:
    """Jobs of the model that is there go first up to the bound; then none until the other is loading."""
    world = World(max_overtakes=3)
    (first,) = world.submit("a")
    world.begin()
    world.loader.run()
    assert world.begin() is first
    (waiting,) = world.submit("b")
    world.submit(*"aaaaaa")
    overtaking = world.begin_all()
    assert len(overtaking) == 3
    world.end(first, *overtaking)
    assert world.begin() is None
    world.loader.run()
    assert world.begin() is waiting
    assert world.begin() is None, "b has a job: the others wait for a place now"
    world.end(waiting)
    assert world.begin() is None
    world.loader.run()
    assert len(world.begin_all()) == 3


def test_jobs_of_other_models_go_on_while_one_is_loaded() -> None:
    """Loading stops nobody whose model is there."""
    world = World(capacity=2)
    world.submit("a")
    world.begin()
    world.loader.run()
    world.begin()
    world.submit("b", *"aaaaaaaaaaaa")
    assert len(world.begin_all()) == 12
    world.loader.run()
    assert world.begin().task.model == "b"


@pytest.mark.parametrize("other", ["a", "c"])
@pytest.mark.parametrize(
    ("error", "text"),
    [(ModelError("the file was cut"), "^the file was cut$"), (ValueError("odd"), "cannot be loaded.*odd")],
)
def test_a_model_that_cannot_be_loaded_ends_its_jobs_alone(error: Exception, text: str, other: str) -> None:
    """Everybody who asked is told at once why, and nobody else; the next who asks tries again."""
    world = World()
    world.broken["b"] = error
    world.submit("b", other, "b")
    assert world.begin() is None
    world.loader.run()
    for _ in range(2):
        job = world.begin()
        assert job.task.model == "b"
        with pytest.raises(ModelError, match=text):
            world.pool.of(job.job_id)
        world.end(job)
    assert world.begin() is None
    world.loader.run()
    job = world.begin()
    assert world.pool.of(job.job_id) == other
    world.end(job)
    world.broken.clear()
    world.submit("b")
    assert world.begin() is None
    world.loader.run()
    assert world.pool.of(world.begin().job_id) == "b"


def test_a_job_that_leaves_the_queue_blocks_nobody() -> None:
    """When the one that waited for a place is cancelled, those behind it begin as usual."""
    world = World(max_overtakes=0)
    world.submit("a")
    world.begin()
    world.loader.run()
    world.begin()
    (waiting, behind) = world.submit("b", "a")
    assert world.begin() is None
    world.queue.remove(waiting)
    world.pool.leave(waiting)
    assert world.begin() is behind


def test_a_caller_that_held_others_up_has_had_its_turn() -> None:
    """Its job waited for a place and left: its next one comes after those of whoever waited with it."""
    world = World()
    world.submit("a", caller="ann")
    world.begin()
    world.loader.run()
    world.begin()
    (held_up,) = world.submit("b", caller="ben")
    world.submit("a", caller="ann")
    assert world.begin().task.caller == "ann", "it overtakes"
    world.queue.remove(held_up)
    world.pool.leave(held_up)
    assert world.begin() is None
    world.submit("a", caller="ben")
    world.submit("a", caller="ann")
    assert [job.task.caller for job in world.begin_all()] == ["ann", "ben"]


@pytest.mark.parametrize("waiting", ["a", "z"])
def test_who_waits_behind_a_model_that_nobody_wants_any_more_is_overtaken_so_often(waiting: str) -> None:
    """A model is being loaded whose jobs have left; the oldest of another one is still held by the bound."""
    world = World(capacity=2, max_overtakes=3)
    world.submit("c")
    world.begin()
    world.loader.run()
    world.begin()
    (gone,) = world.submit("m")
    assert world.begin() is None
    world.queue.remove(gone)
    world.pool.leave(gone)
    world.submit(waiting, *"cccccc")
    assert len(world.begin_all()) == 3


def test_a_visit_is_served_like_a_job() -> None:
    """It gets the model in its turn, and while it lasts the model stays."""
    world = World()
    lease = world.pool.lease(world.next_id(), "a")
    world.begin()
    world.loader.run()
    world.begin()
    assert lease.model.result(0) == "a"
    at_once = world.pool.lease(world.next_id(), "a")
    assert at_once.model.result(0) == "a"
    world.submit("b")
    late = world.pool.lease(world.next_id(), "b")
    lease.leave()
    lease.leave()
    assert world.begin() is None
    assert not world.loader.waiting
    at_once.leave()
    assert world.begin() is None
    world.loader.run()
    assert world.begin().task.model == "b"
    world.begin()
    assert late.model.result(0) == "b"


def test_a_visit_fails_ends_or_is_given_up() -> None:
    """It is told why its model cannot be loaded and that the pool closes; one that left gets nothing."""
    world = World()
    world.broken["b"] = ModelError("broken")
    failing, given_up = (world.pool.lease(world.next_id(), name) for name in ("b", "a"))
    world.begin()
    given_up.model.cancel()
    world.loader.run()
    world.begin()
    with pytest.raises(ModelError, match="broken"):
        failing.model.result(0)
    failing.leave()
    world.loader.run()
    world.begin()
    given_up.leave()
    waiting = world.pool.lease(world.next_id(), "c")
    world.pool.close()
    with pytest.raises(Draining):
        waiting.model.result(0)
    with pytest.raises(Draining):
        world.pool.lease(world.next_id(), "a")
    assert world.begin() is None


def test_models_that_came_loaded_take_no_place() -> None:
    """They stay, and the others have the places to themselves."""
    world = World(held=("h",))
    world.submit("a", "h")
    assert world.begin().task.model == "h"
    world.loader.run()
    assert set(world.pool.resident()) == {"h", "a"}
    world.end(world.begin())
    world.submit("b")
    world.end(*world.running.values())
    assert world.begin() is None
    world.loader.run()
    assert set(world.pool.resident()) == {"h", "b"}


class Watched(World):
    """Checks the bounds whenever somebody may begin."""

    def __init__(self, capacity: int, max_overtakes: int) -> None:
        super().__init__(capacity, max_overtakes)
        self.capacity, self.max_overtakes = capacity, max_overtakes
        self.overtaken: Counter[int] = Counter()

    def begin(self, *, room: bool = True) -> Job | None:
        there, was_loading = self.pool.resident(), bool(self.loader.waiting)
        job = super().begin(room=room)
        assert len(self.pool.resident()) + len(self.loader.waiting) <= self.capacity
        lacking = next((one for one in self.queue if one.task.model not in there), None)
        if was_loading or self.loader.waiting or job is None or lacking is None:
            return job
        if lacking.job_id < job.job_id:
            self.overtaken[lacking.job_id] += 1
            assert self.overtaken[lacking.job_id] <= self.max_overtakes
        return job

    def do(self, kind: int, number: int) -> None:
        """Submit, end, load, cancel or begin, whichever is meant and possible."""
        if kind < 4:
            self.submit("abcd"[number % 4])
        elif kind == 4 and self.running:
            self.end(list(self.running.values())[number % len(self.running)])
        elif kind == 5 and self.loader.waiting:
            self.loader.run()
        elif kind == 6 and self.queue:
            self.pool.leave(self.queue.pop(number % len(self.queue)))
        else:
            self.begin()

    def go_on(self) -> None:
        """Let somebody begin; where nobody can, finish loading, else end what runs."""
        if self.begin() is not None:
            return
        if self.loader.waiting:
            self.loader.run()
        else:
            assert self.running, "nothing runs, nothing loads, and nobody begins"
            self.end(*list(self.running.values()))


@settings(max_examples=300, deadline=None)
@given(
    capacity=st.integers(1, 3),
    max_overtakes=st.integers(0, 3),
    ops=st.lists(st.tuples(st.integers(0, 7), st.integers(0, 99)), max_size=80),
)
def test_every_job_begins_whatever_comes(capacity: int, max_overtakes: int, ops) -> None:
    """Whatever jobs come, end and leave: never too many models, bounded overtaking, all get their turn."""
    world = Watched(capacity, max_overtakes)
    for kind, number in ops:
        world.do(kind, number)
    for _ in range(10 * len(ops)):
        if world.queue:
            world.go_on()
    assert not world.queue
