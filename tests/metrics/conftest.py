"""A real server on the embedded model with its metrics, and the samples that a scrape of it gives."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.request import urlopen

import pytest
import torch
from grpc import aio
from prometheus_client.parser import text_string_to_metric_families

from sdgrpc.api.server import Server
from sdgrpc.diffusion.checkpoints.loading import load
from sdgrpc.diffusion.model import Model
from sdgrpc.engine.local import LocalEngine
from sdgrpc.engine.options import EngineOptions, LoopOptions
from sdgrpc.lora.store.library import LoraLibrary
from sdgrpc.metrics.metrics import Metrics
from sdgrpc.v1 import catalog_pb2, catalog_pb2_grpc
from sdgrpc.v1 import diffusion_pb2_grpc as pb_grpc
from tests.support.api import make_settings
from tests.support.assets import LORAS

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


class Scrape:
    """The samples of one scrape."""

    def __init__(self, text: str) -> None:
        families = text_string_to_metric_families(text)
        self.samples: Samples = {
            (one.name, tuple(sorted(one.labels.items()))): one.value
            for family in families
            for one in family.samples
        }

    def value(self, name: str, **labels: str) -> float:
        """One series, which is there."""
        return self.samples[f"sdgrpc_{name}", tuple(sorted(labels.items()))]

    def total(self, name: str, **labels: str) -> float:
        """The sum of the series with these labels and any others."""
        wanted = set(labels.items())
        return sum(
            value
            for (found, theirs), value in self.samples.items()
            if found == f"sdgrpc_{name}" and wanted <= set(theirs)
        )

    def labels(self, name: str) -> list[dict[str, str]]:
        """The labels of every series of a name."""
        return [dict(labels) for found, labels in self.samples if found == f"sdgrpc_{name}"]


@dataclass
class Watched:
    """A server with metrics; its UNet calls wait while `gate` is down."""

    address: str
    target: str
    channel: aio.Channel
    engine: LocalEngine
    stub: pb_grpc.DiffusionServiceAsyncStub
    catalog: catalog_pb2_grpc.CatalogServiceAsyncStub
    gate: threading.Event = field(default_factory=threading.Event)

    async def scrape(self) -> Scrape:
        return await asyncio.to_thread(scrape, self.address)

    async def status(self) -> Any:
        """The first report of WatchStatus."""
        call = self.catalog.WatchStatus(catalog_pb2.WatchStatusRequest())
        try:
            return await call.read()
        finally:
            call.cancel()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not holds():  # noqa: ASYNC110 - a status is asked for, not announced
                await asyncio.sleep(0.01)


def scrape(address: str) -> Scrape:
    with urlopen(f"http://{address}/metrics", timeout=30) as answer:
        return Scrape(answer.read().decode())


@pytest.fixture(scope="session")
def model() -> Model:
    return load("embedded", "embedded", device=torch.device("cpu"), dtype=torch.float32)


@contextmanager
def held(model: Model, gate: threading.Event) -> Iterator[None]:
    """Let UNet calls wait while the gate is down."""
    hook = model.unet.register_forward_pre_hook(lambda *_: gate.wait(60) and None)
    try:
        yield
    finally:
        gate.set()
        hook.remove()


@pytest.fixture
def open_watched(model: Model):
    """A context manager that serves the embedded model with metrics."""

    @asynccontextmanager
    async def opened(*, lora_cache_bytes: int = 64 << 20, **loop: int) -> AsyncIterator[Watched]:
        metrics = Metrics(["embedded"])
        options = EngineOptions(loop=LoopOptions(**loop), lora_cache_bytes=lora_cache_bytes)
        engine = LocalEngine([model], LoraLibrary([LORAS]), options, metrics.jobs)
        await engine.warm_up()
        metrics.read_from(engine)
        server = Server(make_settings(), [metrics.calls])
        await server.start()
        await server.load(lambda: engine)
        gate = threading.Event()
        gate.set()
        with metrics.served("127.0.0.1:0") as address, held(model, gate):
            async with aio.insecure_channel(server.address) as channel:
                catalog = catalog_pb2_grpc.CatalogServiceStub(channel)
                try:
                    stub = pb_grpc.DiffusionServiceStub(channel)
                    yield Watched(address, server.address, channel, engine, stub, catalog, gate)
                finally:
                    gate.set()
                    await server.stop()

    return opened
