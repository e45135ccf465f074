"""A span a call, within its caller's trace."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import format_span_id

from sdgrpc.client import AsyncClient, Client
from sdgrpc.v1 import diffusion_pb2 as pb
from tests.support.api import events_of, failure_of, generate
from tests.support.otlp import attributes_of
from tests.traces.conftest import Opened

SERVICE = "sdgrpc.v1.DiffusionService"
QUICK = pb.Sampling(steps=2, guidance_scale=1)
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def under(flags: str) -> aio.Metadata:
    return aio.Metadata(("traceparent", f"00-{TRACE}-{SPAN}-{flags}"))


async def test_the_callers_trace_goes_on(open_traced: Opened, caplog: pytest.LogCaptureFixture) -> None:
    """The span is the caller's child, tells of the request by listed words, and the log names it."""
    request = generate(prompt="canary", sampling=QUICK, request_id="one")
    with caplog.at_level(logging.INFO, "sdgrpc.api.calls.log"):
        async with open_traced() as (served, receiver):
            await events_of(served.stub.Generate(request, metadata=under("01")))
    span = receiver.one(f"{SERVICE}/Generate")
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, SPAN)
    assert span.kind == span.SPAN_KIND_SERVER
    attributes = attributes_of(span)
    assert attributes.pop("network.peer.address").startswith("ipv4:127.0.0.1:")
    assert attributes.pop("sdgrpc.sent_seconds") > 0
    assert attributes == {
        "rpc.system": "grpc",
        "rpc.service": SERVICE,
        "rpc.method": "Generate",
        "rpc.grpc.status_code": 0,
        "sdgrpc.request_id": "one",
        "sdgrpc.model": "embedded",
        "sdgrpc.width": 128,
        "sdgrpc.height": 128,
        "sdgrpc.steps": 2,
        "sdgrpc.images": 1,
        "sdgrpc.loras": 0,
    }
    assert "canary" not in receiver.text
    assert any(f"trace_id={TRACE}" in line for line in caplog.messages)
    assert receiver.resource["service.name"] == "sdgrpc"


async def test_what_the_caller_does_not_record_is_not(open_traced: Opened) -> None:
    """Where the caller's trace is not sampled there is no span, neither of the call nor below it."""
    async with open_traced() as (served, receiver):
        await events_of(served.stub.Generate(generate(sampling=QUICK), metadata=under("00")))
        await events_of(served.stub.Generate(generate(sampling=QUICK, request_id="mine")))
    assert [attributes_of(one)["sdgrpc.request_id"] for one in receiver.named(f"{SERVICE}/Generate")] == [
        "mine"
    ]
    assert len(receiver.named("denoise")) == 1


async def test_refusals_are_the_callers_fault(open_traced: Opened) -> None:
    """They have a span with code and reason that is no error of the server's."""
    async with open_traced() as (served, receiver):
        await failure_of(served.stub.Generate(generate(loras=[pb.Lora(name="nowhere")])))
    span = receiver.one(f"{SERVICE}/Generate")
    assert attributes_of(span)["sdgrpc.reason"] == "LORA_NOT_FOUND"
    assert span.status.code == span.status.STATUS_CODE_UNSET


async def test_health_is_watched_and_checked(open_traced: Opened) -> None:
    """Watch works under it, and checks have spans only within a caller's trace."""
    async with open_traced() as (served, receiver):
        health: Any = health_pb2_grpc.HealthStub(served.channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(service=SERVICE))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        watch.cancel()
        await health.Check(health_pb2.HealthCheckRequest())
        await health.Check(health_pb2.HealthCheckRequest(), metadata=under("01"))
    assert [one.name for one in receiver.spans] == ["grpc.health.v1.Health/Check"]


async def test_the_clients_span_is_the_parent(open_traced: Opened) -> None:
    """Of a program that uses OpenTelemetry, with nothing said to the client."""
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("caller")
    async with open_traced() as (served, receiver):
        with tracer.start_as_current_span("mine") as mine:
            async with AsyncClient(served.server.address) as client:
                await client.generate("a star", steps=2).images()
    span = receiver.one(f"{SERVICE}/Generate")
    assert span.parent_span_id.hex() == format_span_id(mine.get_span_context().span_id)


async def test_the_sync_clients_span_is_the_parent(open_traced: Opened) -> None:
    """Of the client that blocks, too, whatever thread it is used in."""
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("caller")

    def draw(address: str) -> str:
        with tracer.start_as_current_span("mine") as mine, Client(address) as client:
            client.generate("a star", steps=2).images()
            return format_span_id(mine.get_span_context().span_id)

    async with open_traced() as (served, receiver):
        mine = await asyncio.to_thread(draw, served.server.address)
    assert receiver.one(f"{SERVICE}/Generate").parent_span_id.hex() == mine
