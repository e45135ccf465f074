"""Jobs that outlive their connection, over a real port: cut, found again, shared, cancelled, forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sdgrpc.api.jobs.content import Content
from sdgrpc.api.jobs.servicer import JOB_TABLES
from sdgrpc.errors import JobCancelled, OutOfMemory
from sdgrpc.v1 import diffusion_pb2 as pb
from sdgrpc.v1 import jobs_pb2
from tests.support import requests
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
    violations_of,
)
from tests.support.engine import FakeEngine
from tests.support.kept_jobs import PICTURES, attach, bare, ended, jobs_of, kept, until

METHODS = {pb.GenerateRequest: "Generate", pb.TransformRequest: "Transform", pb.InpaintRequest: "Inpaint"}


async def wrong(call: Any) -> set[str]:
    """The fields that a call is refused for."""
    return set(violations_of(await failure_of(call)))


@asynccontextmanager
async def held(**options: Any) -> AsyncIterator[Api]:
    """A server whose jobs wait before their first step."""
    engine = FakeEngine()
    engine.gate.clear()
    async with running_api(engine, **options) as api:
        yield api


@settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))
@given(request=requests.valid(), data=st.data())
def test_a_reader_cut_at_any_event_loses_nothing(request: Any, data: st.DataObject) -> None:
    """However often and wherever its readers are cut, the events are those of one that reads undisturbed."""
    request.on_disconnect, request.request_id = pb.ON_DISCONNECT_KEEP, "mine"
    cuts = data.draw(st.lists(st.integers(0, 8), min_size=1, max_size=4))

    async def run() -> None:
        async with running_api(FakeEngine(), max_steps=requests.MAX_STEPS) as api:
            seen: list[pb.JobEvent] = []
            call: Any = getattr(api.stub, METHODS[type(request)])(request)
            for cut in [max(cuts[0], 1), *cuts[1:]]:
                for _ in range(cut):
                    if (event := await call.read()) is aio.EOF:
                        break
                    seen.append(event)
                call.cancel()
                call = attach(api, seen[-1].sequence)
            seen += await events_of(call)
            check_grammar(request, seen)
            assert bare(await events_of(attach(api))) == bare(seen)
            assert api.engine.cancelled == 0
            assert len(api.engine.tasks) == 1

    asyncio.run(run())


@pytest.mark.parametrize("cut", range(1, 9))
async def test_a_reader_cut_at_each_event_of_a_job(cut: int) -> None:
    """The whole grammar, one event after the other: accepted, prepared, three steps, two images, finished."""
    request = kept(sampling=pb.Sampling(steps=3, image_count=2), output=PICTURES)
    async with running_api(FakeEngine()) as api:
        call = api.stub.Generate(request)
        seen: list[Any] = [await call.read() for _ in range(cut)]
        call.cancel()
        seen += await events_of(attach(api, seen[-1].sequence))
        check_grammar(request, seen)
        assert bare(await events_of(attach(api, -1))) == bare(seen)


async def test_a_kept_job_goes_on_without_its_reader() -> None:
    """Closing the stream changes nothing for it; the list tells how far it is."""
    async with held() as api:
        call = api.stub.Generate(kept())
        await until_running(call)
        call.cancel()
        (job,) = await until(lambda jobs: jobs[0].readers == 0, api)
        assert (job.request_id, job.method, job.state) == ("mine", "Generate", jobs_pb2.JOB_STATE_RUNNING)
        assert not job.HasField("expires")
        api.engine.gate.set()
        (job,) = await until(ended, api)
        assert (job.state, job.step, job.step_count) == (jobs_pb2.JOB_STATE_FINISHED, 3, 3)
        assert (job.images_finished, job.image_count, job.last_sequence) == (1, 1, 6)
        assert job.model == "fake"
        assert 299 < job.expires.seconds - job.created.seconds < 320
        assert job.size_bytes > 0
        assert api.engine.finished == 1
        assert api.engine.cancelled == 0


async def test_two_readers_of_one_job() -> None:
    """Each gets every event, whenever it came."""
    async with held() as api:
        first = api.stub.Generate(kept(output=PICTURES))
        await until_running(first)
        second = attach(api)
        assert (await second.read()).WhichOneof("event") == "accepted"
        (job,) = await jobs_of(api)
        assert job.readers == 2
        api.engine.gate.set()
        rest, all_but_one = await events_of(first), await events_of(second)
        assert bare(all_but_one)[1:] == bare(rest)


async def test_previews_are_for_who_waits() -> None:
    """A reader that has all events so far gets the next with its previews; who comes later gets none."""
    async with running_api(FakeEngine()) as api:
        live = await events_of(api.stub.Generate(kept(output=PICTURES)))
        assert all(event.progress.previews for event in live[2:4])
        late = await events_of(attach(api))
        assert not any(event.progress.previews for event in late)


async def test_no_preview_is_made_for_nobody() -> None:
    """The engine is asked for none while nobody reads."""
    asked: list[bool] = []

    class Asking(FakeEngine):
        async def submit(self, task: Any, **options: Any) -> Any:
            wanted = options.pop("previews_wanted")
            async for event in super().submit(task, previews_wanted=wanted, **options):
                asked.append(wanted())
                yield event

    engine = Asking()
    engine.gate.clear()
    async with running_api(engine) as api:
        call = api.stub.Generate(kept(output=PICTURES))
        await until_running(call)
        call.cancel()
        await until(lambda jobs: jobs[0].readers == 0, api)
        del asked[:]
        engine.gate.set()
        await until(ended, api)
        assert asked == [False] * 5


async def test_the_same_request_is_drawn_once() -> None:
    """While it is kept it gets its events, with the seed that `accepted` told too."""
    async with running_api(FakeEngine()) as api:
        first = await events_of(api.stub.Generate(kept()))
        seed = first[0].accepted.sampling.seed
        seeded = pb.Sampling(steps=3, seed=seed)
        for again in (kept(), kept(sampling=seeded), kept(on_disconnect=pb.ON_DISCONNECT_CANCEL)):
            assert bare(await events_of(api.stub.Generate(again))) == bare(first)
        assert len(api.engine.tasks) == 1


async def test_the_same_request_needs_no_room() -> None:
    """With a full queue a request finds its job again; one that would have to be drawn is refused."""
    async with held() as api:
        first = api.stub.Generate(kept())
        await until_running(first)
        api.engine.queue_size = 1
        again = api.stub.Generate(kept())
        await until_running(again)
        for other in (kept(request_id="other"), generate()):
            error = await failure_of(api.stub.Generate(other))
            assert details_of(error)["ErrorInfo"].reason == "QUEUE_FULL"
        first.cancel()
        api.engine.gate.set()
        assert (await events_of(again))[-1].WhichOneof("event") == "finished"
        assert len(api.engine.tasks) == 1


async def test_the_same_request_while_it_runs_or_is_read() -> None:
    """Two that come at the same time are one job, before its pictures are read even."""
    request = transform(request_id="mine", on_disconnect=pb.ON_DISCONNECT_KEEP)
    async with running_api(FakeEngine()) as api:
        calls = [api.stub.Transform(request) for _ in range(3)]
        first, *others = [bare(await events_of(call)) for call in calls]
        assert others == [first, first]
        assert len(api.engine.tasks) == 1


@pytest.mark.parametrize(
    "other",
    [
        kept(prompt="a dog"),
        kept(sampling=pb.Sampling(steps=2)),
        kept(sampling=pb.Sampling(steps=3, seed=2**62)),
        kept(negative_prompt="a dog"),
        kept(loras=[pb.Lora(name="inks")]),
        kept(output=PICTURES),
        kept(prompt="a dog", on_disconnect=pb.ON_DISCONNECT_UNSPECIFIED),
    ],
)
async def test_other_content_under_a_kept_id(other: pb.GenerateRequest) -> None:
    """It is refused by name, and the job is not touched."""
    async with running_api(FakeEngine()) as api:
        await events_of(api.stub.Generate(kept()))
        error = await failure_of(api.stub.Generate(other))
        assert error.code() is grpc.StatusCode.ALREADY_EXISTS
        assert details_of(error)["ErrorInfo"].reason == "JOB_EXISTS"
        assert "'mine'" in error.details()
        assert len(await events_of(attach(api))) == 7


async def test_another_method_is_other_content() -> None:
    """A Transform is not the Generate of its id."""
    async with running_api(FakeEngine()) as api:
        await events_of(api.stub.Generate(kept()))
        error = await failure_of(api.stub.Transform(transform(request_id="mine")))
        assert error.code() is grpc.StatusCode.ALREADY_EXISTS


async def test_an_unnamed_job_is_kept_too() -> None:
    """The server's id finds it."""
    async with running_api(FakeEngine()) as api:
        events = await events_of(api.stub.Generate(kept(request_id="")))
        again = await events_of(attach(api, request_id=events[0].request_id))
        assert bare(again) == bare(events)


