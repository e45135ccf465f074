"""The server's life in process: loading, health, reflection, TLS, draining."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from sdgrpc.api.server import Server
from sdgrpc.errors import EngineFailed, ModelError, SettingsError
from sdgrpc.v1 import catalog_pb2
from sdgrpc.v1 import diffusion_pb2 as pb
from sdgrpc.v1 import diffusion_pb2_grpc as pb_grpc
from tests.support.api import (
    details_of,
    events_of,
    failure_of,
    generate,
    make_settings,
    png,
    running_api,
    transform,
    until_running,
)
from tests.support.certificates import authority, signed
from tests.support.engine import FakeEngine

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
SERVICES = ("", "sdgrpc.v1.DiffusionService")


async def health_of(channel: aio.Channel) -> set[int]:
    """The states of the server and of the service."""
    stub = health_pb2_grpc.HealthStub(channel)
    checks = [await stub.Check(health_pb2.HealthCheckRequest(service=service)) for service in SERVICES]  # type: ignore[attr-defined]
    return {check.status for check in checks}


async def refusal_of(channel: aio.Channel) -> aio.AioRpcError:
    error = await failure_of(pb_grpc.DiffusionServiceStub(channel).Generate(generate()))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    return error


async def test_the_port_answers_while_the_model_loads() -> None:
    """Health says NOT_SERVING and jobs are told to come back, until the engine is there and ready."""
    loaded, engine = threading.Event(), FakeEngine(ready=False)

    def open_engine() -> FakeEngine:
        assert loaded.wait(10)
        return engine

    server = Server(make_settings())
    await server.start()
    loading = asyncio.ensure_future(server.load(open_engine))
    async with aio.insecure_channel(server.address) as channel:
        assert await health_of(channel) == {NOT_SERVING}
        details = details_of(await refusal_of(channel))
        assert (details["ErrorInfo"].reason, details["RetryInfo"].retry_delay.seconds) == ("LOADING", 2)
        loaded.set()
        assert await health_of(channel) == {NOT_SERVING}
        assert not loading.done()
        engine.ready = True
        await loading
        assert await health_of(channel) == {SERVING}
        stub = pb_grpc.DiffusionServiceStub(channel)
        assert (await events_of(stub.Generate(generate())))[-1].HasField("finished")
        await server.stop()
    assert engine.closed == 1


async def test_draining_lets_running_jobs_finish() -> None:
    """Health turns, new jobs are refused with RetryInfo, the running one ends with its picture."""
    engine = FakeEngine()
    engine.gate.clear()
    async with running_api(engine) as api:
        call = api.stub.Generate(generate())
        await until_running(call)
        stopping = asyncio.ensure_future(api.server.stop())
        watch = health_pb2_grpc.HealthStub(api.channel).Watch(health_pb2.HealthCheckRequest())  # type: ignore[attr-defined]
        while (await watch.read()).status != NOT_SERVING:
            pass
        details = details_of(await refusal_of(api.channel))
        assert (details["ErrorInfo"].reason, details["RetryInfo"].retry_delay.seconds) == ("DRAINING", 1)
        assert not stopping.done()
        engine.gate.set()
        assert (await events_of(call))[-1].HasField("finished")
        await stopping
        assert (engine.finished, engine.cancelled, engine.closed) == (1, 0, 1)


async def test_jobs_that_outlast_the_timeout_are_told() -> None:
    """After `drain_timeout` they end with UNAVAILABLE (DRAINING), not with a broken connection."""
    engine = FakeEngine()
    engine.gate.clear()
    async with running_api(engine, drain_timeout=0.1) as api:
        call = api.stub.Generate(generate())
        await until_running(call)
        await api.server.stop()
        assert details_of(await failure_of(call))["ErrorInfo"].reason == "DRAINING"


async def test_a_hurried_stop_does_not_wait() -> None:
    """The second signal cuts draining short."""
    engine, hurry = FakeEngine(), asyncio.Event()
    engine.gate.clear()
    async with running_api(engine, drain_timeout=600) as api:
        call = api.stub.Generate(generate())
        await until_running(call)
        stopping = asyncio.ensure_future(api.server.stop(hurry))
        await asyncio.sleep(0.05)
        assert not stopping.done()
        hurry.set()
        async with asyncio.timeout(10):
            await stopping
        await failure_of(call)
        assert engine.closed == 1


async def test_a_failed_engine_turns_health_and_ends_calls():
    """Also those that wait for what never comes; later ones are told the same, and the server says so."""
    engine = FakeEngine()
    engine.gate.clear()
    async with running_api(engine) as api:
        call = api.stub.Generate(generate())
        await until_running(call)
        watch = health_pb2_grpc.HealthStub(api.channel).Watch(health_pb2.HealthCheckRequest())  # type: ignore[attr-defined]
        assert (await watch.read()).status == SERVING
        engine.failure.set()
        assert (await watch.read()).status == NOT_SERVING
        error = await failure_of(call)
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert details_of(error)["ErrorInfo"].reason == "ENGINE_FAILED"
        await api.server.failed()
        assert details_of(await refusal_of(api.channel))["ErrorInfo"].reason == "ENGINE_FAILED"
        with pytest.raises(EngineFailed):
            api.server.check()


async def test_calls_are_taken_during_the_delay() -> None:
    """Health and the status say that the server leaves, and jobs are still drawn; then they are refused."""
    engine, hurry = FakeEngine(), asyncio.Event()
    async with running_api(engine, drain_delay=600) as api:
        stopping = asyncio.ensure_future(api.server.stop(hurry))
        while await health_of(api.channel) != {NOT_SERVING}:
            pass
        status: Any = await api.catalog.WatchStatus(catalog_pb2.WatchStatusRequest()).read()
        assert not status.ready
        assert (await events_of(api.stub.Generate(generate())))[-1].HasField("finished")
        assert not stopping.done()
        hurry.set()
        await stopping
        assert engine.closed == 1


async def test_the_deadline_reaches_the_engine() -> None:
    """As the seconds that are left; a call without one has none."""
    engine = FakeEngine()
    async with running_api(engine) as api:
        await events_of(api.stub.Generate(generate()))
        await events_of(api.stub.Generate(generate(), timeout=300))
    assert engine.time_limits[0] is None
    assert 250 < engine.time_limits[1] < 310


async def test_stopping_while_the_model_loads() -> None:
    """The engine that arrives late is closed, not leaked."""
    loaded, engine = threading.Event(), FakeEngine()

    def open_engine() -> FakeEngine:
        assert loaded.wait(10)
        return engine

    server = Server(make_settings())
    await server.start()
    loading = asyncio.ensure_future(server.load(open_engine))
    await asyncio.sleep(0)
    loading.cancel()
    stopping = asyncio.ensure_future(server.stop())
    await asyncio.sleep(0.05)
    assert not stopping.done()
    loaded.set()
    await stopping
    assert engine.closed == 1


async def test_a_model_that_cannot_be_loaded() -> None:
    """`load` raises what the engine raised, and the port can be given up."""

    def open_engine() -> FakeEngine:
        raise ModelError("no unet in the folder")

    server = Server(make_settings())
    await server.start()
    with pytest.raises(ModelError, match="no unet"):
        await server.load(open_engine)
    await server.stop()


async def test_a_taken_port_is_refused() -> None:
    """Two servers never share a port by accident."""
    async with running_api(FakeEngine()) as api:
        second = Server(make_settings(listen=api.server.address))
        with pytest.raises(SettingsError, match=f"cannot listen on {api.server.address}"):
            await second.start()
        await second.stop()


async def test_reflection_describes_the_contract() -> None:
    """Tools such as grpcurl can list and describe the services."""
    async with running_api(FakeEngine()) as api:
        stub = reflection_pb2_grpc.ServerReflectionStub(api.channel)
        call = stub.ServerReflectionInfo()
        await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        services = {service.name for service in (await call.read()).list_services_response.service}
        assert services == {
            "sdgrpc.v1.DiffusionService",
            "sdgrpc.v1.CatalogService",
            "sdgrpc.v1.JobService",
            "grpc.health.v1.Health",
            "grpc.reflection.v1alpha.ServerReflection",
        }
        symbol = "sdgrpc.v1.DiffusionService"
        await call.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol))
        files = (await call.read()).file_descriptor_response.file_descriptor_proto
        assert pb.DESCRIPTOR.serialized_pb in files
        await call.done_writing()


async def test_reflection_answers_under_its_newer_name() -> None:
    """Tools ask for grpc.reflection.v1 first; its messages are the older one's."""
    async with running_api(FakeEngine()) as api:
        call = api.channel.stream_stream(
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )()
        symbol = "sdgrpc.v1.CatalogService"
        await call.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol))
        assert (await call.read()).file_descriptor_response.file_descriptor_proto  # type: ignore[attr-defined]
        await call.done_writing()
        assert await call.read() is aio.EOF


