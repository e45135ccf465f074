"""Several servers of one cluster: a job that one keeps is found, read, cancelled and drawn on at another."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio

from sdgrpc.engine.keeping.sharing import Unreachable
from sdgrpc.errors import OutOfMemory
from sdgrpc.v1 import diffusion_pb2 as pb
from sdgrpc.v1 import jobs_pb2
from tests.support.api import (
    Api,
    check_grammar,
    details_of,
    events_of,
    failure_of,
    generate,
    running_api,
    transform,
    until_running,
)
from tests.support.engine import FakeEngine
from tests.support.fake_sharing import FakeRegistry, FakeShared
from tests.support.kept_jobs import PICTURES, attach, bare, ended, jobs_of, kept, until

TWO = pb.Sampling(steps=3, image_count=2)


@dataclass
class Servers:
    """Servers `a` and `b` of one registry, of engines that wait before their first step."""

    registry: FakeRegistry
    a: Api
    b: Api
    at_a: FakeShared
    at_b: FakeShared

    def go_on(self) -> None:
        for api in (self.a, self.b):
            api.engine.gate.set()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes a second is done in a hundredth."""
    for name in (
        "engine.cluster.kept.registry.WAIT_SECONDS",
        "api.jobs.sharing.RETRY_SECONDS",
        "api.jobs.sharing.ORDERS_SECONDS",
        "api.jobs.telling.RETRY_SECONDS",
        "api.jobs.telling.PAUSE_SECONDS",
        "api.jobs.elsewhere.RETRY_SECONDS",
        "api.jobs.again.RETRY_SECONDS",
    ):
        monkeypatch.setattr(f"sdgrpc.{name}", 0.01)


@asynccontextmanager
async def two(*, held: bool = True, **settings: Any) -> AsyncIterator[Servers]:
    registry = FakeRegistry()
    shared = registry.door("a"), registry.door("b")
    engines = [FakeEngine(shared_jobs=one) for one in shared]
    for engine in engines:
        if held:
            engine.gate.clear()
    async with running_api(engines[0], **settings) as a, running_api(engines[1], **settings) as b:
        servers = Servers(registry, a, b, *shared)
        await met(lambda: all(one.is_there for one in shared))
        yield servers
        servers.go_on()


async def met(holds: Callable[[], object]) -> None:
    """Wait for something that no event tells of."""
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def reason_of(call: Any) -> str:
    return str(details_of(await failure_of(call))["ErrorInfo"].reason)


async def cancelled(api: Api) -> jobs_pb2.Job:
    return (await api.jobs.CancelJob(jobs_pb2.CancelJobRequest(request_id="mine"))).job


async def known(servers: Servers, last: int) -> None:
    """Wait until the registry has that event."""
    entries = servers.registry.actor._entries
    await met(lambda: ("", "mine") in entries and len(entries["", "mine"].events) > last)


async def test_a_job_is_read_at_another_server() -> None:
    """What was before and what comes, from any event on, the same to the byte but for previews."""
    async with two() as servers:
        first = servers.a.stub.Generate(kept(output=PICTURES))
        head = [await first.read(), await first.read()]
        await known(servers, 1)
        second, third = attach(servers.b), attach(servers.b, 0)
        assert (await second.read()).WhichOneof("event") == "accepted"
        servers.go_on()
        events = [*head, *await events_of(first)]
        assert bare(await events_of(second)) == bare(events)[1:]
        assert bare(await events_of(third)) == bare(events)[1:]
        assert await events_of(attach(servers.b, 6)) == []
        assert servers.b.engine.tasks == []


