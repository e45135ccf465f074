"""Calls that do not go through: cancelled, expired, failed, refused at the gate."""

from __future__ import annotations

import asyncio
import logging
import re

import grpc
import pytest
from grpc import aio

from sdgrpc.errors import LoraIncompatible, OutOfMemory
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
    until_running,
)
from tests.support.engine import FakeEngine


async def until_idle(api: Api) -> None:
    """Wait until the server has let go of every call."""
    async with asyncio.timeout(10):
        await api.server._servicer.idle()


async def test_a_cancelled_call_cancels_its_job() -> None:
    """The job is dropped before its next step, and the engine's generator is closed."""
    engine = FakeEngine()
    engine.gate.clear()
    async with running_api(engine) as api:
        call = api.stub.Generate(generate())
        await until_running(call)
        call.cancel()
        await until_idle(api)
        assert (engine.cancelled, engine.steps, engine.finished) == (1, 0, 0)


async def test_an_expired_call_cancels_its_job() -> None:
    """A deadline works as closing the stream does."""
    engine = FakeEngine()
    engine.gate.clear()
    async with running_api(engine) as api:
        error = await failure_of(api.stub.Generate(generate(), timeout=0.3))
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await until_idle(api)
        assert (engine.cancelled, engine.steps) == (1, 0)


async def test_a_vanished_client_cancels_its_job() -> None:
    """Closing the connection closes its streams."""
    engine = FakeEngine()
    engine.gate.clear()
    async with running_api(engine) as api:
        async with aio.insecure_channel(api.server.address) as channel:
            call = channel.unary_stream(
                "/sdgrpc.v1.DiffusionService/Generate",
                request_serializer=pb.GenerateRequest.SerializeToString,
                response_deserializer=pb.JobEvent.FromString,
            )(generate())
            await until_running(call)
        await until_idle(api)
        assert engine.cancelled == 1


async def test_a_reader_that_stops_reading_can_still_cancel() -> None:
    """A write that waits for the reader is given up; megabytes are on their way when it is."""
    engine = FakeEngine()
    async with running_api(engine, max_steps=1000) as api:
        preview = pb.PreviewOptions(kind=pb.PREVIEW_KIND_LATENT)
        request = generate(
            width=1024, height=1024, sampling=pb.Sampling(steps=1000), output=pb.Output(preview=preview)
        )
        call = api.stub.Generate(request)
        await until_running(call)
        async with asyncio.timeout(10):
            seen = -1
            while seen != engine.steps:  # until the writer is blocked, of which nobody tells
                seen = engine.steps
                await asyncio.sleep(0.1)
        assert 0 < engine.steps < 1000
        call.cancel()
        await until_idle(api)
        assert engine.cancelled == 1


async def test_many_cancelled_calls_leave_nothing() -> None:
    """No call is forgotten, whenever it was cancelled."""
    engine = FakeEngine(queue_size=50)
    async with running_api(engine) as api:
        for delay in range(30):
            call = api.stub.Generate(generate())
            await asyncio.sleep(delay / 5000)
            call.cancel()
        await until_idle(api)
        assert engine.status().running == 0
        assert len(await events_of(api.stub.Generate(generate()))) == 7


@pytest.mark.parametrize("moment", ["submit", "prepare", "step", "decode"])
async def test_failures_of_every_phase_arrive_typed(moment: str) -> None:
    """Whatever the engine raises, before the first event or late, ends the stream by its status."""
    failure = LoraIncompatible(
        "inks", "is for SDXL (cross-attention width 2048); the loaded model is SD1.5 (768)"
    )
    async with running_api(FakeEngine(failures={moment: failure})) as api:
        error = await failure_of(api.stub.Generate(generate()))
        assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert details_of(error)["ErrorInfo"].reason == "LORA_INCOMPATIBLE"
        assert "is for SDXL" in error.details()


async def test_a_failure_ends_its_own_call_only() -> None:
    """The next one is served."""
    engine = FakeEngine(failures={"step": OutOfMemory("small device")})
    async with running_api(engine) as api:
        error = await failure_of(api.stub.Generate(generate()))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        engine.failures.clear()
        assert len(await events_of(api.stub.Generate(generate()))) == 7


