"""Who may call: every method, with the file of tokens changed under a running server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from sdgrpc.api.access.checking import AccessInterceptor
from sdgrpc.api.access.tokens import parse_tokens
from sdgrpc.errors import SettingsError
from sdgrpc.v1 import catalog_pb2, catalog_pb2_grpc, diffusion_pb2, diffusion_pb2_grpc, jobs_pb2
from tests.support.api import Api, details_of, events_of, failure_of, generate, make_settings, running_api
from tests.support.engine import FakeEngine

SECRET, OTHER = "first-s3cret-of-ann", "s3cret-of-bob"
REFLECTION = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"].methods
METHODS = [
    *(
        m
        for pb in (diffusion_pb2, catalog_pb2, jobs_pb2)
        for s in pb.DESCRIPTOR.services_by_name.values()
        for m in s.methods
    ),
    *REFLECTION,
]


def path_of(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


PATHS = {path_of(method): (method.client_streaming, method.server_streaming) for method in METHODS}
PATHS["/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"] = (True, True)
PATHS["/sdgrpc.v1.DiffusionService/NoSuchMethod"] = (False, False)
PATHS["/no.such.Service/Method"] = (False, True)


def authorized(secret: str = SECRET) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {secret}"),)


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    """A file with two names."""
    path = tmp_path / "tokens"
    path.write_text(f"ann: {SECRET}\nbob {OTHER}\n")
    return path


def rewrite(path: Path, text: str | None) -> None:
    """Write the file over in place, or remove it."""
    if text is None:
        path.unlink()
    else:
        path.write_text(text, errors="surrogateescape")


@asynccontextmanager
async def guarded(tokens: Path, engine: FakeEngine | None = None, **settings) -> AsyncIterator[Api]:
    async with running_api(engine or FakeEngine(), token_file=tokens, **settings) as api:
        yield api


NOTHING = b"\x40\x01"
"""Field 8 is 1: a width that nobody draws, and a field that the other messages do not have."""


async def answer(channel: aio.Channel, path: str, metadata=()) -> grpc.StatusCode:
    """How a call of any kind ends that sends `NOTHING`, or nothing where it may send many."""
    sends_many, gets_many = PATHS[path]
    kind = f"{'stream' if sends_many else 'unary'}_{'stream' if gets_many else 'unary'}"
    make = getattr(channel, kind)(path, request_serializer=bytes, response_deserializer=bytes)
    call = make(metadata=metadata) if sends_many else make(NOTHING, metadata=metadata)
    if sends_many:
        with suppress(asyncio.InvalidStateError, aio.AioRpcError):  # it has been refused already
            await call.done_writing()
    if gets_many:
        with suppress(aio.AioRpcError):
            while await call.read() is not aio.EOF:  # an empty prompt is drawn: somebody has to read
                pass
    code = await call.code()
    if code is grpc.StatusCode.UNAUTHENTICATED:
        trailers = dict(await call.trailing_metadata())
        assert b"UNAUTHENTICATED" in trailers["grpc-status-details-bin"]
    return code


@pytest.mark.parametrize("path", PATHS)
async def test_every_method_needs_a_token(tokens: Path, path: str) -> None:
    """Streams, reflection under both names, what there is not; with a token all answer."""
    async with guarded(tokens) as api:
        for metadata in ((), authorized("wrong"), (("authorization", f"Basic {SECRET}"),), authorized() * 2):
            assert await answer(api.channel, path, metadata) is grpc.StatusCode.UNAUTHENTICATED
        if "WatchStatus" not in path:  # which ends when its client wants
            assert await answer(api.channel, path, authorized()) is not grpc.StatusCode.UNAUTHENTICATED


async def test_a_watch_is_open_to_every_token(tokens: Path) -> None:
    """A stream that does not end by itself, and what all may ask."""
    async with guarded(tokens) as api:
        for secret in (SECRET, OTHER):
            watch = api.catalog.WatchStatus(catalog_pb2.WatchStatusRequest(), metadata=authorized(secret))
            report = await watch.read()
            assert isinstance(report, catalog_pb2.WatchStatusResponse)
            assert report.ready
            watch.cancel()
            models = await api.catalog.ListModels(
                catalog_pb2.ListModelsRequest(), metadata=authorized(secret)
            )
            assert models.models


async def test_health_needs_none(tokens: Path) -> None:
    """What balances loads and restarts containers has no token; both its methods answer."""
    async with guarded(tokens) as api:
        stub: Any = health_pb2_grpc.HealthStub(api.channel)
        request = health_pb2.HealthCheckRequest()
        assert (await stub.Check(request)).status == health_pb2.HealthCheckResponse.SERVING
        assert (await stub.Watch(request).read()).status == health_pb2.HealthCheckResponse.SERVING


async def test_a_refusal_says_what_to_send_and_not_what_came(
    tokens: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A status with ErrorInfo; no token stands in it or in the log, at any level."""
    with caplog.at_level(logging.DEBUG):
        async with guarded(tokens) as api:
            error = await failure_of(api.stub.Generate(generate(), metadata=authorized("guessed-s3cret")))
            assert details_of(error)["ErrorInfo"].reason == "UNAUTHENTICATED"
            missing = await failure_of(api.stub.Generate(generate()))
            assert "authorization: Bearer TOKEN" in missing.details()
            await events_of(api.stub.Generate(generate(), metadata=authorized()))
    assert "s3cret" not in str(error.details()) + caplog.text
    assert "token='ann'" in caplog.text
    assert "refused 1 calls" in caplog.text