async def test_a_job_that_ended_is_read_at_another_server() -> None:
    """With its end, as often as somebody comes; a number after the end is refused."""
    async with two(held=False) as servers:
        events = await events_of(servers.a.stub.Generate(kept()))
        await known(servers, 6)
        for _ in range(2):
            assert bare(await events_of(attach(servers.b))) == bare(events)
        await met(lambda: servers.registry.actor._entries["", "mine"].has_ended)
        assert (await failure_of(attach(servers.b, 7))).code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_the_same_request_is_followed_at_another_server() -> None:
    """Whether it is to be kept or not, with the seed that it was told too; with a full queue as well."""
    async with two() as servers:
        first: Any = servers.a.stub.Generate(kept())
        accepted = await first.read()
        await until_running(first)
        servers.b.engine.queue_size = 0
        seeded = pb.Sampling(steps=3, seed=accepted.accepted.sampling.seed)
        others = [kept(), kept(sampling=seeded), kept(on_disconnect=pb.ON_DISCONNECT_CANCEL)]
        calls: list[Any] = [servers.b.stub.Generate(other) for other in others]
        assert [(await call.read()).accepted.sampling.seed for call in calls] == [seeded.seed] * 3
        servers.go_on()
        for call in calls:
            assert len(await events_of(call)) == 6
        assert (len(servers.a.engine.tasks), len(servers.b.engine.tasks)) == (1, 0)


@pytest.mark.parametrize("other", [kept(prompt="a dog"), kept(sampling=pb.Sampling(steps=3, seed=2**62))])
async def test_other_content_is_refused_at_another_server(other: pb.GenerateRequest) -> None:
    """As it is where the job is."""
    async with two() as servers:
        await until_running(servers.a.stub.Generate(kept()))
        error = await failure_of(servers.b.stub.Generate(other))
        assert error.code() is grpc.StatusCode.ALREADY_EXISTS
        assert details_of(error)["ErrorInfo"].reason == "JOB_EXISTS"


async def test_a_request_at_both_servers_is_drawn_once() -> None:
    """Though both come at the same time, and twice to each."""
    async with two(held=False) as servers:
        request = transform(request_id="mine", on_disconnect=pb.ON_DISCONNECT_KEEP)
        calls = [api.stub.Transform(request) for api in (servers.a, servers.b) for _ in range(2)]
        first, *others = [bare(await events_of(call)) for call in calls]
        assert others == [first] * 3
        assert len(servers.a.engine.tasks) + len(servers.b.engine.tasks) == 1


async def test_jobs_of_all_servers_are_listed_once() -> None:
    """The oldest first; a page that one server began another goes on with."""
    async with two(held=False) as servers:
        for number in range(6):
            api = (servers.a, servers.b)[number % 2]
            await events_of(api.stub.Generate(kept(request_id=str(number))))
        for api in (servers.a, servers.b):
            await until(lambda jobs: len(jobs) == 6 and ended(jobs), api)
            assert [job.request_id for job in await jobs_of(api)] == list("012345")
        seen, token = [], ""
        for number in range(3):
            api = (servers.a, servers.b)[number % 2]
            page = await api.jobs.ListJobs(jobs_pb2.ListJobsRequest(page_size=2, page_token=token))
            seen += [job.request_id for job in page.jobs]
            token = page.next_page_token
        assert (seen, token) == (list("012345"), "")
        mine, theirs = [{job.request_id: job for job in await jobs_of(api)} for api in (servers.a, servers.b)]
        assert mine == theirs


async def test_a_job_is_cancelled_at_another_server() -> None:
    """Its readers at both are told, both list it as that, and the same request is drawn anew."""
    async with two() as servers:
        first = servers.a.stub.Generate(kept())
        await until_running(first)
        await known(servers, 1)
        second = attach(servers.b, 1)
        assert (await cancelled(servers.b)).state == jobs_pb2.JOB_STATE_RUNNING
        assert await reason_of(first) == await reason_of(second) == "JOB_CANCELLED"
        for api in (servers.a, servers.b):
            (job,) = await until(ended, api)
            assert (job.state, job.failure_reason) == (jobs_pb2.JOB_STATE_CANCELLED, "JOB_CANCELLED")
        assert servers.a.engine.cancelled == 1
        servers.go_on()
        assert len(await events_of(servers.b.stub.Generate(kept()))) == 7
        assert len(servers.b.engine.tasks) == 1
        assert (await cancelled(servers.b)).state == jobs_pb2.JOB_STATE_FINISHED


