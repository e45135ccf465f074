"""The API over the real engine, in this process: UNet calls are counted where they happen."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

import grpc
import pytest
import torch
from grpc import aio

from sdgrpc.api.server import Server
from sdgrpc.diffusion.checkpoints.loading import load
from sdgrpc.diffusion.model import Model
from sdgrpc.domain import EngineStatus
from sdgrpc.engine.local import LocalEngine
from sdgrpc.engine.options import EngineOptions, LoopOptions
from sdgrpc.lora.store.library import LoraLibrary
from sdgrpc.v1 import diffusion_pb2 as pb
from sdgrpc.v1 import diffusion_pb2_grpc as pb_grpc
from tests.support.api import details_of, events_of, failure_of, generate, make_settings

LONG = pb.Sampling(steps=150, guidance_scale=1)


@dataclass
class Calls:
    """Counts UNet calls; while `gate` is down, the next one waits inside the model."""

    count: int = 0
    gate: threading.Event = field(default_factory=threading.Event)
    waiting: threading.Event = field(default_factory=threading.Event)

    def before_call(self, *_: object) -> None:
        self.count += 1
        self.waiting.set()
        assert self.gate.wait(60)

    async def until_inside(self) -> None:
        """Wait until a call has begun."""
        assert await asyncio.to_thread(self.waiting.wait, 60)


@pytest.fixture(scope="module")
def model() -> Model:
    return load("embedded", "embedded", device=torch.device("cpu"), dtype=torch.float32)


@contextmanager
def counted(model: Model) -> Iterator[Calls]:
    calls = Calls()
    hook = model.unet.register_forward_pre_hook(calls.before_call)
    try:
        yield calls
    finally:
        calls.gate.set()
        hook.remove()


@dataclass
class Served:
    """A server over a LocalEngine."""

    server: Server
    engine: LocalEngine
    calls: Calls
    stub: pb_grpc.DiffusionServiceStub

    async def until_idle(self) -> None:
        """Wait until the engine has let go of every job."""
        await self.until(lambda status: status.running + status.queued == 0)

    async def until(self, holds: Callable[[EngineStatus], bool]) -> None:
        """Wait until the engine's status is so."""
        async with asyncio.timeout(60):
            while not holds(self.engine.status()):  # noqa: ASYNC110 - a status is asked for, not announced
                await asyncio.sleep(0.01)


@asynccontextmanager
async def serving(model: Model, *, queue_size: int = 8, **settings) -> AsyncIterator[Served]:
    """Serve the embedded model; the first UNet call waits for the test."""
    loop = LoopOptions(queue_size=queue_size, max_running_jobs=1)
    engine = LocalEngine([model], LoraLibrary([]), EngineOptions(loop=loop))
    await engine.warm_up()
    server = Server(make_settings(**settings))
    await server.start()
    await server.load(lambda: engine)
    with counted(model) as calls:
        async with aio.insecure_channel(server.address) as channel:
            try:
                yield Served(server, engine, calls, pb_grpc.DiffusionServiceStub(channel))
            finally:
                calls.gate.set()
                await server.stop()


@pytest.mark.parametrize("way", ["cancel", "close", "expire"])
async def test_a_running_job_stops_before_its_next_step(model: Model, way: str) -> None:
    """Cancelled, disconnected or expired in its first UNet call, it never makes a second one."""
    async with serving(model) as served, aio.insecure_channel(served.server.address) as own:
        stub = pb_grpc.DiffusionServiceStub(own)
        call = stub.Generate(generate(sampling=LONG), timeout=0.5 if way == "expire" else None)
        await served.calls.until_inside()
        if way == "cancel":
            call.cancel()
        elif way == "close":
            await own.close()
        else:
            assert (await failure_of(call)).code() is grpc.StatusCode.DEADLINE_EXCEEDED
        async with asyncio.timeout(30):
            await served.server._servicer.idle()
        served.calls.gate.set()
        await served.until_idle()
        assert served.calls.count == 1
        assert served.engine.status().jobs_finished == 0


async def test_a_queued_job_that_is_cancelled_never_starts(model: Model) -> None:
    """Only the first job's steps are counted."""
    async with serving(model) as served:
        first = served.stub.Generate(generate(sampling=pb.Sampling(steps=3, guidance_scale=1)))
        await served.calls.until_inside()
        queued = served.stub.Generate(generate(sampling=LONG))
        assert (await queued.read()).WhichOneof("event") == "accepted"  # type: ignore[attr-defined]
        queued.cancel()
        await served.until(lambda status: status.queued == 0)
        served.calls.gate.set()
        assert (await events_of(first))[-1].HasField("finished")
        await served.until_idle()
        assert served.calls.count == 3


async def test_a_full_queue_refuses_at_once(model: Model) -> None:
    """RESOURCE_EXHAUSTED with RetryInfo in under 50 ms while a job runs; the best of ten counts."""
    async with serving(model, queue_size=1) as served:
        running = served.stub.Generate(generate(sampling=LONG))
        await served.calls.until_inside()
        queued = served.stub.Generate(generate(sampling=LONG))
        assert (await queued.read()).WhichOneof("event") == "accepted"  # type: ignore[attr-defined]
        served.calls.gate.set()  # now it runs for real
        seconds = []
        for _ in range(10):
            started = time.perf_counter()
            error = await failure_of(served.stub.Generate(generate()))
            seconds.append(time.perf_counter() - started)
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            details = details_of(error)
            assert details["ErrorInfo"].reason == "QUEUE_FULL"
            assert details["RetryInfo"].retry_delay.seconds >= 1
        assert min(seconds) < 0.05
        running.cancel()
        queued.cancel()


async def test_jobs_that_outlast_the_drain_timeout_are_told(model: Model) -> None:
    """UNAVAILABLE (DRAINING), running and queued ones: the client can send them elsewhere."""
    async with serving(model, drain_timeout=0.1) as served:
        calls = [served.stub.Generate(generate(sampling=LONG)) for _ in range(2)]
        failures = [asyncio.ensure_future(failure_of(call)) for call in calls]
        await served.calls.until_inside()
        stopping = asyncio.ensure_future(served.server.stop())
        await asyncio.sleep(0.3)
        served.calls.gate.set()
        for failure in failures:
            assert details_of(await failure)["ErrorInfo"].reason == "DRAINING"
        await stopping
        assert served.calls.count <= 2
