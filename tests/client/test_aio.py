"""The client for asyncio."""

from __future__ import annotations

import asyncio
import inspect
import threading

import pytest

from sdgrpc import client as api
from sdgrpc.client import AsyncClient
from sdgrpc.testing.server import (
    hang_script,
    invalid_script,
    png,
    scripted_server,
)


async def test_async_client_draws(server) -> None:
    """The asyncio client has the same calls and results."""
    server.serve()
    async with AsyncClient(server.target) as client:
        await client.wait_until_ready(timeout=10)
        events = [event async for event in client.generate("a star", preview="picture")]
        assert [type(event).__name__ for event in events][:3] == ["Accepted", "Prepared", "Progress"]
        (image,) = await client.transform("a heart", png(), strength=0.5).images()
        result = await client.inpaint("a heart", image, png(), seed=3, mask_blur=1.0).result()
    assert (result.accepted.sampling.seed, result.images[0].seed) == (3, 3)
    assert server.requests[1].strength == 0.5
    assert server.requests[2].mask_options.blur == 1.0


async def test_async_failures_and_cancellation() -> None:
    """The asyncio client raises the same errors, and lets a cancelled task be cancelled."""
    with scripted_server(invalid_script()) as server:
        async with AsyncClient(server.target) as client:
            with pytest.raises(api.InvalidRequestError) as caught:
                await client.generate("").images()
            assert len(caught.value.violations) == 2
    with scripted_server(hang_script(threading.Event())) as server:
        async with AsyncClient(server.target) as client, client.generate("a star") as job:
            asyncio.get_running_loop().call_later(0.1, job.cancel)
            with pytest.raises(api.JobCancelledError):
                await job.result()
            waiting = asyncio.create_task(client.generate("a star").result())
            asyncio.get_running_loop().call_later(0.1, waiting.cancel)
            with pytest.raises(asyncio.CancelledError):
                await waiting
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await client.generate("a star").result()


async def test_async_wait_gives_up() -> None:
    """The asyncio client's wait ends too."""
    async with AsyncClient("127.0.0.1:1") as client:
        with pytest.raises(api.UnavailableError, match="not ready"):
            await client.wait_until_ready(timeout=0.2)


def test_the_two_clients_have_the_same_calls() -> None:
    """Neither falls behind: same public methods, same arguments with the same defaults."""
    for one, other in ((api.Client, api.AsyncClient), (api.Job, api.AsyncJob)):
        named, twin = calls_of(one), calls_of(other)
        assert named == twin


def calls_of(client: type) -> dict[str, list[str]]:
    """The public methods of a client, and their arguments as written but for what they return."""
    return {
        name: [str(parameter) for parameter in inspect.signature(call).parameters.values()]
        for name, call in inspect.getmembers(client, inspect.isfunction)
        if not name.startswith("_")
    }
