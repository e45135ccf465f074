"""A look at a port's connections and streams by channelz, as grpcdebug takes it."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from grpc import aio
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.support.api import generate, running_api, until_running
from tests.support.engine import FakeEngine


async def names_of(channel: aio.Channel) -> set[str]:
    """The services that reflection lists."""
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    call = stub.ServerReflectionInfo()
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    answer = await call.read()
    call.cancel()
    return {one.name for one in answer.list_services_response.service}


async def newest(stub: Any) -> Any:
    """The server that was opened last: the process has one for each test."""
    servers = (await stub.GetServers(channelz_pb2.GetServersRequest())).server
    return max(servers, key=lambda one: one.ref.server_id)


async def test_it_shows_a_streams_connection() -> None:
    """A job that runs is a stream of one of the port's connections, and is listed as a call begun."""
    async with running_api(FakeEngine(), channelz=True) as api:
        call = api.stub.Generate(generate())
        await until_running(call)
        stub = channelz_pb2_grpc.ChannelzStub(api.channel)
        server = await newest(stub)
        request = channelz_pb2.GetServerSocketsRequest(server_id=server.ref.server_id)
        (connection,) = (await stub.GetServerSockets(request)).socket_ref
        got = await stub.GetSocket(channelz_pb2.GetSocketRequest(socket_id=connection.socket_id))
        assert got.socket.data.streams_started >= 2
        assert got.socket.data.streams_started - got.socket.data.streams_succeeded >= 1, "the job runs"
        assert "grpc.channelz.v1.Channelz" in await names_of(api.channel)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call.read()


async def test_it_is_off_unless_asked_for() -> None:
    """Then the service is unknown, and not listed."""
    async with running_api(FakeEngine()) as api:
        stub = channelz_pb2_grpc.ChannelzStub(api.channel)
        with pytest.raises(aio.AioRpcError) as caught:
            await stub.GetServers(channelz_pb2.GetServersRequest())
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert "grpc.channelz.v1.Channelz" not in await names_of(api.channel)
