"""Jobs that outlive their connection, by the client."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from functools import partial

import pytest

from sdgrpc.client import (
    AsyncClient,
    Client,
    InvalidRequestError,
    JobCancelledError,
    JobExistsError,
    JobNotFoundError,
    JobState,
    Progress,
)
from sdgrpc.client.jobs.records import kept_job
from sdgrpc.v1 import jobs_pb2
from tests.support.api import running_api
from tests.support.engine import FakeEngine


def held() -> FakeEngine:
    """An engine whose jobs wait before their first step."""
    engine = FakeEngine()
    engine.gate.clear()
    return engine


async def test_detach_and_attach() -> None:
    """The job goes on; its result is whole for who attaches, and a part of it after an event."""
    async with running_api(held()) as api, AsyncClient(api.server.address) as client:
        job = client.generate("a cat", on_disconnect="keep", steps=3)
        request_id = await job.detach()
        assert request_id
        api.engine.gate.set()
        result = await client.attach(request_id).result()
        assert (result.accepted.request_id, len(result.images)) == (request_id, 1)
        late = [event async for event in client.attach(request_id, after_sequence=3)]
        assert isinstance(late[0], Progress)
        assert late[0].step == 3
        (known,) = await client.list_jobs()
        assert (known.request_id, known.state, known.method) == (request_id, JobState.FINISHED, "Generate")
        assert known.expires is not None
        assert known.expires > datetime.now(UTC)
        with pytest.raises(JobExistsError):
            await client.generate("a dog", request_id=request_id).result()
        with pytest.raises(JobNotFoundError) as caught:
            await client.attach("another").result()
        assert caught.value.resource is not None
        assert caught.value.resource.name == "another"


async def test_leaving_the_block_keeps_the_job() -> None:
    """And cancels one that is not kept."""
    async with running_api(held()) as api, AsyncClient(api.server.address) as client:
        async with client.generate("a cat", on_disconnect="keep", request_id="mine") as job:
            await anext(aiter(job))
        async with client.generate("a dog") as other:
            await anext(aiter(other))
        await asyncio.to_thread(lambda: None)
        api.engine.gate.set()
        assert len(await client.attach("mine").images()) == 1
        assert api.engine.finished == 1


async def test_cancelling_a_kept_job() -> None:
    """By its handle, and by its id; who reads is told."""
    async with running_api(held()) as api, AsyncClient(api.server.address) as client:
        for cancel in ("handle", "id"):
            job = client.generate("a cat", on_disconnect="keep", request_id=cancel)
            await anext(aiter(job))
            reader = client.attach(cancel)
            await anext(aiter(reader))
            if cancel == "handle":
                job.cancel()
            else:
                assert (await client.cancel_job(cancel)).state in (JobState.QUEUED, JobState.RUNNING)
            with pytest.raises(JobCancelledError, match="CancelJob"):
                await reader.result()
        states = {job.request_id: job.state for job in await client.list_jobs()}
        assert states == {"handle": JobState.CANCELLED, "id": JobState.CANCELLED}


async def test_the_list_is_whole_however_small_its_pages_are() -> None:
    """In both clients."""
    async with running_api(FakeEngine()) as api, AsyncClient(api.server.address) as client:
        for request_id in "abc":
            await client.generate("a cat", on_disconnect="keep", request_id=request_id).result()
        for size in (0, 1, 2, 3):
            assert [job.request_id for job in await client.list_jobs(page_size=size)] == ["a", "b", "c"]

        def listed(size: int) -> list[str]:
            with Client(api.server.address) as ordinary:
                return [job.request_id for job in ordinary.list_jobs(page_size=size)]

        for size in (0, 1, 2, 3):
            assert await asyncio.to_thread(listed, size) == ["a", "b", "c"]
        with pytest.raises(InvalidRequestError):
            await client.list_jobs(page_size=-1)


async def test_the_same_for_ordinary_code() -> None:
    """Detach, list, attach and cancel from a thread."""

    def use(address: str, release: partial[object]) -> None:
        with Client(address) as client:
            job = client.generate("a cat", on_disconnect="keep")
            request_id = job.detach()
            (known,) = client.list_jobs()
            assert known.request_id == request_id
            other = client.generate("a dog", on_disconnect="keep", request_id="other")
            next(iter(other))
            reader = client.attach("other")
            next(iter(reader))
            other.cancel()
            with pytest.raises(JobCancelledError, match="CancelJob"):
                reader.result()
            assert client.cancel_job("other").state is JobState.CANCELLED
            release()
            assert len(client.attach(request_id).images()) == 1
            with pytest.raises(ValueError, match="keep"):
                client.generate("a bird").detach()

    async with running_api(held()) as api:
        loop = asyncio.get_running_loop()
        release = partial(loop.call_soon_threadsafe, api.engine.gate.set)
        await asyncio.to_thread(use, api.server.address, release)


def test_a_state_of_a_newer_contract() -> None:
    """It is no error."""
    assert kept_job(jobs_pb2.Job(state=99)).state is JobState.UNKNOWN