async def test_a_job_knows_whose_it_is(tokens: Path) -> None:
    """The engine is told the token's name, for turns and bounds; each call its own."""
    async with guarded(tokens) as api:
        calls = [api.stub.Generate(generate(), metadata=authorized(one)) for one in (SECRET, OTHER)]
        await asyncio.gather(*map(events_of, calls))
        await api.catalog.PrepareLoras(
            catalog_pb2.PrepareLorasRequest(loras=[diffusion_pb2.Lora(name="inks")]),
            metadata=authorized(OTHER),
        )
        assert sorted(task.caller for task in api.engine.tasks) == ["ann", "bob"]
        assert api.engine.catalog.callers == ["bob"]


async def test_without_a_file_anybody_may_call() -> None:
    """And a token that is sent all the same does no harm."""
    async with running_api(FakeEngine()) as api:
        for metadata in ((), authorized()):
            assert (await events_of(api.stub.Generate(generate(), metadata=metadata)))[-1].finished
        assert [task.caller for task in api.engine.tasks] == ["", ""]


async def test_the_file_is_read_again_when_it_changes(tokens: Path) -> None:
    """A new token works and an old one does not, at the next call; a broken file leaves it as it is."""
    unauthenticated = grpc.StatusCode.UNAUTHENTICATED
    path = "/sdgrpc.v1.CatalogService/ListModels"
    async with guarded(tokens) as api:
        rewrite(tokens, f"ann: next-s3cret\nbob: {OTHER}\n")
        codes = [await answer(api.channel, path, authorized(s)) for s in (SECRET, "next-s3cret", OTHER)]
        assert codes == [unauthenticated, grpc.StatusCode.OK, grpc.StatusCode.OK]
        for broken in ("", "ann\n", "\udcff"):
            rewrite(tokens, broken)
            assert await answer(api.channel, path, authorized("next-s3cret")) is grpc.StatusCode.OK
        rewrite(tokens, None)
        assert await answer(api.channel, path, authorized(OTHER)) is grpc.StatusCode.OK
        rewrite(tokens, f"ann: {SECRET}\n")
        codes = [await answer(api.channel, path, authorized(s)) for s in (SECRET, "next-s3cret", OTHER)]
        assert codes == [grpc.StatusCode.OK, unauthenticated, unauthenticated]


async def test_a_job_goes_on_when_its_token_is_taken_away(tokens: Path) -> None:
    """What a call may do is judged when it begins."""
    engine = FakeEngine()
    engine.gate.clear()
    async with guarded(tokens, engine) as api:
        call = api.stub.Generate(generate(), metadata=authorized())
        await call.read()
        rewrite(tokens, f"bob: {OTHER}\n")
        engine.gate.set()
        assert (await events_of(call))[-1].HasField("finished")


def test_a_broken_file_stops_the_start(tokens: Path) -> None:
    """A server that would let nobody in, or anybody, does not begin."""
    from sdgrpc.api.server import Server

    tokens.write_text("ann\n")
    with pytest.raises(SettingsError, match="line 1"):
        Server(make_settings(token_file=tokens))


async def test_a_flood_of_refusals_is_one_line(tokens: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The log tells how many there were, every ten seconds at most."""
    now = 0.0
    known = parse_tokens(tokens, b"ann: s3cret")
    interceptor = AccessInterceptor(type("Fixed", (), {"get": lambda _: known})(), clock=lambda: now)

    class Details:
        method, invocation_metadata = "/a/b", ()

    for _ in range(100):
        await interceptor.intercept_service(None, Details())
    now = 10.0
    await interceptor.intercept_service(None, Details())
    assert [record.args[0] for record in caplog.records] == [1, 100]


async def test_catalog_stub_without_a_token(tokens: Path) -> None:
    """Uploads are refused before a byte is read."""
    async with guarded(tokens) as api:
        stub = catalog_pb2_grpc.CatalogServiceStub(api.channel)
        with pytest.raises(aio.AioRpcError) as caught:
            await stub.UploadLora(iter([catalog_pb2.UploadLoraRequest(chunk=b"x")]))
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert not api.engine.catalog.uploads


async def test_a_large_request_without_a_token_is_not_decoded(tokens: Path) -> None:
    """Megabytes that nobody vouches for are refused by their headers."""
    async with guarded(tokens) as api:
        stub = diffusion_pb2_grpc.DiffusionServiceStub(api.channel)
        image = diffusion_pb2.Image(data=bytes(60 << 20))
        error = await failure_of(stub.Transform(diffusion_pb2.TransformRequest(prompt="a", image=image)))
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED
