"""What a connection may take, tried with sockets and frames of our own."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from sdgrpc.v1 import diffusion_pb2_grpc as pb_grpc
from tests.support.api import details_of, events_of, failure_of, generate, running_api, until_running
from tests.support.certificates import authority, signed
from tests.support.engine import FakeEngine
from tests.support.http2 import (
    END_HEADERS,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    SETTINGS,
    Wire,
    frame,
    header,
)

OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]
MAX_CONCURRENT_STREAMS = b"\x00\x03"
GREETING = PREFACE + frame(SETTINGS)


async def is_serving(address: str) -> bool:
    """Whether a new client's call is answered."""
    async with aio.insecure_channel(address, OWN_CONNECTION) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=20)
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


@pytest.mark.parametrize("sent", [b"", PREFACE[:10], PREFACE, PREFACE + frame(SETTINGS)[:5]])
async def test_who_does_not_finish_greeting_is_closed(sent: bytes) -> None:
    """A silent connection, half a preface, none of the settings that belong to it."""
    async with running_api(FakeEngine(), handshake_timeout=0.5) as api:
        wire = await Wire.open(api.server.address, sent)
        await wire.until_closed()
        assert await is_serving(api.server.address)


async def test_who_does_not_finish_the_tls_handshake_is_closed(tmp_path: Path) -> None:
    """Nor who is silent where the server waits for a client's hello."""
    authority(tmp_path)
    signed(tmp_path, "server")
    tls = {"tls_certificate": tmp_path / "server.pem", "tls_key": tmp_path / "server.key"}
    async with running_api(FakeEngine(), handshake_timeout=0.5, **tls) as api:
        for sent in (b"", b"\x16\x03\x01\x02\x00"):
            wire = await Wire.open(api.server.address, sent)
            await wire.until_closed()


async def test_an_idle_connection_is_closed_and_a_busy_one_is_not() -> None:
    """Without calls for `connection_idle` it ends by GOAWAY; while a call waits it stays."""
    engine = FakeEngine()
    engine.gate.clear()
    async with running_api(engine, connection_idle=0.3) as api:
        call = api.stub.Generate(generate())
        await until_running(call)
        wire = await Wire.open(api.server.address, GREETING)
        assert b"connection idle" in await wire.until_closed()
        assert not call.done()
        engine.gate.set()
        assert (await events_of(call))[-1].HasField("finished")


async def test_an_old_connection_lets_its_jobs_finish() -> None:
    """After `connection_age` the client makes another for new calls; the job on the old one has its grace."""
    engine = FakeEngine()
    engine.gate.clear()
    async with running_api(engine, connection_age=0.3, connection_age_grace=60) as api:
        call = api.stub.Generate(generate())
        await until_running(call)
        wire = await Wire.open(api.server.address, GREETING)
        await wire.read(GOAWAY)  # and the client's, which is older, had its own
        wire.close()
        assert not call.done()
        second = api.stub.Generate(generate())
        await until_running(second)
        engine.gate.set()
        for each in (call, second):
            assert (await events_of(each))[-1].HasField("finished")


async def test_calls_that_outlast_the_grace_are_cut() -> None:
    """A client cannot hold an old connection for good; its job is cancelled."""
    engine = FakeEngine()
    engine.gate.clear()
    async with running_api(engine, connection_age=0.2, connection_age_grace=0.2) as api:
        call = api.stub.Generate(generate())
        assert (await failure_of(call)).code() is grpc.StatusCode.UNAVAILABLE
        async with asyncio.timeout(20):
            while not engine.cancelled:  # noqa: ASYNC110 - the fake engine's counter is no event
                await asyncio.sleep(0.01)


async def test_three_thousand_silent_connections() -> None:
    """At most `max_connections` are kept, and only until they should have greeted; then all is as before."""
    async with running_api(FakeEngine(), max_connections=20, handshake_timeout=2) as api:
        wires = [await Wire.open(api.server.address) for _ in range(3000)]
        answers = await asyncio.gather(*(wire.until_closed(60) for wire in wires))
        greeted = [answer for answer in answers if answer]
        assert len(greeted) <= 60, "the others were closed as they came"
        assert await is_serving(api.server.address)