async def test_cancelling_a_job() -> None:
    """It is dropped before its next step, its readers are told, and the same request is drawn anew."""
    async with held() as api:
        call = api.stub.Generate(kept())
        await until_running(call)
        answer = await api.jobs.CancelJob(jobs_pb2.CancelJobRequest(request_id="mine"))
        assert answer.job.state == jobs_pb2.JOB_STATE_RUNNING
        error = await failure_of(call)
        assert (error.code(), details_of(error)["ErrorInfo"].reason) == (
            grpc.StatusCode.CANCELLED,
            "JOB_CANCELLED",
        )
        (job,) = await jobs_of(api)
        assert (job.state, job.failure_reason) == (jobs_pb2.JOB_STATE_CANCELLED, "JOB_CANCELLED")
        assert (api.engine.cancelled, api.engine.steps) == (1, 0)
        api.engine.gate.set()
        assert len(await events_of(api.stub.Generate(kept()))) == 7
        again = await api.jobs.CancelJob(jobs_pb2.CancelJobRequest(request_id="mine"))
        assert again.job.state == jobs_pb2.JOB_STATE_FINISHED
        assert len(await events_of(attach(api))) == 7


async def test_a_failed_job_tells_why_and_is_drawn_again() -> None:
    """Who comes back gets the events and the failure; the same request is another try."""
    engine = FakeEngine(failures={"decode": OutOfMemory("small device")})
    async with running_api(engine) as api:
        for call in (lambda: api.stub.Generate(kept()), lambda: attach(api)):
            events = []
            with pytest.raises(aio.AioRpcError) as caught:
                async for event in call():  # which `read` would not give once the failure is there
                    events.append(event)  # noqa: PERF401 - those before the failure count
            assert len(events) == 5
            assert details_of(caught.value)["ErrorInfo"].reason == "OUT_OF_MEMORY"
        (job,) = await jobs_of(api)
        assert (job.state, job.failure_message) == (jobs_pb2.JOB_STATE_FAILED, "small device")
        engine.failures.clear()
        assert len(await events_of(api.stub.Generate(kept()))) == 7


