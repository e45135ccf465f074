"""What the actor keeps for front doors, without Ray: who draws which job, what is told, what is forgotten."""

from __future__ import annotations

import asyncio
import pickle
from dataclasses import replace
from typing import Any

import pytest

from sdgrpc.engine.cluster.kept import registry as module
from sdgrpc.engine.cluster.kept.doors import DEAD_SECONDS
from sdgrpc.engine.cluster.kept.registry import MOST_DOORS, JobRegistry
from sdgrpc.engine.keeping.records import REFUSED, UNKNOWN, KeptRequest, Known, Page, Taken, Telling
from sdgrpc.errors import EngineFailed, JobCancelled, KeepingFull, OutOfMemory

KEEP_SECONDS, KEEP_BYTES = 300.0, 1 << 20
KEY = ("ann", "mine")


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def request_of(run: str = "run", key: tuple[str, str] = KEY, **changes: Any) -> KeptRequest:
    values = {
        "kind": "generate",
        "digest": b"d",
        "seed": None,
        "drawn_seed": 5,
        "request": b"a cat",
        "created": 1.0,
        "deadline": None,
    }
    return KeptRequest(key, run, **{**values, **changes})


def telling(start: int, *events: bytes, run: str = "run", **changes: Any) -> Telling:
    return Telling(KEY, run, start, events, job=b"job", **changes)


class Asked:
    """A registry whose answers and questions are pickled, as they are between processes."""

    def __init__(self, keep_seconds: float = KEEP_SECONDS, keep_bytes: int = KEEP_BYTES) -> None:
        self.clock = Clock()
        self.bounds = keep_seconds, keep_bytes
        self.registry = JobRegistry(*self.bounds, self.clock)

    async def __call__(self, method: str, *args: Any, **keywords: Any) -> Any:
        passed = pickle.loads(pickle.dumps((args, keywords)))  # noqa: S301
        answer = await getattr(self.registry, method)(*passed[0], **passed[1])
        return pickle.loads(pickle.dumps(answer))  # noqa: S301

    async def listen(self, door: str, *, takes: bool = True) -> Any:
        return await self("listen", door, *self.bounds, takes)

    async def tell(self, *tellings: Telling, door: str = "a") -> list[int]:
        return await self("tell", door, tellings)


@pytest.fixture
def asked() -> Asked:
    """A registry that knows nothing."""
    return Asked()


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits gets its answer in the next round of the loop."""
    monkeypatch.setattr(module, "WAIT_SECONDS", 0)


async def test_a_key_is_claimed_once(asked: Asked) -> None:
    """Who comes second learns who draws it, without the request's bytes."""
    assert await asked("claim", "a", request_of(), "") is None
    known = await asked("claim", "b", request_of("other"), "")
    assert isinstance(known, Known)
    assert (known.door, known.request.run, known.request.request) == ("a", "run", b"")
    assert not known.is_void


async def test_a_void_job_is_replaced_by_who_knows_it(asked: Asked) -> None:
    """The same request is drawn anew by one of those that saw the failure, not by all of them."""
    await asked("claim", "a", request_of(), "")
    await asked.tell(telling(0, has_ended=True, error=OutOfMemory("small"), expires=2000.0))
    assert (await asked("find", KEY)).is_void
    assert await asked("claim", "b", request_of("second"), "run") is None
    assert (await asked("claim", "c", request_of("third"), "run")).door == "b"


async def test_events_are_told_once(asked: Asked) -> None:
    """Told twice, as where an answer was lost, they are there once; a gap is told anew."""
    await asked("claim", "a", request_of(), "")
    assert await asked.tell(telling(0, b"0", b"1")) == [2]
    assert await asked.tell(telling(0, b"0", b"1")) == [2]
    assert await asked.tell(telling(1, b"1", b"2")) == [3]
    assert await asked.tell(telling(5, b"5", has_ended=True)) == [3]
    assert await asked("read", KEY, "run", 0) == Page((b"0", b"1", b"2"), has_ended=False, error=None)


