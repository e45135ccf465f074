"""A server with a fake engine on a real port, and what a client needs to talk to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc import aio
from grpc_status import rpc_status
from PIL import Image

from sdgrpc.api.server import Server
from sdgrpc.settings import Settings
from sdgrpc.v1 import catalog_pb2_grpc, jobs_pb2_grpc
from sdgrpc.v1 import diffusion_pb2 as pb
from sdgrpc.v1 import diffusion_pb2_grpc as pb_grpc
from tests.support.engine import FakeEngine

DETAILS = (
    error_details_pb2.ErrorInfo,
    error_details_pb2.BadRequest,
    error_details_pb2.ResourceInfo,
    error_details_pb2.RetryInfo,
)


def make_settings(**changes) -> Settings:
    """Settings for a free loopback port."""
    return Settings.load(None, **{"listen": "127.0.0.1:0", "lora_dir": [], "drain_timeout": 5.0, **changes})


@dataclass
class Api:
    """A running server as a test sees it."""

    server: Server
    engine: FakeEngine
    channel: aio.Channel
    stub: pb_grpc.DiffusionServiceAsyncStub
    catalog: catalog_pb2_grpc.CatalogServiceAsyncStub
    jobs: jobs_pb2_grpc.JobServiceAsyncStub


@asynccontextmanager
async def running_api(engine: FakeEngine, **settings) -> AsyncIterator[Api]:
    """Serve the engine, with a channel to it; stop both at the end."""
    server = Server(make_settings(**settings))
    await server.start()
    await server.load(lambda: engine)
    async with aio.insecure_channel(server.address) as channel:
        try:
            catalog = catalog_pb2_grpc.CatalogServiceStub(channel)
            jobs = jobs_pb2_grpc.JobServiceStub(channel)
            yield Api(server, engine, channel, pb_grpc.DiffusionServiceStub(channel), catalog, jobs)
        finally:
            engine.gate.set()
            await server.stop()


def png(width: int = 64, height: int = 64, colour: Any = "red", mode: str = "RGB") -> bytes:
    """A flat PNG file."""
    buffer = BytesIO()
    Image.new(mode, (width, height), colour).save(buffer, "PNG")
    return buffer.getvalue()


def generate(**changes) -> pb.GenerateRequest:
    """A valid request, of few steps."""
    return pb.GenerateRequest(**{"prompt": "a cat", "sampling": pb.Sampling(steps=3), **changes})


def transform(**changes) -> pb.TransformRequest:
    """A valid request, of few steps."""
    values = {"prompt": "a cat", "image": pb.Image(data=png()), "sampling": pb.Sampling(steps=3)}
    return pb.TransformRequest(**{**values, **changes})


def inpaint(**changes) -> pb.InpaintRequest:
    """A valid request, of few steps."""
    values = {
        "prompt": "a cat",
        "image": pb.Image(data=png()),
        "mask": pb.Image(data=png(colour=255, mode="L")),
        "sampling": pb.Sampling(steps=3),
    }
    return pb.InpaintRequest(**{**values, **changes})


async def events_of(call: Any) -> list[pb.JobEvent]:
    """The events of a call that were not read yet."""
    events = []
    while (event := await call.read()) is not aio.EOF:
        events.append(event)
    return events


def check_grammar(request: Any, events: Sequence[pb.JobEvent]) -> None:
    """`accepted prepared (progress | image)* finished`; steps and sequence without gaps, every image once."""
    kinds = [event.WhichOneof("event") for event in events]
    assert kinds[:2] == ["accepted", "prepared"]
    assert kinds[-1] == "finished"
    assert set(kinds[2:-1]) <= {"progress", "image"}
    assert [event.sequence for event in events] == list(range(len(events)))
    assert len({event.request_id for event in events}) == 1
    step_count = events[0].accepted.step_count
    steps = [event.progress for event in events if event.WhichOneof("event") == "progress"]
    assert [step.step for step in steps] == list(range(1, step_count + 1))
    assert {step.step_count for step in steps} <= {step_count}
    images = [event.image for event in events if event.WhichOneof("event") == "image"]
    assert [image.index for image in images] == list(range(request.sampling.image_count or 1))
    assert [image.seed - image.index for image in images] == [events[0].accepted.sampling.seed] * len(images)


async def until_running(call: Any) -> None:
    """Read until the job waits for its first step."""
    while (await call.read()).WhichOneof("event") != "prepared":
        pass


async def failure_of(call: Any) -> aio.AioRpcError:
    """How a call fails."""
    with pytest.raises(aio.AioRpcError) as caught:
        await events_of(call)
    return caught.value


def details_of(error: aio.AioRpcError) -> dict[str, Any]:
    """The details of a failure by their names, and the status itself under `status`."""
    trailers = dict(error.trailing_metadata())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    assert rpc_status.code_to_grpc_status_code(status.code) is error.code()  # type: ignore[attr-defined]
    assert status.message == error.details()
    return {"status": status, **unpacked(status)}


def unpacked(status: status_pb2.Status) -> dict[str, Any]:
    """The details of a status by their names."""
    found: dict[str, Any] = {}
    for packed in status.details:
        for kind in DETAILS:
            message = kind()
            if packed.Unpack(message):
                found[kind.DESCRIPTOR.name] = message
    return found


def violations_of(error: aio.AioRpcError) -> dict[str, str]:
    """The violations of an INVALID_ARGUMENT: field to sentence."""
    details = details_of(error)
    assert details["ErrorInfo"].reason == "INVALID_REQUEST"
    return {each.field: each.description for each in details["BadRequest"].field_violations}