async def test_an_unexpected_failure_keeps_its_secrets(caplog: pytest.LogCaptureFixture) -> None:
    """One entry in the log, without the prompt; every reader is told its id."""
    engine = FakeEngine(failures={"step": RuntimeError("cannot draw a secret cat")})
    async with running_api(engine) as api:
        first = await failure_of(api.stub.Generate(kept(prompt="a secret cat")))
        second = await failure_of(attach(api))
    assert first.code() is second.code() is grpc.StatusCode.INTERNAL
    error_id = details_of(first)["ErrorInfo"].metadata["error_id"]
    assert details_of(second)["ErrorInfo"].metadata["error_id"] == error_id
    assert caplog.text.count(error_id) == 1
    assert "secret" not in caplog.text


@pytest.mark.parametrize("moment", ["submit"])
async def test_a_refused_job_is_not_kept(moment: str) -> None:
    """Before it was accepted there is nothing to find."""
    engine = FakeEngine(failures={moment: OutOfMemory("small device")})
    async with running_api(engine) as api:
        await failure_of(api.stub.Generate(kept()))
        assert await jobs_of(api) == []
        assert await wrong(api.stub.Generate(kept(width=100))) == {"width"}
        assert await jobs_of(api) == []


async def test_a_deadline_ends_a_kept_job() -> None:
    """The time after which nobody wants the pictures is the job's, whoever reads."""
    async with held() as api:
        call = api.stub.Generate(kept(), timeout=0.5)
        assert (await failure_of(call)).code() is grpc.StatusCode.DEADLINE_EXCEEDED
        (limit,) = api.engine.time_limits
        assert limit is not None
        assert 0 < limit <= 0.5


