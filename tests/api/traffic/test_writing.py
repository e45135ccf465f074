"""Readers that do not read, over a real port."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from types import SimpleNamespace
from typing import Any

import pytest
from grpc import aio

from sdgrpc.api.traffic.writing import Writer
from sdgrpc.domain import EncodedImage, ImageReady
from sdgrpc.errors import ReaderStalled
from sdgrpc.v1 import diffusion_pb2 as pb
from tests.support.api import Api, events_of, generate, running_api
from tests.support.engine import FakeEngine

LARGE = 3 << 20
NOISE = EncodedImage(bytes(LARGE), "image/png", 2048, 2048)


class LargePictures(FakeEngine):
    """Its pictures are larger than any window."""

    async def submit(self, task: Any, **options: Any) -> Any:
        async with aclosing(super().submit(task, **options)) as events:
            async for event in events:
                yield ImageReady(event.index, event.seed, NOISE) if isinstance(event, ImageReady) else event


async def unread(api: Api, count: int = 8) -> Any:
    """A call of which `accepted` is read, and nothing more."""
    call = api.stub.Generate(generate(sampling=pb.Sampling(image_count=count)))
    first: Any = await call.read()
    assert first.WhichOneof("event") == "accepted"
    return call


async def test_a_write_that_waits_too_long_ends_the_call() -> None:
    """The job is dropped and the server is idle again; the next call is served as ever."""
    engine = LargePictures()
    async with running_api(engine, write_timeout=0.2) as api:
        call = await unread(api)
        async with asyncio.timeout(20):
            await api.server._servicer.idle()
        assert engine.cancelled == 1
        call.cancel()
        engine_events = await events_of(api.stub.Generate(generate()))
        assert engine_events[-1].WhichOneof("event") == "finished"


async def test_who_reads_at_last_is_told(caplog) -> None:
    """The events in flight, and then why there are no more."""
    async with running_api(LargePictures(), write_timeout=0.2) as api:
        options = [("grpc.max_receive_message_length", -1)]
        async with aio.insecure_channel(api.server.address, options) as channel:
            call = channel.unary_stream(
                "/sdgrpc.v1.DiffusionService/Generate",
                request_serializer=pb.GenerateRequest.SerializeToString,
                response_deserializer=pb.JobEvent.FromString,
            )(generate(sampling=pb.Sampling(image_count=8)))
            await call.read()
            async with asyncio.timeout(20):
                await api.server._servicer.idle()
            with pytest.raises(aio.AioRpcError) as caught:
                while await call.read() is not aio.EOF:
                    pass
            assert caught.value.details() == "the answer was not read for too long; the job is dropped"
    assert "Traceback" not in caplog.text


async def test_a_stalled_reader_does_not_hold_a_stop() -> None:
    """With a minute for the job and an hour for the reader the server still stops soon."""
    async with running_api(LargePictures(), write_timeout=3600, drain_timeout=60) as api:
        call = await unread(api)
        async with asyncio.timeout(20):
            await api.server.stop()
        call.cancel()


async def test_a_quick_reader_is_not_hurried() -> None:
    """What is written at once is written, and an error of the call is its own."""
    leaving = asyncio.Event()
    written: list[object] = []

    async def write(message: object) -> None:
        written.append(message)
        if message == "broken":
            raise ConnectionError

    context: Any = SimpleNamespace(write=write)
    writer = Writer(0.05, leaving)
    await writer.write(context, pb.JobEvent())
    leaving.set()
    await writer.write(context, pb.JobEvent(sequence=1))
    assert len(written) == 2
    message: Any = "broken"
    with pytest.raises(ConnectionError):
        await writer.write(context, message)


async def test_a_cancelled_write_is_cancelled() -> None:
    """Nothing goes on behind a call that has ended."""
    ended = asyncio.Event()

    async def write(_message: object) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    context: Any = SimpleNamespace(write=write)
    with pytest.raises(ReaderStalled):
        await Writer(0.01, asyncio.Event()).write(context, pb.JobEvent())
    assert ended.is_set()
    ended.clear()
    task = asyncio.ensure_future(Writer(60, asyncio.Event()).write(context, pb.JobEvent()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()
