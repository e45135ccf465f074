"""What is told of kept jobs: all of it, in order, the end at last, whatever happens to those who are told."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdgrpc.api.jobs import telling as module
from sdgrpc.api.jobs.again import kept_request
from sdgrpc.api.jobs.content import Content
from sdgrpc.api.jobs.kept import KeptJob
from sdgrpc.api.jobs.log import EventLog
from sdgrpc.api.jobs.telling import Teller
from sdgrpc.domain import TaskKind
from sdgrpc.engine.keeping.records import Telling
from sdgrpc.engine.keeping.sharing import Unreachable
from sdgrpc.errors import Draining, KeepingFull, OutOfMemory, SdgrpcError
from sdgrpc.v1 import diffusion_pb2 as pb
from tests.support.fake_sharing import FakeRegistry, FakeShared
from tests.support.kept_jobs import kept

KEEP_SECONDS = 300.0


def job_of(request_id: str = "mine") -> KeptJob:
    """A job that nothing happened to."""
    request = kept(request_id=request_id)
    content = Content.of(request)
    shared = kept_request(request, content, "", None)
    log = EventLog(lambda _: None)
    return KeptJob("", request_id, TaskKind.GENERATE, content, log, shared=shared)


def event_of(sequence: int, size: int = 0) -> pb.JobEvent:
    """Accepted, and pictures of so many bytes."""
    event = pb.JobEvent(request_id="mine", sequence=sequence)
    if sequence:
        event.image.image.data = bytes(size)
    else:
        event.accepted.model = "fake"
    return event


class Faulty(FakeShared):
    """Does with each telling what is next of `faults`: lose it, lose its answer, or forget all before it."""

    def __init__(self, registry: FakeRegistry) -> None:
        super().__init__(registry, "a")
        self.faults = deque[str]()

    async def tell(self, tellings: Sequence[Telling]) -> Any:
        fault = self.faults.popleft() if self.faults else ""
        if fault == "lost":
            raise Unreachable("FakeError")
        if fault == "forgets":
            self._registry.restart()
        answer = await super().tell(tellings)
        if fault == "unanswered":
            raise Unreachable("FakeError")
        return answer


async def told_all(teller: Teller) -> None:
    """Tell until nothing is left, over all faults."""
    while True:
        try:
            if not await teller.tell_some():
                return
        except Unreachable:
            continue


@settings(deadline=None, max_examples=60)
@given(
    sizes=st.lists(st.integers(0, 400), min_size=1, max_size=12),
    faults=st.lists(st.sampled_from(["", "lost", "unanswered", "forgets"]), max_size=8),
    pauses=st.sets(st.integers(0, 12)),
)
def test_everything_is_told_once_and_the_end_at_last(
    sizes: list[int], faults: list[str], pauses: set[int]
) -> None:
    """Over messages and answers that are lost and a registry that forgets, in messages of few bytes."""

    async def run() -> None:
        registry = FakeRegistry()
        shared = Faulty(registry)
        shared.faults.extend(faults)
        teller, job = Teller(shared, KEEP_SECONDS), job_of()
        teller.begin(job, knows_request=False)
        for sequence, size in enumerate(sizes):
            job.take(event_of(sequence, size))
            teller.note(job)
            if sequence in pauses:
                await told_all(teller)
        job.log.end()
        teller.note(job)
        await told_all(teller)
        entry = registry.actor._entries["", "mine"]
        assert entry.events == [event_of(*one).SerializeToString() for one in enumerate(sizes)]
        assert entry.has_ended
        for one in registry.told:
            assert not one.has_ended or one.start + len(one.events) == len(sizes)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MESSAGE_BYTES", 500)
        asyncio.run(run())


async def ended(error: SdgrpcError | None, *, overflows: bool = False, events: int = 2) -> Any:
    """What the registry knows of a job that ended so."""
    registry = FakeRegistry()
    shared = Faulty(registry)
    teller, job = Teller(shared, KEEP_SECONDS), job_of()
    assert job.shared is not None
    await shared.claim(job.shared, "")
    teller.begin(job, knows_request=True)
    for sequence in range(events):
        job.take(event_of(sequence))
    job.overflowed = overflows
    job.log.end(error)
    teller.note(job)
    await told_all(teller)
    return registry.actor._entries.get(("", "mine"))


async def test_a_failure_is_told_with_the_end() -> None:
    """And the request's bytes are let go of."""
    entry = await ended(OutOfMemory("small"))
    assert isinstance(entry.error, OutOfMemory)
    assert (len(entry.events), entry.request.request) == (2, b"")


async def test_a_server_that_stops_ends_no_job() -> None:
    """What happened is told, the end not: another server draws on."""
    entry = await ended(Draining("the server stopped"))
    assert (len(entry.events), entry.has_ended) == (2, False)
    assert entry.request.request


async def test_what_was_let_go_of_is_told_as_that() -> None:
    """Of a job whose events had no room nobody waits for the rest."""
    entry = await ended(None, overflows=True)
    assert isinstance(entry.error, KeepingFull)


async def test_what_was_refused_is_not_known() -> None:
    """Before it was accepted there is nothing to find."""
    assert await ended(OutOfMemory("small"), events=0) is None


async def test_jobs_share_messages() -> None:
    """What happened to several travels together."""
    registry = FakeRegistry()
    teller = Teller(FakeShared(registry, "a"), KEEP_SECONDS)
    for name in "abc":
        job = job_of(name)
        teller.begin(job, knows_request=False)
        for sequence in range(3):
            job.take(event_of(sequence))
    assert await teller.tell_some()
    assert not await teller.tell_some()
    assert [len(one.events) for one in registry.told] == [3, 3, 3]
