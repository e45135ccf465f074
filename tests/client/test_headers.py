"""The token that goes with every call."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from sdgrpc.client import AsyncClient, Client, UnauthenticatedError
from sdgrpc.testing.scripted_catalog import Catalog
from sdgrpc.testing.server import ScriptedServer, draw_script
from sdgrpc.v1.catalog_pb2_grpc import add_CatalogServiceServicer_to_server
from sdgrpc.v1.diffusion_pb2_grpc import add_DiffusionServiceServicer_to_server


class Guard(grpc.ServerInterceptor):
    """Lets nobody in without the token, and keeps what each call showed."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, object]] = []

    def intercept_service(self, continuation, details):
        shown = dict(details.invocation_metadata).get("authorization")
        self.seen.append((details.method.rpartition("/")[2], shown))
        if shown == "Bearer s3cret":
            return continuation(details)

        def refuse(_: object, context: grpc.ServicerContext) -> None:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you?")

        handler = continuation(details)
        kinds = {
            (False, False): grpc.unary_unary_rpc_method_handler,
            (False, True): grpc.unary_stream_rpc_method_handler,
            (True, False): grpc.stream_unary_rpc_method_handler,
        }
        return kinds[handler.request_streaming, handler.response_streaming](refuse)


@contextmanager
def guarded() -> Iterator[tuple[str, Guard]]:
    guard = Guard()
    server = grpc.server(ThreadPoolExecutor(max_workers=4), interceptors=[guard])
    add_DiffusionServiceServicer_to_server(ScriptedServer(draw_script()), server)
    add_CatalogServiceServicer_to_server(Catalog(), server)
    ready = health.HealthServicer()
    ready.set("sdgrpc.v1.DiffusionService", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(ready, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}", guard
    finally:
        server.stop(None).wait()


EVERY_CALL = {
    *("Generate", "Transform", "Inpaint", "ListModels", "ListLoras", "GetLora", "UploadLora"),
    *("PrepareLoras", "WatchStatus", "Watch"),
}


def test_every_call_bears_it(tmp_path) -> None:
    """Unary calls, streams in both directions, the catalog's and health."""
    picture = b"\x89PNG"
    (tmp_path / "mine.safetensors").write_bytes(b"content")
    with guarded() as (target, guard), Client(target, token="s3cret") as client:
        client.wait_until_ready(10)
        client.generate("a").images()
        client.transform("a", picture).images()
        client.inpaint("a", picture, picture).images()
        client.list_models()
        list(client.list_loras())
        client.get_lora("ink")
        client.upload_lora(tmp_path / "mine.safetensors")
        client.prepare_loras(["ink"])
        next(client.watch_status())
    assert {method for method, _ in guard.seen} == EVERY_CALL
    assert {shown for _, shown in guard.seen} == {"Bearer s3cret"}


async def test_every_async_call_bears_it(tmp_path) -> None:
    """The same calls, awaited."""
    picture = b"\x89PNG"
    (tmp_path / "mine.safetensors").write_bytes(b"content")
    with guarded() as (target, guard):
        async with AsyncClient(target, token="s3cret") as client:
            await client.wait_until_ready(10)
            await client.generate("a").images()
            await client.transform("a", picture).images()
            await client.inpaint("a", picture, picture).images()
            await client.list_models()
            assert [one async for one in client.list_loras()]
            await client.get_lora("ink")
            await client.upload_lora(tmp_path / "mine.safetensors")
            await client.prepare_loras(["ink"])
            async for _ in client.watch_status():
                break
    assert {method for method, _ in guard.seen} == EVERY_CALL
    assert {shown for _, shown in guard.seen} == {"Bearer s3cret"}


def test_without_one_nothing_is_sent() -> None:
    """And a server that asks for one is told apart from others that refuse."""
    with (
        guarded() as (target, guard),
        Client(target) as client,
        pytest.raises(UnauthenticatedError, match="who are you"),
    ):
        client.list_models()
    assert guard.seen == [("ListModels", None)]


@pytest.mark.parametrize("token", ["", "two words", "line\nbreak", "Ä"])
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_token_that_no_header_carries(token: str, kind: type) -> None:
    """Refused at once, and not repeated in the message."""
    with pytest.raises(ValueError, match="printable ASCII without spaces") as caught:
        kind("127.0.0.1:1", token=token)
    assert not token or token not in str(caught.value)
