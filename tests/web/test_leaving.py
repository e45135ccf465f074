"""A caller that goes away cancels its job before its next step, in every state."""

from __future__ import annotations

import asyncio

import openai
import pytest

from sdgrpc.diffusion.pictures.autoencoder import decode
from sdgrpc.engine import runner
from sdgrpc.lora.fusing.cache import FusedSets
from tests.web.conftest import Gate


async def begun(door, stream: bool, **extra) -> asyncio.Task:
    """Ask for a long job."""

    async def ask() -> None:
        async with door.openai() as client:
            answer = await client.images.generate(
                prompt="a star", stream=stream, extra_body={"steps": 100, "guidance_scale": 1} | extra
            )
            if stream:
                async for _ in answer:
                    continue

    return asyncio.create_task(ask())


async def leave(task: asyncio.Task) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def until_noticed(door) -> None:
    """Wait until the server has seen that its caller is gone, while the engine still waits."""
    async with asyncio.timeout(30):
        await door.server._servicer.idle()


@pytest.mark.parametrize("stream", [False, True])
async def test_while_it_steps(door, steps: Gate, stream) -> None:
    """In its first UNet call: it makes no second one."""
    task = await begun(door, stream)
    await steps.until_inside()
    await leave(task)
    await until_noticed(door)
    steps.open.set()
    await door.until_idle()
    assert steps.count == 1
    assert door.engine.status().jobs_finished == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_while_it_is_queued(door, steps: Gate, stream) -> None:
    """Behind another job: it never starts."""
    first = await begun(door, False, steps=3)
    await steps.until_inside()
    second = await begun(door, stream)
    await door.until(lambda status: status.queued == 1)
    await leave(second)
    await door.until(lambda status: status.queued == 0)
    steps.open.set()
    await first
    await door.until_idle()
    assert steps.count == 3


@pytest.mark.parametrize("stream", [False, True])
async def test_while_it_fuses(door, steps: Gate, monkeypatch, stream) -> None:
    """While its LoRAs are fused: it makes no step."""
    fusing, acquire = Gate(), FusedSets.acquire

    def held(self, *arguments, **options):
        fusing.passes()
        return acquire(self, *arguments, **options)

    monkeypatch.setattr(FusedSets, "acquire", held)
    steps.open.set()
    task = await begun(door, stream, loras=["night"])
    await fusing.until_inside()
    await leave(task)
    await until_noticed(door)
    fusing.open.set()
    await door.until_idle()
    assert steps.count == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_while_it_decodes(door, monkeypatch, stream) -> None:
    """While the first of two pictures is decoded: the second is not."""
    decoding = Gate()

    def held(*arguments, **options):
        decoding.passes()
        return decode(*arguments, **options)

    monkeypatch.setattr(runner, "decode", held)
    task = await begun(door, stream, n=2, steps=1)
    await decoding.until_inside()
    await leave(task)
    await until_noticed(door)
    decoding.open.set()
    await door.until_idle()
    assert decoding.count == 1
    assert door.engine.status().jobs_finished == 0


async def test_a_time_out_of_the_official_client_cancels(door, steps: Gate) -> None:
    """Its connection ends with its patience."""
    async with door.openai(timeout=1.0) as client:
        with pytest.raises(openai.APITimeoutError):
            await client.images.generate(prompt="a star", extra_body={"steps": 100})
    assert steps.waiting.is_set()
    await until_noticed(door)
    steps.open.set()
    await door.until_idle()
    assert steps.count == 1
