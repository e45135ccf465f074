"""How a front door asks the registry: a detached actor of a Ray that answers, fails, hangs or is gone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from sdgrpc.engine.cluster.kept import joined
from sdgrpc.engine.cluster.kept.joined import RayJobs
from sdgrpc.engine.cluster.kept.registry import JobRegistry
from sdgrpc.engine.keeping.records import Telling
from sdgrpc.engine.keeping.sharing import Unreachable
from sdgrpc.settings import Settings
from tests.engine.cluster.kept.test_registry import KEY, request_of


class ActorDiedError(Exception):
    """As Ray tells it: with words of another process."""


class FakeRay:
    """Obeys what is used of Ray. Of each name there is one actor, until it `dies`; `made` counts them.

    `fails` is raised by each call, `hangs` lets none be answered.
    """

    def __init__(self) -> None:
        self.options: dict[str, Any] = {}
        self.actor: JobRegistry | None = None
        self.made = 0
        self.fails: Exception | None = None
        self.hangs = False
        self.opening: Callable[[], object] = lambda: None

    def dies(self) -> None:
        self.actor = None

    def remote(self, kind: type[JobRegistry]) -> Any:
        def options(**options: Any) -> Any:
            self.options = options
            return SimpleNamespace(remote=made)

        def made(*args: Any) -> Any:
            self.opening()
            if self.actor is None:
                self.actor, self.made = kind(*args), self.made + 1
            return Handle(self, self.actor)

        return SimpleNamespace(options=options)


class Handle:
    """An actor's."""

    def __init__(self, ray: FakeRay, actor: JobRegistry) -> None:
        self._ray, self._of = ray, actor

    def __getattr__(self, method: str) -> Any:
        async def answer(*args: Any) -> Any:
            if self._ray.hangs:
                await asyncio.Event().wait()
            if self._ray.fails or self._of is not self._ray.actor:
                raise self._ray.fails or ActorDiedError("Traceback: a secret")
            return await getattr(self._of, method)(*args)

        return SimpleNamespace(remote=answer)


@pytest.fixture
def ray() -> FakeRay:
    """No actor yet."""
    return FakeRay()


@pytest.fixture
def jobs(ray: FakeRay, monkeypatch: pytest.MonkeyPatch) -> RayJobs:
    """A front door of few seconds' patience."""
    for name in ("ANSWER_SECONDS", "QUESTION_SECONDS", "OPEN_SECONDS"):
        monkeypatch.setattr(joined, name, 0.1)
    monkeypatch.setattr("sdgrpc.engine.cluster.kept.registry.WAIT_SECONDS", 0)
    return RayJobs(ray, Settings(keep_seconds=60, keep_bytes=1 << 20))


async def test_the_actor_outlives_who_made_it(ray: FakeRay, jobs: RayJobs) -> None:
    """It has a name in a namespace of its own, is made once, started again, and takes no replica's CPU."""
    jobs.open_ahead()
    await jobs.listen(takes=True)
    assert ray.made == 1
    wanted = {"name": "kept-jobs-1", "namespace": "sdgrpc-kept", "lifetime": "detached", "max_restarts": -1}
    assert wanted.items() <= ray.options.items()
    assert (ray.options["get_if_exists"], ray.options["num_cpus"]) == (True, 0)
    assert jobs.is_there


async def test_every_question_is_passed_on(jobs: RayJobs) -> None:
    """To the registry's method of that name, for this front door."""
    await jobs.listen(takes=True)
    assert await jobs.claim(request_of(), "") is None
    assert await jobs.tell([Telling(KEY, "run", 0, (b"0",), b"job")]) == [1]
    found, (listed,) = await jobs.find(KEY), await jobs.jobs_of("ann", (0.0, ""), 5)
    assert found == listed
    page = await jobs.read(KEY, "run", 0)
    assert page is not None
    assert page.events == (b"0",)
    assert await jobs.take(KEY) is None
    assert await jobs.cancel(KEY, "other") is None
    assert await jobs.cancel(KEY) is not None
    assert (await jobs.listen(takes=True)).cancels == ((KEY, "run"),)
    await jobs.leave()
    after = await jobs.find(KEY)
    assert after is not None
    assert after.has_ended


async def each_fails(jobs: RayJobs) -> set[str]:
    """What the log may say of each question that fails."""
    questions: list[Callable[[], Awaitable[object]]] = [
        lambda: jobs.claim(request_of(), ""),
        lambda: jobs.tell([]),
        lambda: jobs.listen(takes=True),
        lambda: jobs.find(KEY),
        lambda: jobs.read(KEY, "run", 0),
        lambda: jobs.jobs_of("ann", (0.0, ""), 1),
        lambda: jobs.cancel(KEY),
        lambda: jobs.take(KEY),
        jobs.leave,
    ]
    said = set()
    for question in questions:
        with pytest.raises(Unreachable) as caught:
            await question()
        assert caught.value.__cause__ is None
        said.add(str(caught.value))
    return said


async def test_a_failure_is_told_by_its_kind_alone(ray: FakeRay, jobs: RayJobs) -> None:
    """No traceback of another process comes along."""
    await jobs.listen(takes=True)
    ray.fails = ActorDiedError("Traceback: a secret")
    assert await each_fails(jobs) == {"ActorDiedError"}
    assert not jobs.is_there


async def test_nobody_waits_for_an_actor_that_hangs(ray: FakeRay, jobs: RayJobs) -> None:
    """After a while each question is given up."""
    await jobs.listen(takes=True)
    ray.hangs = True
    assert await each_fails(jobs) == {"TimeoutError"}


async def test_before_it_was_asked_it_is_not_there(jobs: RayJobs) -> None:
    """Whoever asks too early is told so."""
    assert not jobs.is_there
    with pytest.raises(Unreachable):
        await jobs.find(KEY)


async def test_another_actor_is_made_where_one_is_gone(ray: FakeRay, jobs: RayJobs) -> None:
    """It says that it knows nothing, by another life."""
    before = (await jobs.listen(takes=True)).life
    ray.dies()
    with pytest.raises(Unreachable):
        await jobs.listen(takes=True)
    after = (await jobs.listen(takes=True)).life
    assert (before != after, ray.made) == (True, 2)


async def test_a_ray_that_hangs_holds_one_thread(ray: FakeRay, jobs: RayJobs) -> None:
    """The event loop goes on, and no second thread waits for it beside the first."""
    gate, waiting = threading.Event(), list[None]()

    def hang() -> None:
        waiting.append(None)
        gate.wait()

    ray.opening = hang
    for _ in range(3):
        with pytest.raises(Unreachable, match="does not answer"):
            await jobs.listen(takes=True)
    assert len(waiting) == 1
    gate.set()
    ray.opening = lambda: None
    assert (await jobs.listen(takes=True)).orphans == ()


async def test_a_ray_that_cannot_make_it_is_named(ray: FakeRay, jobs: RayJobs) -> None:
    """At the start of a server that is not its failure."""

    def fail() -> None:
        raise ConnectionError("a secret")

    ray.opening = fail
    jobs.open_ahead()
    with pytest.raises(Unreachable, match=r"^ConnectionError$"):
        await jobs.listen(takes=True)
