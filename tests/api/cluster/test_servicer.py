"""ClusterService: replicas drained and scaled, by each client of this language."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from sdgrpc.client import AsyncClient, Client, FailedPreconditionError, InvalidRequestError, NotFoundError
from sdgrpc.client.errors import SdgrpcServerError
from sdgrpc.errors import ReplicaNotFound
from tests.support.api import Api, running_api
from tests.support.engine import FakeEngine


class FakeReplicas:
    """Three replicas; notes what it is told."""

    def __init__(self) -> None:
        self.scaled: list[tuple[int, int]] = []

    def drain(self, name: str) -> list[str]:
        if name != "node":
            raise ReplicaNotFound(name, f"no replica {name!r} here")
        return ["a", "b"]

    def scale(self, least: int, most: int) -> int:
        self.scaled.append((least, most))
        return 3


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    """A server that allows it."""
    engine = FakeEngine(replicas=FakeReplicas())
    async with running_api(engine, cluster="local", cluster_control=True) as running:
        yield running


async def test_replicas_leave(api: Api) -> None:
    """A node's all at once; one that is not there is NOT_FOUND, by name."""
    async with AsyncClient(api.server.address) as client:
        assert await client.drain_replicas("node") == ("a", "b")
        with pytest.raises(NotFoundError, match="'c'") as caught:
            await client.drain_replicas("c")
        assert caught.value.reason == "REPLICA_NOT_FOUND"


async def test_the_number_is_set(api: Api) -> None:
    """Without the most it is the least."""
    async with AsyncClient(api.server.address) as client:
        assert await client.scale_replicas(2) == 3
        assert await client.scale_replicas(2, 5) == 3
    assert api.engine.replicas.scaled == [(2, 2), (2, 5)]


@pytest.mark.parametrize(("least", "most", "field"), [(0, 0, "least"), (1, 1001, "most"), (3, 2, "most")])
async def test_numbers_are_checked(api: Api, least: int, most: int, field: str) -> None:
    """The error names the field."""
    async with AsyncClient(api.server.address) as client:
        with pytest.raises(InvalidRequestError) as caught:
            await client.scale_replicas(least, most)
    assert [one.field for one in caught.value.violations] == [field]
    assert not api.engine.replicas.scaled


async def test_ordinary_code_has_the_same_calls(api: Api) -> None:
    """With the same errors."""

    def use() -> None:
        with Client(api.server.address) as client:
            assert client.drain_replicas("node") == ("a", "b")
            assert client.scale_replicas(4, 6) == 3
            with pytest.raises(InvalidRequestError):
                client.drain_replicas("")

    await asyncio.to_thread(use)
    assert api.engine.replicas.scaled == [(4, 6)]


async def test_an_engine_alone_has_none() -> None:
    """It says what is missing."""
    async with (
        running_api(FakeEngine(), cluster_control=True) as api,
        AsyncClient(api.server.address) as client,
    ):
        with pytest.raises(FailedPreconditionError, match="--cluster") as caught:
            await client.scale_replicas(1)
        assert caught.value.reason == "NO_CLUSTER"


async def test_nobody_else_may() -> None:
    """Unless the operator allows it the service is not there."""
    async with running_api(FakeEngine()) as other, AsyncClient(other.server.address) as client:
        with pytest.raises(SdgrpcServerError) as caught:
            await client.drain_replicas("node")
        assert caught.value.code == "UNIMPLEMENTED"