async def test_the_end_comes_after_all_events(asked: Asked) -> None:
    """Readers from any place get what is left and the end, by its failure's name."""
    await asked("claim", "a", request_of(), "")
    end = telling(0, b"0", b"1", has_ended=True, error=OutOfMemory("small"), expires=2000.0)
    assert await asked.tell(end) == [2]
    assert await asked.tell(end) == [2]
    page = await asked("read", KEY, "run", 1)
    assert (page.events, page.has_ended) == ((b"1",), True)
    assert isinstance(page.error, OutOfMemory)
    assert page.error.message == "small"
    assert (await asked("read", KEY, "run", 2)).events == ()


async def test_large_events_travel_alone(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    """The failure, or the end, comes with the last page alone."""
    monkeypatch.setattr("sdgrpc.engine.cluster.kept.entries.PAGE_BYTES", 3)
    await asked("claim", "a", request_of(), "")
    await asked.tell(telling(0, b"01", b"2", b"34567", b"8", has_ended=True, expires=2000.0))
    pages = [await asked("read", KEY, "run", place) for place in (0, 2, 3)]
    assert [page.events for page in pages] == [(b"01", b"2"), (b"34567",), (b"8",)]
    assert [page.has_ended for page in pages] == [False, False, True]


async def test_a_reader_waits_for_what_comes(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is woken by the event, not by the time."""
    monkeypatch.setattr(module, "WAIT_SECONDS", 60)
    await asked("claim", "a", request_of(), "")
    reading = asyncio.ensure_future(asked("read", KEY, "run", 0))
    await asyncio.sleep(0)
    await asked.tell(telling(0, b"0"))
    assert (await reading).events == (b"0",)


@pytest.mark.usefixtures("at_once")
async def test_a_reader_is_not_kept_for_ever(asked: Asked) -> None:
    """Where nothing comes it is told so, and asks again."""
    await asked("claim", "a", request_of(), "")
    assert await asked("read", KEY, "run", 0) == Page((), has_ended=False, error=None)
    assert await asked("read", KEY, "other", 0) is None
    assert await asked("read", ("bob", "mine"), "run", 0) is None


async def test_what_a_new_registry_asks_for(asked: Asked) -> None:
    """It knows no job until it is told the request too; it says another life."""
    assert await asked.tell(telling(3, b"3")) == [UNKNOWN]
    assert await asked.tell(telling(0, b"0", request=request_of())) == [1]


async def test_a_job_of_another_door_is_not_told_over(asked: Asked) -> None:
    """Neither by a strange run nor by a strange door; what is there stays."""
    await asked("claim", "a", request_of(), "")
    await asked.tell(telling(0, b"0"))
    assert await asked.tell(telling(0, b"x", run="other", request=request_of("other")), door="b") == [REFUSED]
    assert await asked.tell(telling(1, b"x"), door="b") == [REFUSED]
    assert (await asked("find", KEY)).last_sequence == 0


async def test_a_refused_job_leaves_nothing(asked: Asked) -> None:
    """Its key is free at once."""
    await asked("claim", "a", request_of(), "")
    await asked.tell(telling(0, is_refused=True))
    assert await asked("find", KEY) is None
    assert asked.registry.held_bytes == 0


async def test_a_dead_doors_job_is_taken_by_one(asked: Asked) -> None:
    """Of two that live the first that comes gets the request and the events; the dead one is told no."""
    await asked("claim", "a", request_of(), "")
    await asked.tell(telling(0, b"0", b"1"))
    asked.clock.now += DEAD_SECONDS
    assert (await asked.listen("b")).orphans == (KEY,)
    assert await asked("take", "b", KEY) == Taken(request_of(), (b"0", b"1"))
    assert await asked("take", "c", KEY) is None
    assert await asked.tell(telling(2, b"2")) == [REFUSED]
    assert await asked.tell(telling(2, b"2"), door="b") == [3]


@pytest.mark.usefixtures("at_once")
async def test_an_answer_that_gives_a_job_may_be_lost(asked: Asked) -> None:
    """Until it tells of the job whoever got it is given it again, and nobody else."""
    await asked("claim", "a", request_of(), "")
    await asked("leave", "a")
    for _ in range(MOST_DOORS):
        assert (await asked.listen("b")).orphans == (KEY,)
        assert await asked("take", "b", KEY) == Taken(request_of(), ())
        assert (await asked.listen("c")).orphans == ()
        assert await asked("take", "c", KEY) is None
    await asked.tell(telling(0), door="b")
    assert (await asked.listen("b")).orphans == ()
    assert await asked("take", "b", KEY) is None


@pytest.mark.usefixtures("at_once")
async def test_who_can_draw_nothing_is_told_of_no_orphan(asked: Asked) -> None:
    """Such as a front door that drains."""
    await asked("claim", "a", request_of(), "")
    asked.clock.now += DEAD_SECONDS
    assert (await asked.listen("b", takes=False)).orphans == ()


@pytest.mark.usefixtures("at_once")
async def test_a_door_that_is_heard_of_keeps_its_jobs(asked: Asked) -> None:
    """By listening, and by telling."""
    await asked("claim", "a", request_of(), "")
    for act in (lambda: asked.listen("a"), lambda: asked.tell(telling(0, b"0"))):
        asked.clock.now += DEAD_SECONDS - 1
        await act()
        asked.clock.now += DEAD_SECONDS - 1
        assert (await asked.listen("b")).orphans == ()
        assert await asked("take", "b", KEY) is None


async def test_a_door_that_leaves_is_not_waited_for(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever listens is told at once."""
    monkeypatch.setattr(module, "WAIT_SECONDS", 60)
    await asked("claim", "a", request_of(), "")
    await asked.listen("b", takes=False)
    listening = asyncio.ensure_future(asked.listen("b"))
    await asyncio.sleep(0)
    await asked("leave", "a")
    assert (await listening).orphans == (KEY,)


async def test_a_job_that_doors_die_of_ends(asked: Asked) -> None:
    """After so many it is given to nobody, and says why; those that left did not die of it."""
    await asked("claim", "0", request_of(), "")
    for number in range(1, 2 * MOST_DOORS):
        await asked("leave", str(number - 1))
        assert await asked("take", str(number), KEY) is not None
        await asked.tell(telling(0), door=str(number))
    for name in range(MOST_DOORS - 1):
        asked.clock.now += DEAD_SECONDS
        assert await asked("take", f"of {name}", KEY) is not None
        await asked.tell(telling(0), door=f"of {name}")
    asked.clock.now += DEAD_SECONDS
    assert await asked("take", "last", KEY) is None
    known = await asked("find", KEY)
    assert known.has_ended
    assert isinstance(known.error, EngineFailed)


async def test_a_cancel_reaches_who_draws(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once; who cancels learns what the job was before."""
    monkeypatch.setattr(module, "WAIT_SECONDS", 60)
    await asked("claim", "a", request_of(), "")
    await asked.tell(telling(0, b"0"))
    listening = asyncio.ensure_future(asked.listen("a"))
    await asyncio.sleep(0)
    before = await asked("cancel", KEY)
    assert (before.is_cancelled, before.has_ended, before.job) == (False, False, b"job")
    assert (await listening).cancels == ((KEY, "run"),)
    assert (await asked("find", KEY)).is_void
    assert await asked("cancel", ("bob", "mine")) is None


@pytest.mark.usefixtures("at_once")
async def test_an_orphan_that_is_cancelled_ends(asked: Asked) -> None:
    """Whether its door died before that or after; nobody draws it."""
    for number, act in enumerate([lambda: asked("leave", "a"), lambda: asked.listen("b")]):
        await asked("claim", "a", request_of(str(number)), str(number - 1))
        if number:
            asked.clock.now += DEAD_SECONDS
        await asked("cancel", KEY)
        await act()
        known = await asked("find", KEY)
        assert isinstance(known.error, JobCancelled)
        assert await asked("take", "b", KEY) is None


async def test_a_job_that_ended_stays_as_it_is(asked: Asked) -> None:
    """A cancel changes nothing of it, and its door's death neither."""
    await asked("claim", "a", request_of(), "")
    await asked.tell(telling(0, b"0", has_ended=True, expires=2000.0))
    assert (await asked("cancel", KEY)).has_ended
    await asked("leave", "a")
    assert not (await asked("find", KEY)).is_void


@pytest.mark.usefixtures("at_once")
async def test_jobs_are_forgotten_in_time(asked: Asked) -> None:
    """One that ended when it expires, one that nobody draws after `keep_seconds`."""
    await asked("claim", "a", request_of(), "")
    await asked.tell(telling(0, b"0", has_ended=True, expires=asked.clock.now + 10))
    lost = ("ann", "lost")
    await asked("claim", "a", request_of(key=lost), "")
    asked.clock.now += 10
    assert await asked("find", KEY) is None
    assert await asked("claim", "b", request_of("new"), "") is None
    asked.clock.now += KEEP_SECONDS - 10
    await asked.listen("b", takes=False)
    assert await asked("find", lost) is not None
    asked.clock.now += 1
    await asked.listen("b", takes=False)
    assert await asked("find", lost) is None


async def told_of(asked: Asked, name: str, size: int, *, ends: bool) -> list[int]:
    """Begin a job with an event of so many bytes."""
    key = ("ann", name)
    await asked("claim", "a", request_of(key=key), "")
    expires = asked.clock.now + KEEP_SECONDS
    return await asked.tell(Telling(key, "run", 0, (bytes(size),), b"", has_ended=ends, expires=expires))


async def test_memory_is_bounded() -> None:
    """Those that ended first go first; the count is right at any time."""
    asked = Asked(keep_bytes=16 << 10)
    for number in range(8):
        asked.clock.now += 1
        await told_of(asked, str(number), 4 << 10, ends=True)
        assert asked.registry.held_bytes <= 16 << 10
    known = await asked("jobs_of", "ann", (0.0, ""), 100)
    assert [one.request.key[1] for one in known] == ["5", "6", "7"]
    assert asked.registry.held_bytes == sum(entry.size for entry in asked.registry._entries.values())


async def test_what_is_read_is_not_forgotten_for_its_memory() -> None:
    """A reader that has begun gets the rest."""
    asked = Asked(keep_bytes=16 << 10)
    for number in range(3):
        asked.clock.now += 1
        await told_of(asked, str(number), 4 << 10, ends=True)
    await asked("read", ("ann", "0"), "run", 0)
    await told_of(asked, "3", 4 << 10, ends=True)
    assert await asked("find", ("ann", "0")) is not None
    assert await asked("find", ("ann", "1")) is None


async def test_a_job_without_room_ends_here_alone() -> None:
    """Its door is told nothing more of it; who comes for it learns why."""
    asked = Asked(keep_bytes=16 << 10)
    await told_of(asked, "large", 20 << 10, ends=False)
    known = await asked("find", ("ann", "large"))
    assert isinstance(known.error, KeepingFull)
    assert asked.registry.held_bytes < 1 << 10
    page = await asked("read", ("ann", "large"), "run", 3)
    assert isinstance(page.error, KeepingFull)


@pytest.mark.usefixtures("at_once")
async def test_the_largest_bounds_of_the_living_count(asked: Asked) -> None:
    """A front door that is started with more memory has it; one that has gone counts no more."""
    await asked("listen", "a", 10.0, 100, False)
    await asked("listen", "b", 20.0, 50, False)
    doors = asked.registry._doors
    assert (doors.keep_seconds, doors.keep_bytes) == (20.0, 100)
    asked.clock.now += DEAD_SECONDS
    await asked("listen", "b", 20.0, 50, False)
    assert (doors.keep_seconds, doors.keep_bytes) == (20.0, 50)


async def test_jobs_are_listed_by_their_age(asked: Asked) -> None:
    """The caller's own, after a place, so many."""
    for created, name in ((3.0, "c"), (1.0, "a"), (2.0, "z"), (2.0, "b")):
        await asked("claim", "a", request_of(key=("ann", name), created=created), "")
    await asked("claim", "a", request_of(key=("bob", "x")), "")
    first = await asked("jobs_of", "ann", (0.0, ""), 2)
    assert [one.request.key[1] for one in first] == ["a", "b"]
    rest = await asked("jobs_of", "ann", (2.0, "b"), 5)
    assert [one.request.key[1] for one in rest] == ["z", "c"]


async def test_requests_count_until_they_need_not_be_drawn(asked: Asked) -> None:
    """A picture that was sent along is let go of at the end."""
    await asked("claim", "a", replace(request_of(), request=bytes(10_000)), "")
    assert asked.registry.held_bytes > 10_000
    await asked.tell(telling(0, b"0", has_ended=True, expires=2000.0))
    assert asked.registry.held_bytes < 2_000