async def test_a_failure_is_told_by_its_name_at_another_server() -> None:
    """With its message and nothing else; the same request is another try there."""
    async with two(held=False) as servers:
        servers.a.engine.failures["decode"] = OutOfMemory("small device")
        await failure_of(servers.a.stub.Generate(kept()))
        await met(lambda: servers.registry.actor._entries["", "mine"].has_ended)
        error = await failure_of(attach(servers.b))
        assert (error.code(), error.details()) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "small device")
        assert details_of(error)["ErrorInfo"].reason == "OUT_OF_MEMORY"
        assert len(await events_of(servers.b.stub.Generate(kept()))) == 7
        assert len(await events_of(attach(servers.b))) == 7


async def test_a_refused_job_is_not_known() -> None:
    """Its id is free at every server."""
    async with two(held=False) as servers:
        servers.a.engine.failures["submit"] = OutOfMemory("small device")
        await failure_of(servers.a.stub.Generate(kept()))
        await met(lambda: not servers.registry.actor._entries)
        assert await reason_of(attach(servers.b)) == "JOB_NOT_FOUND"
        assert len(await events_of(servers.b.stub.Generate(kept(prompt="a dog")))) == 7


def died(servers: Servers) -> None:
    """Have server a be as one that was killed: it tells nothing more, and that is noticed."""
    servers.registry.bury(servers.at_a)