async def test_the_deadline_of_attaching_is_its_own() -> None:
    """The job goes on."""
    async with held() as api:
        call = api.stub.Generate(kept())
        await until_running(call)
        error = await failure_of(attach(api, timeout=0.3))
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        api.engine.gate.set()
        assert len(await events_of(call)) == 5


@pytest.mark.parametrize("request_id", ["yours", "mine "])
async def test_a_job_that_is_not_there(request_id: str) -> None:
    """NOT_FOUND by name, from all three calls."""
    async with running_api(FakeEngine()) as api:
        await events_of(api.stub.Generate(kept()))
        cancelling = api.jobs.CancelJob(jobs_pb2.CancelJobRequest(request_id=request_id))
        with pytest.raises(aio.AioRpcError) as caught:
            await cancelling
        for error in (await failure_of(attach(api, request_id=request_id)), caught.value):
            details = details_of(error)
            assert error.code() is grpc.StatusCode.NOT_FOUND
            assert details["ErrorInfo"].reason == "JOB_NOT_FOUND"
            resource = details["ResourceInfo"]
            assert (resource.resource_type, resource.resource_name) == ("sdgrpc.v1.Job", request_id)


async def test_bad_requests_name_their_fields() -> None:
    """No id, a number below -1, a number after the end."""
    async with running_api(FakeEngine()) as api:
        await events_of(api.stub.Generate(kept()))
        assert await wrong(attach(api, request_id="")) == {"request_id"}
        assert await wrong(attach(api, -2)) == {"after_sequence"}
        assert await wrong(attach(api, 7)) == {"after_sequence"}
        assert await events_of(attach(api, 6)) == []
        assert await wrong(api.stub.Generate(generate(on_disconnect=7))) == {"on_disconnect"}


async def test_a_job_cancelled_before_it_begins() -> None:
    """Its readers are told all the same."""
    async with running_api(FakeEngine()) as api:
        jobs = api.server._kept

        async def never(_wanted: Any) -> Any:
            raise AssertionError("it was cancelled")
            yield

        job = jobs.start("", kept(), Content.of(kept()), never)
        job.cancel()
        with pytest.raises(JobCancelled):
            await anext(job.log.read())
        assert await jobs_of(api) == []


def test_every_field_has_a_rule() -> None:
    """A field that the contract gains fails here until somebody decides what it may hold."""
    for kind, table in JOB_TABLES.items():
        assert set(table) == {field.name for field in kind.DESCRIPTOR.fields}


async def test_callers_see_their_own_jobs_alone(tmp_path: Path) -> None:
    """Another token's job is not found, not listed, and its id is free."""
    tokens = tmp_path / "tokens"
    tokens.write_text(f"ann: {'a' * 32}\nbob: {'b' * 32}\n")
    tokens.chmod(0o600)
    ann, bob = ((("authorization", f"Bearer {sign * 32}"),) for sign in "ab")
    async with running_api(FakeEngine(), token_file=tokens) as api:
        first = await events_of(api.stub.Generate(kept(), metadata=ann))
        error = await failure_of(attach(api, metadata=bob))
        assert error.code() is grpc.StatusCode.NOT_FOUND
        assert (await api.jobs.ListJobs(jobs_pb2.ListJobsRequest(), metadata=bob)).jobs == []
        await events_of(api.stub.Generate(kept(prompt="a dog"), metadata=bob))
        assert bare(await events_of(attach(api, metadata=ann))) == bare(first)


