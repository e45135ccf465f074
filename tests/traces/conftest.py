"""A real server on the embedded model, whose spans a real receiver gets."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

import pytest
import torch
from grpc import aio

from sdgrpc.api.calls.notes import CallNotes
from sdgrpc.api.server import Server
from sdgrpc.diffusion.checkpoints.loading import load
from sdgrpc.diffusion.model import Model
from sdgrpc.engine.local import LocalEngine
from sdgrpc.engine.observing.several import Observers
from sdgrpc.engine.options import EngineOptions, LoopOptions
from sdgrpc.lora.store.library import LoraLibrary
from sdgrpc.traces.exporting import exported
from sdgrpc.v1 import diffusion_pb2_grpc as pb_grpc
from tests.support.api import make_settings
from tests.support.assets import LORAS
from tests.support.otlp import Receiver, receiving


@dataclass
class Traced:
    """A server; its UNet calls wait while `gate` is down. Its spans have come once it is closed."""

    server: Server
    channel: aio.Channel
    stub: pb_grpc.DiffusionServiceAsyncStub
    gate: threading.Event


Opened = Callable[..., AbstractAsyncContextManager[tuple[Traced, Receiver]]]


@pytest.fixture(scope="session")
def model() -> Model:
    return load("embedded", "embedded", device=torch.device("cpu"), dtype=torch.float32)


@pytest.fixture
def open_traced(model: Model) -> Opened:
    """A context manager that serves the embedded model with traces to a receiver."""

    @asynccontextmanager
    async def opened(**loop: int) -> AsyncIterator[tuple[Traced, Receiver]]:
        gate = threading.Event()
        gate.set()
        hook = model.unet.register_forward_pre_hook(lambda *_: gate.wait(60) and None)
        with receiving() as receiver, exported(f"http://{receiver.address}") as traces:
            options = EngineOptions(loop=LoopOptions(**loop))
            observers = Observers([CallNotes(), traces.jobs])
            engine = LocalEngine([model], LoraLibrary([LORAS]), options, observers)
            await engine.warm_up()
            server = Server(make_settings(), [traces.calls])
            await server.start()
            await server.load(lambda: engine)
            async with aio.insecure_channel(server.address) as channel:
                try:
                    stub = pb_grpc.DiffusionServiceStub(channel)
                    yield Traced(server, channel, stub, gate), receiver
                finally:
                    gate.set()
                    await server.stop()
                    hook.remove()

    return opened