async def test_a_full_queue_says_when_to_come_back() -> None:
    """RESOURCE_EXHAUSTED with RetryInfo."""
    engine = FakeEngine(queue_size=1)
    engine.gate.clear()
    async with running_api(engine) as api:
        first = api.stub.Generate(generate())
        await until_running(first)
        error = await failure_of(api.stub.Generate(generate()))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        details = details_of(error)
        assert (details["ErrorInfo"].reason, details["RetryInfo"].retry_delay.seconds) == ("QUEUE_FULL", 3)
        engine.gate.set()
        assert (await events_of(first))[-1].HasField("finished")


async def test_an_unexpected_failure_tells_the_client_an_id(caplog: pytest.LogCaptureFixture) -> None:
    """The cause stands in the log under that id, without the prompts that libraries like to quote."""
    secret = "a 'quoted'\nsecret"
    failures = {"step": RuntimeError(f"cannot digest {secret!r} and {secret} nor no-secret")}
    async with running_api(FakeEngine(failures=failures)) as api:
        error = await failure_of(api.stub.Generate(generate(prompt=secret, negative_prompt="no-secret")))
    assert error.code() is grpc.StatusCode.INTERNAL
    assert "digest" not in error.details()
    error_id = details_of(error)["ErrorInfo"].metadata["error_id"]
    (entry,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert f"error_id={error_id}" in entry
    assert 'RuntimeError: cannot digest "<prompt>" and <prompt> nor <negative_prompt>' in entry
    assert "secret" not in entry.replace("<prompt>", "").replace("<negative_prompt>", "").split("Error: ")[1]


async def test_one_line_per_call_and_no_prompt(caplog: pytest.LogCaptureFixture) -> None:
    """The log says what a call was, how it ended and how long it took."""
    caplog.set_level(logging.DEBUG, "sdgrpc")
    async with running_api(FakeEngine()) as api:
        image = pb.Image(data=png(72, 64))
        await events_of(api.stub.Transform(transform(prompt="s3cret", request_id="job 7", image=image)))
        await failure_of(api.stub.Generate(generate(prompt="s3cret", width=-1)))
        await failure_of(api.stub.Generate(generate(prompt="s3cret", loras=[pb.Lora(name="zzz")])))
    lines = [
        record.getMessage().rpartition(" ")[0] for record in caplog.records if "rpc=" in record.getMessage()
    ]
    assert re.fullmatch(
        r"rpc=Transform peer=ipv4:127\.0\.0\.1:\d+ request_id='job 7' model='fake' size=72x64 steps=2 "
        r"images=1 loras=0 code=OK outcome=OK",
        lines[0],
    )
    assert re.fullmatch(r"rpc=Generate peer=\S+ code=INVALID_ARGUMENT outcome=INVALID_REQUEST", lines[1])
    assert lines[2].endswith("loras=1 code=NOT_FOUND outcome=LORA_NOT_FOUND")
    assert "s3cret" not in caplog.text


async def test_the_event_loop_is_free_while_an_image_is_decoded() -> None:
    """Decoding runs in a thread: another call is answered meanwhile, and cancelling works."""
    async with running_api(FakeEngine()) as api:
        large = pb.Image(data=png(5000, 5000))
        slow = api.stub.Transform(transform(image=large, width=64, height=64))
        slow_events = asyncio.ensure_future(events_of(slow))
        await asyncio.sleep(0)
        quick = await events_of(api.stub.Generate(generate()))
        assert quick[-1].HasField("finished")
        assert (await slow_events)[-1].HasField("finished")


async def test_the_longest_status_arrives() -> None:
    """Trailers have little room; a client with its own limits still gets code, message and violations."""
    wrong = pb.Lora(name="ä\x00" * 200, strength=float("nan"), text_encoder_strength=float("inf"))
    request = generate(prompt="", model="ä" * 256, loras=[wrong] * 16, width=-1, height=-1)
    async with running_api(FakeEngine()) as api:
        error = await failure_of(api.stub.Generate(request))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    details = details_of(error)
    assert int(details["ErrorInfo"].metadata["violations"]) == 3 * 16 + 3
    assert len(details["BadRequest"].field_violations) > 20
    assert error.details().endswith("…")