async def test_jobs_come_page_by_page() -> None:
    """Pages join without a gap or a repetition, also where jobs come and go between them."""
    async with running_api(FakeEngine()) as api:
        names = [f"job {number}" for number in range(5)]
        for request_id in names:
            await events_of(api.stub.Generate(kept(request_id=request_id)))
        page = await api.jobs.ListJobs(jobs_pb2.ListJobsRequest(page_size=2))
        seen = [job.request_id for job in page.jobs]
        api.server._kept._forget(api.server._kept.get("", "job 1"))
        await events_of(api.stub.Generate(kept(request_id="late")))
        while page.next_page_token:
            request = jobs_pb2.ListJobsRequest(page_size=2, page_token=page.next_page_token)
            page = await api.jobs.ListJobs(request)
            seen += [job.request_id for job in page.jobs]
            assert len(page.jobs) <= 2
        assert seen == [*names, "late"]
        assert [job.request_id for job in await jobs_of(api)] == ["job 0", *names[2:], "late"]


async def refused(api: Api, **fields: Any) -> set[str]:
    """The fields that a list is refused for."""
    with pytest.raises(aio.AioRpcError) as caught:
        await api.jobs.ListJobs(jobs_pb2.ListJobsRequest(**fields))
    return set(violations_of(caught.value))


@pytest.mark.parametrize("token", ["1", "W10=", "WyIiLDFd", "WyJhIiwiYiJd", "[" * 3000])
async def test_other_page_tokens_are_refused(token: str) -> None:
    """With the field that is wrong; so are pages of more than a thousand."""
    async with running_api(FakeEngine()) as api:
        assert await refused(api, page_token=token) == {"page_token"}
        for size in (-1, 1001):
            assert await refused(api, page_size=size) == {"page_size"}


async def test_jobs_are_forgotten_in_time() -> None:
    """After `keep_seconds`; with 0 as soon as they end."""
    async with running_api(FakeEngine(), keep_seconds=0.2) as api:
        await events_of(api.stub.Generate(kept()))
        await until(lambda jobs: not jobs, api)
        assert (await failure_of(attach(api))).code() is grpc.StatusCode.NOT_FOUND
        assert api.server._kept.held_bytes == 0


async def test_memory_is_bounded() -> None:
    """Those that ended first are forgotten first."""
    async with running_api(FakeEngine(), keep_bytes="16KiB") as api:
        for number in range(8):
            await events_of(api.stub.Generate(kept(request_id=str(number))))
            assert api.server._kept.held_bytes <= 16 << 10
        jobs = await jobs_of(api)
        assert 0 < len(jobs) < 8
        assert [job.request_id for job in jobs] == [str(number) for number in range(8 - len(jobs), 8)]
        assert sum(job.size_bytes for job in jobs) == api.server._kept.held_bytes


async def test_a_job_that_is_too_large_and_that_nobody_reads() -> None:
    """It ends, lets go of its memory, and tells who comes back."""
    async with held(keep_bytes="2KiB") as api:
        call = api.stub.Generate(kept())
        await until_running(call)
        call.cancel()
        await until(lambda jobs: jobs[0].readers == 0, api)
        api.engine.gate.set()
        (job,) = await until(ended, api)
        assert (job.state, job.failure_reason) == (jobs_pb2.JOB_STATE_FAILED, "KEEPING_FULL")
        assert (job.size_bytes, api.engine.cancelled) == (0, 1)
        error = await failure_of(attach(api))
        assert details_of(error)["ErrorInfo"].reason == "KEEPING_FULL"


