"""The outermost layer, around handlers of both styles and of other services."""

from __future__ import annotations

import grpc
import pytest
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from sdgrpc.api.interceptor import FailureInterceptor, scrubbed
from sdgrpc.errors import QueueFull
from tests.support.api import details_of, generate, running_api
from tests.support.engine import FakeEngine


class Handlers(grpc.GenericRpcHandler):
    """`/t/fail` is unary, `/t/stream` an asynchronous generator; both raise what `failure` holds."""

    def __init__(self, failure: Exception) -> None:
        self.failure = failure
        self.closed = 0

    def service(self, details):
        if details.method == "/t/fail":
            return grpc.unary_unary_rpc_method_handler(self.fail)
        return grpc.unary_stream_rpc_method_handler(self.stream)

    async def fail(self, _request, _context):
        raise self.failure

    async def stream(self, _request, _context):
        try:
            yield b"first"
            raise self.failure
        finally:
            self.closed += 1


async def failed(method: str, failure: Exception) -> tuple[list[bytes], aio.AioRpcError, Handlers]:
    """What arrived before a call failed, and how it failed."""
    server, handlers, received = aio.server(interceptors=[FailureInterceptor()]), Handlers(failure), []
    server.add_generic_rpc_handlers([handlers])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            with pytest.raises(aio.AioRpcError) as caught:
                if method == "/t/fail":
                    await channel.unary_unary(method)(b"")
                else:
                    received.extend([message async for message in channel.unary_stream(method)(b"")])
    finally:
        await server.stop(0)
    return received, caught.value, handlers


@pytest.mark.parametrize("method", ["/t/fail", "/t/stream"])
async def test_both_styles_of_handlers(method: str) -> None:
    """Known failures keep their code, unknown ones become INTERNAL without their text."""
    _, known, _ = await failed(method, QueueFull("full", retry_after=1))
    assert (known.code(), known.details()) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
    assert details_of(known)["ErrorInfo"].reason == "QUEUE_FULL"
    _, memory, _ = await failed(method, MemoryError())
    assert details_of(memory)["ErrorInfo"].reason == "OUT_OF_MEMORY"
    _, unknown, handlers = await failed(method, KeyError("secret"))
    assert unknown.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in str(unknown)
    assert handlers.closed == (method == "/t/stream")


async def test_other_services_own_statuses_pass() -> None:
    """Health's NOT_FOUND for a service that nobody knows stays one; unknown methods stay UNIMPLEMENTED."""
    async with running_api(FakeEngine()) as api:
        with pytest.raises(aio.AioRpcError) as caught:
            await health_pb2_grpc.HealthStub(api.channel).Check(health_pb2.HealthCheckRequest(service="x"))  # type: ignore[attr-defined]
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        with pytest.raises(aio.AioRpcError) as caught:
            await api.channel.unary_unary("/sdgrpc.v1.DiffusionService/Paint")(b"")
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_scrubbing_leaves_other_texts_alone() -> None:
    """Streams have no prompts, and an empty prompt is in every text."""
    assert scrubbed("some text", iter(())) == "some text"
    assert scrubbed("some text", generate(prompt="", negative_prompt=" ")) == "some text"
