"""The stages of a job below its call, and the UNet calls that jobs share."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from typing import Any

import pytest
from grpc import aio

from sdgrpc.v1 import diffusion_pb2 as pb
from tests.support.api import events_of, generate, until_running
from tests.support.otlp import Receiver, attributes_of
from tests.traces.conftest import Opened

CALL = "sdgrpc.v1.DiffusionService/Generate"
QUICK = pb.Sampling(steps=3, guidance_scale=1)
STAGES = ("queue", "read", "fuse", "encode", "denoise", "decode")


def step_of(event: Any) -> int:
    """The step that an event tells of; 0 for others."""
    return int(event.progress.step)


def closed(receiver: Receiver) -> Receiver:
    """The receiver, of which every span is sound: it ends after it began."""
    assert all(one.end_time_unix_nano >= one.start_time_unix_nano > 0 for one in receiver.spans)
    return receiver


async def test_stages_follow_each_other_below_the_call(open_traced: Opened) -> None:
    """Queue, read, fuse, encode, denoise, decode: within the call, none before the one before has ended."""
    async with open_traced() as (served, receiver):
        request = generate(sampling=QUICK, loras=[pb.Lora(name="sepia", strength=0.5)])
        await events_of(served.stub.Generate(request))
    await asyncio.to_thread(closed, receiver)
    call = receiver.one(CALL)
    stages = [receiver.one(name) for name in STAGES]
    assert {one.parent_span_id for one in stages} == {call.span_id}
    assert {one.trace_id for one in stages} == {call.trace_id}
    slack = 2_000_000  # ns: the clocks that measure and that date differ
    for before, after in itertools.pairwise(stages):
        assert after.start_time_unix_nano >= before.end_time_unix_nano - slack
    assert stages[0].start_time_unix_nano >= call.start_time_unix_nano - slack
    assert stages[-1].end_time_unix_nano <= call.end_time_unix_nano
    assert [event.name for event in call.events] == ["image"]


async def test_denoising_names_its_steps_and_the_calls_that_made_them(open_traced: Opened) -> None:
    """Alone: an event a step, and a link to each UNet call, which is below the same call."""
    async with open_traced() as (served, receiver):
        await events_of(served.stub.Generate(generate(sampling=QUICK)))
    denoise, calls = receiver.one("denoise"), receiver.named("unet")
    assert [attributes_of(event)["sdgrpc.step"] for event in denoise.events] == [1, 2, 3]
    assert [link.span_id for link in denoise.links] == [one.span_id for one in calls]
    assert {one.trace_id for one in calls} == {denoise.trace_id}
    assert [attributes_of(one) for one in calls] == [
        {"sdgrpc.model": "embedded", "sdgrpc.rows": 1, "sdgrpc.jobs": 1}
    ] * 3


async def test_long_jobs_name_every_step(open_traced: Opened) -> None:
    """Also those that have more steps than OpenTelemetry keeps events and links of by itself."""
    request = generate(width=64, height=64, sampling=pb.Sampling(steps=150, guidance_scale=1))
    async with open_traced() as (served, receiver):
        await events_of(served.stub.Generate(request))
    denoise = receiver.one("denoise")
    assert [attributes_of(event)["sdgrpc.step"] for event in denoise.events] == list(range(1, 151))
    assert len(denoise.links) == len(receiver.named("unet")) == 150
    assert denoise.dropped_events_count == denoise.dropped_links_count == 0


async def test_jobs_in_company_link_to_the_same_calls(open_traced: Opened) -> None:
    """A shared call is one span, below one of the jobs, linked with the others both ways."""
    async with open_traced() as (served, receiver):
        served.gate.clear()
        first, second = (served.stub.Generate(generate(sampling=QUICK, request_id=one)) for one in "ab")
        await until_running(first)
        await until_running(second)
        served.gate.set()
        await asyncio.gather(events_of(first), events_of(second))
    shared = [one for one in receiver.named("unet") if attributes_of(one)["sdgrpc.jobs"] == 2]
    assert shared
    calls = {one.span_id: attributes_of(one)["sdgrpc.request_id"] for one in receiver.named(CALL)}
    assert set(calls.values()) == {"a", "b"}
    for one in shared:
        assert {one.parent_span_id, one.links[0].span_id} == set(calls)
        linked = [link.span_id for denoise in receiver.named("denoise") for link in denoise.links]
        assert linked.count(one.span_id) == 2


async def test_a_cancelled_job_shows_how_far_it_came(open_traced: Opened) -> None:
    """Its steps stand in a denoise that was cut, and nothing was decoded."""
    async with open_traced() as (served, receiver):
        call = served.stub.Generate(generate(sampling=pb.Sampling(steps=150, guidance_scale=1)))
        await until_running(call)
        while not step_of(await call.read()):
            continue
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError, aio.AioRpcError):
            await call.code()
    denoise = receiver.one("denoise")
    assert attributes_of(denoise)["sdgrpc.cut"] is True
    assert 1 <= len(denoise.events) < 150
    assert not receiver.named("decode")
    assert attributes_of(receiver.one(CALL))["rpc.grpc.status_code"] == 1


async def test_a_failed_job_says_what_kind_of_error(
    open_traced: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its type alone: what it says may quote anything."""

    def fails(*_: object, **__: object) -> object:
        raise RuntimeError("canary")

    async with open_traced() as (served, receiver):
        monkeypatch.setattr("sdgrpc.engine.runner.decode", fails)
        with pytest.raises(aio.AioRpcError):
            await events_of(served.stub.Generate(generate(sampling=QUICK)))
    call = receiver.one(CALL)
    assert {one.name: attributes_of(one) for one in call.events}["failed"] == {"error.type": "RuntimeError"}
    assert call.status.code == call.status.STATUS_CODE_ERROR
    assert "canary" not in receiver.text