async def test_a_job_that_is_too_large_and_that_is_read() -> None:
    """Its reader gets all of it; nobody can come back."""
    async with running_api(FakeEngine(), keep_bytes="2KiB") as api:
        request = kept(sampling=pb.Sampling(steps=9), width=256, height=256)
        check_grammar(request, await events_of(api.stub.Generate(request)))
        assert api.server._kept.held_bytes <= 2 << 10
        error = await failure_of(attach(api))
        assert details_of(error)["ErrorInfo"].reason == "KEEPING_FULL"
        check_grammar(request, await events_of(api.stub.Generate(request)))


async def test_a_server_that_keeps_nothing() -> None:
    """It says so, and draws what need not be kept."""
    async with running_api(FakeEngine(), keep_bytes=0) as api:
        error = await failure_of(api.stub.Generate(kept()))
        assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert details_of(error)["ErrorInfo"].reason == "KEEPING_OFF"
        assert len(await events_of(api.stub.Generate(generate()))) == 7


async def test_a_reader_that_stalls_leaves_its_job() -> None:
    """It is told that the job goes on, and gets all of it when it comes back."""
    engine = FakeEngine()
    preview = pb.PreviewOptions(kind=pb.PREVIEW_KIND_LATENT)
    request = kept(
        width=1024, height=1024, sampling=pb.Sampling(steps=400), output=pb.Output(preview=preview)
    )
    async with running_api(engine, write_timeout=0.3, max_steps=1000) as api:
        call = api.stub.Generate(request)
        await until_running(call)
        await until(lambda jobs: jobs[0].state == jobs_pb2.JOB_STATE_FINISHED, api)
        check_grammar(request, await events_of(attach(api)))
        error = await failure_of(call)
        assert details_of(error)["ErrorInfo"].reason == "READER_STALLED"
        assert "the job goes on" in error.details()
        assert engine.cancelled == 0


async def test_readers_are_bounded() -> None:
    """The seventeenth is refused."""
    async with held() as api:
        first = api.stub.Generate(kept())
        await until_running(first)
        others = [attach(api) for _ in range(15)]
        for other in others:
            await other.read()
        error = await failure_of(attach(api))
        assert details_of(error)["ErrorInfo"].reason == "TOO_MANY_CALLS"


async def test_draining_waits_for_kept_jobs() -> None:
    """A job without a reader is finished first, and can be read meanwhile; new ones are refused."""
    async with held() as api:
        call = api.stub.Generate(kept())
        await until_running(call)
        call.cancel()
        await until(lambda jobs: jobs[0].readers == 0, api)
        stopping = asyncio.ensure_future(api.server.stop())
        await api.server._gate.closing.wait()
        reader = attach(api)
        assert (await reader.read()).WhichOneof("event") == "accepted"
        error = await failure_of(api.stub.Generate(kept(request_id="new")))
        assert details_of(error)["ErrorInfo"].reason == "DRAINING"
        assert not stopping.done()
        api.engine.gate.set()
        assert len(await events_of(reader)) == 6
        await stopping
        assert api.engine.finished == 1


async def test_stopping_ends_kept_jobs_by_name() -> None:
    """Past `drain_timeout` readers are told that the server drained."""
    async with held(drain_timeout=0) as api:
        call = api.stub.Generate(kept())
        await until_running(call)
        stopping = asyncio.ensure_future(api.server.stop())
        assert details_of(await failure_of(call))["ErrorInfo"].reason == "DRAINING"
        await stopping


async def test_a_failed_engine_ends_kept_jobs_by_name() -> None:
    """Readers, old and new, are told."""
    async with held() as api:
        call = api.stub.Generate(kept())
        await until_running(call)
        api.engine.failure.set()
        assert details_of(await failure_of(call))["ErrorInfo"].reason == "ENGINE_FAILED"
        assert details_of(await failure_of(attach(api)))["ErrorInfo"].reason == "ENGINE_FAILED"