async def test_reflection_can_be_turned_off() -> None:
    """An operator who does not want the contract read from the server gets UNIMPLEMENTED for the asker."""
    async with running_api(FakeEngine(), reflection=False) as api:
        call = reflection_pb2_grpc.ServerReflectionStub(api.channel).ServerReflectionInfo()
        assert (await failure_of(call)).code() is grpc.StatusCode.UNIMPLEMENTED
        assert await health_of(api.channel) == {SERVING}


async def test_messages_of_the_largest_valid_size_arrive() -> None:
    """The 4 MiB that gRPC comes with are less than a large picture; our limit follows from the settings."""
    async with running_api(FakeEngine(), max_image_bytes=6 << 20) as api:
        image = pb.Image(data=png() + bytes(5 << 20))
        events = await events_of(api.stub.Transform(transform(image=image)))
        assert events[-1].HasField("finished")
        error = await failure_of(api.stub.Transform(transform(image=pb.Image(data=bytes(14 << 20)))))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ca, server and client certificates and their keys."""
    folder = tmp_path_factory.mktemp("pem")
    authority(folder)
    for name in ("server", "client"):
        signed(folder, name)
    return folder


async def tls_health(server: Server, **files: bytes) -> set[int]:
    credentials = grpc.ssl_channel_credentials(**files)
    target = server.address.replace("127.0.0.1", "localhost")
    async with aio.secure_channel(target, credentials) as channel:
        return await health_of(channel)


async def test_tls(pem: Path) -> None:
    """With a certificate and key the port speaks TLS, and nothing else."""
    files = {"tls_certificate": pem / "server.pem", "tls_key": pem / "server.key"}
    async with running_api(FakeEngine(), **files) as api:
        ca = (pem / "ca.pem").read_bytes()
        assert await tls_health(api.server, root_certificates=ca) == {SERVING}
        with pytest.raises(aio.AioRpcError):
            await health_of(api.channel)


async def test_mutual_tls(pem: Path) -> None:
    """With a client CA, clients must show a certificate that it signed."""
    files = {"tls_certificate": "server.pem", "tls_key": "server.key", "tls_client_ca": "ca.pem"}
    async with running_api(FakeEngine(), **{name: pem / file for name, file in files.items()}) as api:
        ca = (pem / "ca.pem").read_bytes()
        own = {
            "private_key": (pem / "client.key").read_bytes(),
            "certificate_chain": (pem / "client.pem").read_bytes(),
        }
        assert await tls_health(api.server, root_certificates=ca, **own) == {SERVING}
        with pytest.raises(aio.AioRpcError):
            await tls_health(api.server, root_certificates=ca)


async def test_files_that_are_no_certificate_are_refused(pem: Path, tmp_path: Path) -> None:
    """At the start, not at the first call."""
    (tmp_path / "bad.pem").write_text("no certificate")
    server = Server(make_settings(tls_certificate=tmp_path / "bad.pem", tls_key=pem / "server.key"))
    with pytest.raises(SettingsError, match="TLS"):
        await server.start()
    await server.stop()
