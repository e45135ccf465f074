"""Fixtures: the door on a port of its own, before a real engine whose UNet calls a test can hold."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import openai
import pytest
import torch
import uvicorn

from sdgrpc.api.server import Server
from sdgrpc.client import AsyncClient
from sdgrpc.diffusion.checkpoints.loading import load
from sdgrpc.diffusion.model import Model
from sdgrpc.domain import EngineStatus
from sdgrpc.engine.local import LocalEngine
from sdgrpc.engine.options import EngineOptions, LoopOptions
from sdgrpc.lora.store.library import LoraLibrary
from sdgrpc.web import build_app
from sdgrpc.web.guard import LOCAL_CALLERS, Callers
from sdgrpc.web.serving import Listen, config
from tests.support.api import make_settings
from tests.support.assets import LORAS


@dataclass
class Gate:
    """Counts what passes; while it is down, the next one waits inside."""

    count: int = 0
    open: threading.Event = field(default_factory=threading.Event)
    waiting: threading.Event = field(default_factory=threading.Event)

    def passes(self, *_: object) -> None:
        self.count += 1
        self.waiting.set()
        assert self.open.wait(60)

    async def until_inside(self) -> None:
        """Wait until somebody waits inside."""
        assert await asyncio.to_thread(self.waiting.wait, 60)


@dataclass
class Door:
    """A door before an engine; `url` ends in /v1."""

    root: str
    engine: LocalEngine
    server: Server

    @property
    def grpc(self) -> str:
        """The server behind it."""
        return self.server.address

    @property
    def url(self) -> str:
        return f"{self.root}/v1"

    def openai(self, **options) -> openai.AsyncOpenAI:
        """The official client, unchanged."""
        return openai.AsyncOpenAI(base_url=self.url, api_key="unused", **{"max_retries": 0} | options)

    async def until_idle(self) -> None:
        """Wait until the engine has let go of every job."""
        await self.until(lambda status: status.running + status.queued == 0)

    async def until(self, holds: Callable[[EngineStatus], bool]) -> None:
        """Wait until the engine's status is so."""
        async with asyncio.timeout(60):
            while not holds(self.engine.status()):  # noqa: ASYNC110 - a status is asked for, not announced
                await asyncio.sleep(0.01)


@asynccontextmanager
async def doored(target: str, callers: Callers = LOCAL_CALLERS, *, page: bool = False) -> AsyncIterator[str]:
    """Serve a door before `target` for the block: its root."""
    listen = Listen("127.0.0.1:0")
    bound = listen.bound()
    server = uvicorn.Server(config(build_app(AsyncClient(target), callers, page=page), listen))
    serving = asyncio.create_task(server._serve([bound]))
    try:
        async with asyncio.timeout(30):
            while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
                await asyncio.sleep(0.01)
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving


@pytest.fixture(scope="module")
def model() -> Model:
    return load("embedded", "embedded", device=torch.device("cpu"), dtype=torch.float32)


@pytest.fixture
async def door(model: Model) -> AsyncIterator[Door]:
    """A door before the embedded model and its LoRAs, one job at a time."""
    loop = LoopOptions(queue_size=8, max_running_jobs=1)
    engine = LocalEngine([model], LoraLibrary([LORAS]), EngineOptions(loop=loop))
    await engine.warm_up()
    server = Server(make_settings())
    await server.start()
    await server.load(lambda: engine)
    try:
        async with doored(server.address) as root:
            yield Door(root, engine, server)
    finally:
        await server.stop()


@pytest.fixture
def steps(model: Model) -> Iterator[Gate]:
    """The gate before each UNet call, which is down."""
    gate = Gate()
    hook = model.unet.register_forward_pre_hook(gate.passes)
    try:
        yield gate
    finally:
        gate.open.set()
        hook.remove()