async def test_the_bound_on_connections_is_kept() -> None:
    """One beyond it is closed at once; when one goes, another may come."""
    async with running_api(FakeEngine(), max_connections=3) as api:
        kept = [await Wire.open(api.server.address, GREETING) for _ in range(3)]
        for wire in kept:
            await wire.read(SETTINGS)
        one_more = await Wire.open(api.server.address, GREETING)
        assert await one_more.until_closed() == b""
        kept[0].close()
        assert await is_serving(api.server.address)
        for wire in kept:
            wire.close()


async def test_who_pings_too_often_is_sent_away() -> None:
    """Pings are for finding a vanished peer, every ten seconds; a flood costs the sender its connection."""
    async with running_api(FakeEngine()) as api:
        wire = await Wire.open(api.server.address, GREETING)
        await wire.send(frame(PING, bytes(8)) * 20)
        assert b"too_many_pings" in await wire.until_closed()
        assert await is_serving(api.server.address)


async def test_metadata_is_bounded() -> None:
    """Headers of more than 16 KiB end their call, and nobody else's."""
    async with running_api(FakeEngine()) as api:
        big = (("x-big", "a" * (20 << 10)),)
        error = await failure_of(api.stub.Generate(generate(), metadata=big))
        assert error.code() in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INTERNAL)
        assert (await events_of(api.stub.Generate(generate())))[-1].HasField("finished")


async def test_streams_of_a_connection_are_bounded() -> None:
    """The server says how many calls a connection may have at a time; clients queue the rest."""
    async with running_api(FakeEngine(), queue_size=1, max_running_jobs=1) as api:
        wire = await Wire.open(api.server.address, GREETING)
        settings = await wire.read(SETTINGS)
        values = {settings[at : at + 2]: settings[at + 2 : at + 6] for at in range(0, len(settings), 6)}
        assert int.from_bytes(values[MAX_CONCURRENT_STREAMS]) == 130
        wire.close()


async def test_a_call_without_a_message_costs_nobody_else_anything() -> None:
    """Headers of a call, and then nothing: jobs of others go on, and the connection's age ends it."""
    path = "/sdgrpc.v1.DiffusionService/Generate"
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "a",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    block = b"".join(header(name, value) for name, value in fields.items())
    async with running_api(FakeEngine(), connection_age=0.3, connection_age_grace=0.3) as api:
        wire = await Wire.open(
            api.server.address, GREETING + frame(HEADERS, block, flags=END_HEADERS, stream=1)
        )
        async with aio.insecure_channel(api.server.address, OWN_CONNECTION) as channel:
            assert (await events_of(pb_grpc.DiffusionServiceStub(channel).Generate(generate())))[-1].finished
        await wire.until_closed()


async def test_a_socket_of_its_own_folder(tmp_path: Path) -> None:
    """`unix:/FOLDER/NAME` serves as a port does, and is gone afterwards."""
    listen = f"unix:{tmp_path}/own/s"
    async with running_api(FakeEngine(), listen=listen) as api:
        assert api.server.address == listen
        assert await is_serving(api.server.address)
        assert (await events_of(api.stub.Generate(generate())))[-1].HasField("finished")
    assert [path.name for path in (tmp_path / "own").iterdir()] == ["s.lock"]


async def test_watches_of_health_are_bounded() -> None:
    """Anybody may open them, so there are no more than connections may be; one that ends makes room."""
    async with running_api(FakeEngine(), max_connections=2) as api:
        stub: Any = health_pb2_grpc.HealthStub(api.channel)
        watches = [stub.Watch(health_pb2.HealthCheckRequest()) for _ in range(2)]
        for watch in watches:
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        third = stub.Watch(health_pb2.HealthCheckRequest())
        assert details_of(await failure_of(third))["ErrorInfo"].reason == "TOO_MANY_CALLS"
        watches[0].cancel()
        async with asyncio.timeout(20):
            while await read_or_refused(stub.Watch(health_pb2.HealthCheckRequest())):  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def read_or_refused(watch: Any) -> bool:
    """Whether a watch is refused; one that is not has told something."""
    try:
        await watch.read()
    except aio.AioRpcError:
        return True
    return False
