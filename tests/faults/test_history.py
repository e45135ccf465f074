"""Traffic and faults against the real engine; then what was recorded is checked against the model."""

from __future__ import annotations

import asyncio
import hashlib
import io
import random
from collections import Counter

import numpy as np
import pytest
import torch
from grpc import aio
from PIL import Image

from sdgrpc.api.server import Server
from sdgrpc.engine import runner
from sdgrpc.engine.local import LocalEngine
from sdgrpc.engine.opening import open_engine
from sdgrpc.lora.fusing.cache import FusedSets, Lease
from sdgrpc.v1 import diffusion_pb2 as pb
from sdgrpc.v1 import diffusion_pb2_grpc as pb_grpc
from tests.faults.history import Record, faults_of
from tests.faults.traffic import Traffic, requests
from tests.support.api import make_settings

CALLS = 90
MOST_RUNNING = 4
TOLERANCE = 2  # of 255, of what batching changes in float32: docs/architecture.md


class Faults:
    """Now and then lets a place of the engine fail in a way that costs a job at most."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - tests need no cryptography
        self.on = True
        self.made: Counter[str] = Counter()
        self.leases: list[Lease] = []

    def wrap(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Put them before the functions that the engine calls by these names."""
        for owner, name in [
            *((runner, name) for name in ("predict", "prepare", "encode", "decode")),
            (FusedSets, "acquire"),
        ]:
            monkeypatch.setattr(owner, name, self._wrapped(name, getattr(owner, name)))

    def _wrapped(self, name, function):
        def work(*arguments, **named):
            if self.on and self._random.random() < 0.02:
                kind = self._random.choice(["memory", "torch's memory", "bug"])
                self.made[f"{name}: {kind}"] += 1
                raise {
                    "memory": MemoryError(),
                    "torch's memory": torch.OutOfMemoryError("CUDA out of memory"),
                    "bug": ValueError("a bug"),
                }[kind]
            made = function(*arguments, **named)
            if name == "acquire":
                self.leases.append(made)
            return made

        return work


def digest_of(parameters: list[torch.Tensor]) -> str:
    """One hash of all bytes."""
    digest = hashlib.sha256()
    for parameter in parameters:
        digest.update(parameter.detach().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


async def alone(channel: aio.Channel) -> dict[str, list[bytes]]:
    """The images of every request, drawn one after the other."""
    stub = pb_grpc.DiffusionServiceStub(channel)
    drawn = {}
    for key, request in requests().items():
        drawn[key] = [
            event.image.image.data async for event in stub.Generate(request) if event.HasField("image")
        ]
    return drawn


async def until_idle(engine: LocalEngine) -> None:
    async with asyncio.timeout(60):
        while engine.status().running or engine.status().queued:  # noqa: ASYNC110 - numbers, not events
            await asyncio.sleep(0.02)


def check_pictures(records: list[Record], expected: dict[str, list[bytes]], *, exactly: bool) -> int:
    """Every picture that came is that of the same request alone; the number of those is returned."""
    compared = 0
    for record in records:
        for image, wanted in zip(record.images(), expected[record.key], strict=False):
            compared += 1
            if exactly:
                assert image == wanted, record.key
            else:
                assert np.abs(pixels(image) - pixels(wanted)).max() <= TOLERANCE, record.key
    return compared


@pytest.mark.parametrize("batching", [True, False])
async def test_history(monkeypatch: pytest.MonkeyPatch, batching: bool) -> None:
    """One end for each job, places kept, leases returned, weights untouched, and the right pictures."""
    faults = Faults(seed=11)
    faults.on = False
    faults.wrap(monkeypatch)
    settings = make_settings(
        lora_dir=None, batching=batching, max_running_jobs=MOST_RUNNING, queue_size=9, hang_timeout=120
    )
    server = Server(settings)
    await server.start()
    engine: LocalEngine = await asyncio.to_thread(open_engine, settings)
    await server.load(lambda: engine)
    stepping: list[int] = []
    next_batch = engine._loop._scheduler.next_batch

    def counted(*arguments: object) -> list[int]:
        stepping.append(len(engine._loop._scheduler))
        return next_batch(*arguments)

    monkeypatch.setattr(engine._loop._scheduler, "next_batch", counted)
    (served,) = engine._models.pool.resident().values()
    weights = [each for module in served.model.lora_components().values() for each in module.parameters()]
    before = digest_of(weights)
    async with aio.insecure_channel(server.address) as channel:
        try:
            expected = await alone(channel)
            faults.on = True
            records = list(await Traffic(server.address, seed=7).run(CALLS))
            faults.on = False
            await until_idle(engine)
            again = await alone(channel)
        finally:
            await server.stop()
    assert [fault for record in records for fault in faults_of(record)] == []
    assert max(stepping) <= MOST_RUNNING
    assert len(faults.made) > 3
    assert faults.leases
    assert not [one for one in faults.leases if one._on_release]
    assert not [one for one in engine._models.resident_sets() if one.in_use]
    assert digest_of(weights) == before
    assert again == expected, "nothing of what happened is left"
    # A call that runs out of memory is made smaller, which changes sums as batching does.
    assert check_pictures(records, expected, exactly=False) > CALLS // 9


def finished(*kinds: str) -> Record:
    """A record of a call that was drawn, with such events."""
    events = []
    for number, kind in enumerate(kinds):
        event = pb.JobEvent(request_id="r", sequence=number)
        getattr(event, kind).SetInParent()
        if kind == "accepted":
            event.accepted.step_count = kinds.count("progress")
        if kind == "progress":
            event.progress.step = kinds[: number + 1].count("progress")
        events.append((float(number), event))
    return Record("request 0", "draw", pb.GenerateRequest(), events, ["OK"])


def test_the_model_can_fail() -> None:
    """Histories that no server may have are found."""
    good = finished("accepted", "prepared", "progress", "progress", "image", "finished")
    assert faults_of(good) == []
    for kinds in (
        ("prepared", "accepted", "finished"),
        ("accepted", "progress", "image", "finished"),
        ("accepted", "prepared", "progress", "image", "progress", "finished"),
        ("accepted", "prepared", "progress", "image", "finished", "finished"),
        ("accepted", "prepared", "progress", "image"),
    ):
        assert faults_of(finished(*kinds)), kinds
    good.ends.append("OK")
    assert faults_of(good)
    good.ends = ["ENGINE_FAILED"]
    assert faults_of(good)