@pytest.mark.parametrize("last", range(7))
async def test_a_job_of_a_dead_server_is_drawn_on(last: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it was: a reader at another server gets every event once and the undisturbed pictures."""
    request = kept(sampling=TWO)
    async with two(held=False) as servers:
        undisturbed = await events_of(servers.a.stub.Generate(request))
        seed = undisturbed[0].accepted.sampling.seed
    async with two() as servers:
        request.sampling.seed = seed
        first = servers.a.stub.Generate(request)
        await until_running(first)
        await known(servers, 1)
        reader = attach(servers.b)
        entry = servers.registry.actor._entries["", "mine"]
        add = entry.add

        def until_last(start: int, events: tuple[bytes, ...]) -> None:
            add(start, events[: last + 1 - start])
            if len(entry.events) > last and not servers.at_a.is_dead:
                died(servers)

        monkeypatch.setattr(entry, "add", until_last)
        if last < 2:
            died(servers)
        servers.a.engine.gate.set()
        await met(lambda: servers.b.engine.tasks)
        monkeypatch.setattr(entry, "add", add)
        servers.go_on()
        events = await events_of(reader)
        check_grammar(request, events)
        assert images_of(events) == images_of(undisturbed)
        assert servers.b.engine.tasks[0].sampling.seed == seed
        assert bare(await events_of(attach(servers.b))) == bare(events)


def images_of(events: list[pb.JobEvent]) -> list[bytes]:
    return [event.image.image.data for event in events if event.WhichOneof("event") == "image"]


async def test_a_seed_that_nobody_gave_is_drawn_on_with() -> None:
    """The one that `accepted` told, whether or not it was told before the server died."""
    async with two() as servers:
        first: Any = servers.a.stub.Generate(kept())
        seed = (await first.read()).accepted.sampling.seed
        died(servers)
        await met(lambda: servers.b.engine.tasks)
        assert servers.b.engine.tasks[0].sampling.seed == seed


async def test_a_full_queue_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job of a dead server was accepted once: it is drawn as soon as there is room."""
    async with two() as servers:
        await until_running(servers.a.stub.Generate(kept()))
        checked, check = list[None](), servers.b.engine.check_room

        def counted(*args: Any, **keywords: Any) -> None:
            checked.append(None)
            check(*args, **keywords)

        monkeypatch.setattr(servers.b.engine, "check_room", counted)
        servers.b.engine.queue_size = 0
        died(servers)
        await met(lambda: len(checked) > 2)
        reader = attach(servers.b)
        servers.b.engine.queue_size = 8
        servers.go_on()
        assert len(await events_of(reader)) == 7


async def test_a_deadline_goes_with_the_job() -> None:
    """Who draws it on has what is left of it."""
    async with two() as servers:
        await until_running(servers.a.stub.Generate(kept(), timeout=1000))
        await until_running(servers.a.stub.Generate(kept(request_id="other")))
        died(servers)
        await met(lambda: len(servers.b.engine.time_limits) == 2)
        limit, other = sorted(servers.b.engine.time_limits, key=lambda one: one is None)
        assert other is None
        assert limit is not None
        assert 900 < limit <= 1000


async def test_a_server_that_drains_leaves_its_jobs() -> None:
    """Past `drain_timeout` its reader is told DRAINING, as before, and another server draws on."""
    async with two(drain_timeout=0) as servers:
        first = servers.a.stub.Generate(kept())
        await until_running(first)
        stopping = asyncio.ensure_future(servers.a.server.stop())
        assert await reason_of(first) == "DRAINING"
        await stopping
        reader = attach(servers.b)
        servers.b.engine.gate.set()
        check_grammar(kept(), await events_of(reader))
        assert len(servers.b.engine.tasks) == 1


async def test_a_reader_at_a_server_that_stops_is_told() -> None:
    """At once, by the name that tells clients to go elsewhere; the job goes on."""
    async with two(drain_timeout=0) as servers:
        await until_running(servers.a.stub.Generate(kept()))
        await known(servers, 1)
        reader = attach(servers.b, 0)
        await reader.read()
        stopping = asyncio.ensure_future(servers.b.server.stop())
        assert await reason_of(reader) == "DRAINING"
        await stopping
        servers.go_on()
        assert len(await events_of(attach(servers.a))) == 7


async def lost(_tellings: object) -> None:
    """Reach nobody."""
    raise Unreachable("FakeError")


async def test_a_job_that_cannot_be_drawn_on_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though nothing was told of it but its request: who comes for it learns the failure by name."""
    async with two() as servers:
        monkeypatch.setattr(servers.at_a, "tell", lost)
        await until_running(servers.a.stub.Generate(kept(loras=[pb.Lora(name="inks")])))
        servers.b.engine.loras = ()
        died(servers)
        reader = attach(servers.b)
        assert await reason_of(reader) == "LORA_NOT_FOUND"


async def test_a_server_that_drains_takes_no_job() -> None:
    """It would not end it; the job waits for the next server."""
    async with two() as servers:
        await until_running(servers.b.stub.Generate(kept(request_id="keeps b busy")))
        await until_running(servers.a.stub.Generate(kept()))
        stopping = asyncio.ensure_future(servers.b.server.stop())
        await servers.b.server._gate.closing.wait()
        died(servers)
        asked = servers.at_b.asked
        del asked[:]
        await met(lambda: asked.count("listen") > 3)
        assert "take" not in asked
        servers.go_on()
        await stopping


async def test_without_the_registry_a_server_has_its_own_jobs(caplog: pytest.LogCaptureFixture) -> None:
    """They are drawn, kept, listed and cancelled as on one; what is another's is UNAVAILABLE, by name."""
    async with two(held=False) as servers:
        await events_of(servers.a.stub.Generate(kept()))
        await known(servers, 6)
        servers.registry.is_away = True
        await met(lambda: not servers.at_b.is_there)
        assert len(await events_of(servers.b.stub.Generate(kept(prompt="a dog")))) == 7
        assert len(await events_of(attach(servers.b))) == 7
        assert [job.request_id for job in await jobs_of(servers.b)] == ["mine"]
        assert (await cancelled(servers.b)).state == jobs_pb2.JOB_STATE_FINISHED
        assert len(await events_of(servers.b.stub.Generate(generate(request_id="x")))) == 7
        error = await failure_of(attach(servers.b, request_id="else"))
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert details_of(error)["ErrorInfo"].reason == "KEEPING_LOST"
        with pytest.raises(aio.AioRpcError) as caught:
            await servers.b.jobs.CancelJob(jobs_pb2.CancelJobRequest(request_id="else"))
        assert details_of(caught.value)["ErrorInfo"].reason == "KEEPING_LOST"
    assert not any(record.exc_info for record in caplog.records if record.name.startswith("sdgrpc"))
    assert caplog.text.count("kept jobs of the cluster cannot be reached (FakeError)") == 2


@pytest.mark.parametrize("forgets", [False, True])
async def test_a_registry_that_comes_back_is_told_again(*, forgets: bool) -> None:
    """All that is kept, once, whether it forgot its jobs or not; readers go on where they were."""
    async with two() as servers:
        first = servers.a.stub.Generate(kept())
        await until_running(first)
        await known(servers, 1)
        reader = attach(servers.b)
        await reader.read()
        servers.registry.is_away = True
        await met(lambda: not servers.at_a.is_there and not servers.at_b.is_there)
        if forgets:
            servers.registry.restart()
        servers.go_on()
        events = await events_of(first)
        servers.registry.is_away = False
        assert bare(await events_of(reader))[1:] == bare(events)
        await met(lambda: servers.at_b.is_there)
        assert len(await events_of(attach(servers.b))) == 7
        assert len(servers.b.engine.tasks) == 0


async def test_a_job_drawn_at_two_servers_is_one_again() -> None:
    """Both drew it while neither could ask; when one of them dies what the other has is what all have."""
    async with two() as servers:
        servers.registry.is_away = True
        await met(lambda: not servers.at_a.is_there and not servers.at_b.is_there)
        for api in (servers.a, servers.b):
            await until_running(api.stub.Generate(kept()))
        servers.registry.is_away = False
        await known(servers, 1)
        await met(lambda: servers.at_a.is_there and servers.at_b.is_there)
        drawing = servers.registry.actor._entries["", "mine"].door
        dead, living = (servers.at_a, servers.b) if drawing == "a" else (servers.at_b, servers.a)
        servers.registry.bury(dead)
        entries = servers.registry.actor._entries
        await met(lambda: ("", "mine") in entries and entries["", "mine"].door != drawing)
        await known(servers, 1)
        servers.go_on()
        check_grammar(kept(), await events_of(attach(living)))
        await met(lambda: entries["", "mine"].has_ended)
        assert len(living.engine.tasks) == 1


async def test_a_registry_that_restarts_unseen_is_told_again() -> None:
    """It says by another life that it knows nothing."""
    async with two(held=False) as servers:
        events = await events_of(servers.a.stub.Generate(kept()))
        await known(servers, 6)
        servers.registry.restart()
        await known(servers, 6)
        assert bare(await events_of(attach(servers.b))) == bare(events)


@pytest.mark.parametrize("cancels", [False, True])
async def test_a_server_that_was_taken_for_dead_goes_on(*, cancels: bool) -> None:
    """Its readers get their events from it, those at the other server from there; a cancel is for both."""
    async with two() as servers:
        first = servers.a.stub.Generate(kept())
        await until_running(first)
        await known(servers, 1)
        died(servers)
        await met(lambda: servers.b.engine.tasks)
        servers.at_a.is_dead = False
        if cancels:
            await cancelled(servers.a)
            assert await reason_of(first) == await reason_of(attach(servers.b)) == "JOB_CANCELLED"
            return
        servers.go_on()
        assert len(await events_of(first)) == 5
        check_grammar(kept(), await events_of(attach(servers.b)))
        assert [job.request_id for job in await jobs_of(servers.a)] == ["mine"]


async def test_callers_see_their_own_jobs_alone_everywhere(tmp_path: Path) -> None:
    """Another token's job is not found at another server either, and a job drawn on stays its caller's."""
    tokens = tmp_path / "tokens"
    tokens.write_text(f"ann: {'a' * 32}\nbob: {'b' * 32}\n")
    tokens.chmod(0o600)
    ann, bob = ((("authorization", f"Bearer {sign * 32}"),) for sign in "ab")
    async with two(token_file=tokens) as servers:
        await until_running(servers.a.stub.Generate(kept(), metadata=ann))
        assert await reason_of(attach(servers.b, metadata=bob)) == "JOB_NOT_FOUND"
        assert (await servers.b.jobs.ListJobs(jobs_pb2.ListJobsRequest(), metadata=bob)).jobs == []
        died(servers)
        await met(lambda: servers.b.engine.tasks)
        assert servers.b.engine.tasks[0].caller == "ann"
        servers.go_on()
        assert len(await events_of(attach(servers.b, metadata=ann))) == 7
        assert await reason_of(attach(servers.b, metadata=bob)) == "JOB_NOT_FOUND"


async def test_a_slow_registry_holds_up_no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """The job ends while its first telling is still on its way; what is left is told together afterwards."""
    async with two(held=False) as servers:
        gate, asked = asyncio.Event(), FakeShared.tell

        async def slow(self: FakeShared, tellings: Any) -> Any:
            await gate.wait()
            return await asked(self, tellings)

        monkeypatch.setattr(FakeShared, "tell", slow)
        assert len(await events_of(servers.a.stub.Generate(kept()))) == 7
        assert servers.registry.told == []
        gate.set()
        assert len(await events_of(attach(servers.b))) == 7
        assert 0 < sum(bool(one.events) for one in servers.registry.told) <= 2


async def test_a_job_that_is_too_large_is_another_servers_to_know() -> None:
    """It has what was told, and the failure that who comes back is given where the job was."""
    async with two(held=False, keep_bytes="2KiB") as servers:
        request = kept(sampling=pb.Sampling(steps=9), width=256, height=256)
        check_grammar(request, await events_of(servers.a.stub.Generate(request)))
        await met(lambda: servers.registry.actor._entries["", "mine"].has_ended)
        assert await reason_of(attach(servers.b)) == "KEEPING_FULL"


async def test_readers_are_bounded_at_another_server() -> None:
    """The seventeenth is refused there too; the list tells of those at the server that is asked."""
    async with two() as servers:
        await until_running(servers.a.stub.Generate(kept()))
        await known(servers, 1)
        readers = [attach(servers.b) for _ in range(16)]
        for reader in readers:
            await reader.read()
        assert await reason_of(attach(servers.b)) == "TOO_MANY_CALLS"
        (job,) = await jobs_of(servers.b)
        assert job.readers == 16


async def test_a_job_that_is_forgotten_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its reader is told so, once it has waited for the server to tell of it again."""
    monkeypatch.setattr("sdgrpc.api.jobs.elsewhere.PATIENCE_SECONDS", 0.05)
    async with two() as servers:
        await until_running(servers.a.stub.Generate(kept()))
        await known(servers, 1)
        reader = attach(servers.b)
        await reader.read()
        actor = servers.registry.actor
        actor._forget(actor._entries["", "mine"])
        assert await reason_of(reader) == "JOB_NOT_FOUND"


async def test_a_client_that_leaves_while_its_id_is_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The id is free again."""
    async with two() as servers:
        entries, tell = servers.registry.actor._entries, servers.registry.actor.claim
        call: Any = None

        async def claimed(*args: Any) -> Any:
            answer = await tell(*args)
            call.cancel()
            await asyncio.sleep(0.1)
            return answer

        monkeypatch.setattr(servers.registry.actor, "claim", claimed)
        call = servers.a.stub.Generate(kept())
        with pytest.raises(asyncio.CancelledError):
            await call.read()
        await met(lambda: "claim" in servers.at_a.asked and not entries)
        assert servers.a.engine.tasks == []


async def test_created_times_are_the_servers_own() -> None:
    """A job that is drawn on keeps its age."""
    async with two() as servers:
        before = time.time()
        await until_running(servers.a.stub.Generate(kept()))
        died(servers)
        await met(lambda: servers.b.engine.tasks)
        (job,) = await jobs_of(servers.b)
        assert before <= job.created.seconds + job.created.nanos / 1e9 <= time.time()
        assert job.created == (await jobs_of(servers.a))[0].created
