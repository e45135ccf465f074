"""Requests are refused before they are received, and before they are parsed."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from grpc import aio
from hypothesis import given
from hypothesis import strategies as st

from sdgrpc.api.traffic.receiving import MAX_FIELDS, has_at_most
from sdgrpc.v1 import diffusion_pb2 as pb
from tests.support.api import (
    Api,
    details_of,
    events_of,
    failure_of,
    generate,
    png,
    running_api,
    transform,
    violations_of,
)
from tests.support.engine import FakeEngine

GENERATE, TRANSFORM = (f"/sdgrpc.v1.DiffusionService/{name}" for name in ("Generate", "Transform"))


def raw(api: Api, method: str, data: bytes) -> Any:
    """A call with these bytes as its request."""
    return api.channel.unary_stream(method, request_serializer=bytes, response_deserializer=bytes)(data)


def opened(api: Api, method: str = TRANSFORM) -> aio.StreamStreamCall:
    """A call that has begun and has sent nothing yet."""
    return api.channel.stream_stream(method, request_serializer=bytes, response_deserializer=bytes)()


async def until_held(api: Api, places: int) -> None:
    """Wait until the server holds places for so many requests that it has not received."""
    holding = api.server._servicer._holding
    async with asyncio.timeout(20):
        while holding._places.total() != places:  # noqa: ASYNC110 - a number of the server's
            await asyncio.sleep(0.01)


async def test_a_request_that_comes_has_its_place_in_the_queue() -> None:
    """Of two places two calls that have sent nothing hold both; a third is refused with its body unread."""
    async with running_api(FakeEngine(queue_size=2)) as api:
        waiting = [opened(api) for _ in range(2)]
        await until_held(api, 2)
        refused = opened(api)  # it never sends a request, so the answer cannot be to one
        details = details_of(await failure_of(refused))
        assert details["ErrorInfo"].reason == "QUEUE_FULL"
        assert details["RetryInfo"].retry_delay.seconds > 0
        for call in waiting:
            call.cancel()
        await until_held(api, 0)
        assert await events_of(api.stub.Transform(transform()))


async def test_sixteen_at_once_against_two_places() -> None:
    """Two are drawn in time; the others are refused at once and told when to come back."""
    engine = FakeEngine(queue_size=2)
    engine.gate.clear()
    async with running_api(engine) as api:
        request = transform(image=pb.Image(data=png(640, 640)))
        calls = [api.stub.Transform(request) for _ in range(16)]
        async with asyncio.timeout(60):
            firsts = await asyncio.gather(*(call.read() for call in calls), return_exceptions=True)
            refused = [one for one in firsts if isinstance(one, aio.AioRpcError)]
            assert len(refused) == 14
            assert {one.code() for one in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
            assert all("RetryInfo" in details_of(one) for one in refused)
            engine.gate.set()
        assert api.server._servicer._holding.held_bytes == 2 * 640 * 640 * 3
        for call in calls:
            call.cancel()


async def test_bodies_have_a_budget() -> None:
    """With a job inside that holds most of it, another body is refused; alone any is taken."""
    engine = FakeEngine()
    engine.gate.clear()
    async with running_api(engine, body_budget_bytes=50_000) as api:
        first = api.stub.Transform(transform(image=pb.Image(data=png(200, 200))))  # 120,000 bytes of pixels
        accepted: Any = await first.read()
        assert accepted.WhichOneof("event") == "accepted"
        error = await failure_of(api.stub.Generate(generate()))
        details = details_of(error)
        assert (details["ErrorInfo"].reason, "RetryInfo" in details) == ("QUEUE_FULL", True)
        assert "body_budget_bytes is 50000" in error.details()
        engine.gate.set()
        await events_of(first)
        await api.server._servicer.idle()
        assert api.server._servicer._holding.held_bytes == 0
        assert await events_of(api.stub.Generate(generate()))


async def test_a_request_that_does_not_come_ends() -> None:
    """Neither a call that sends nothing nor one that says it is done holds its place."""
    async with running_api(FakeEngine(), receive_timeout=0.2) as api:
        error = await failure_of(opened(api))
        assert error.code() is grpc.StatusCode.ABORTED
        assert details_of(error)["ErrorInfo"].reason == "REQUEST_INTERRUPTED"
        done = opened(api)
        await done.done_writing()
        assert "brought no request" in (await failure_of(done)).details()
        await until_held(api, 0)


@pytest.mark.parametrize("method", [GENERATE, TRANSFORM])
async def test_a_message_of_a_million_parts_is_not_parsed(method: str) -> None:
    """Empty LoRAs are two bytes each, and a hundred once they are parsed."""
    async with running_api(FakeEngine()) as api:
        error = await failure_of(raw(api, method, b"\x2a\x00" * 400_000))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "has more than 1016 fields" in violations_of(error)[""]


@pytest.mark.parametrize("method", ["GetLora", "PrepareLoras", "ListLoras", "ListModels", "WatchStatus"])
async def test_the_catalogs_requests_are_counted_too(method: str) -> None:
    """Before they are parsed; a request of bytes that are no message is the client's fault there as well."""
    path = f"/sdgrpc.v1.CatalogService/{method}"
    async with running_api(FakeEngine()) as api:
        error = await failure_of(raw(api, path, b"\x12\x00" * 400_000))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "has more than 1016 fields" in violations_of(error)[""]
        assert "is not a message" in violations_of(await failure_of(raw(api, path, b"\xff" * 40)))[""]


async def test_nonsense_is_refused_and_prompts_stay_out_of_the_log(caplog) -> None:
    """Bytes that are no message are the client's fault; a fault of ours is logged without words of theirs."""
    async with running_api(FakeEngine(failures={"step": ValueError("a secret castle")})) as api:
        assert "is not a message" in violations_of(await failure_of(raw(api, GENERATE, b"\xff" * 40)))[""]
        error = await failure_of(api.stub.Generate(generate(prompt="a secret castle")))
        assert error.code() is grpc.StatusCode.INTERNAL
    assert "secret castle" not in caplog.text
    assert "ValueError" in caplog.text


@given(st.binary(max_size=60))
def test_counting_reads_no_further_than_the_bytes(data: bytes) -> None:
    """Whatever the bytes are, they have no more fields than bytes."""
    assert has_at_most(data, 60)


@pytest.mark.parametrize("count", [0, 1, MAX_FIELDS - 1, MAX_FIELDS])
def test_fields_are_counted(count: int) -> None:
    """Each entry of a list is one."""
    data = pb.GenerateRequest(prompt="a", loras=[pb.Lora(name="x")] * count, width=64).SerializeToString()
    assert has_at_most(data, count + 2)
    assert not has_at_most(data, count + 1)
