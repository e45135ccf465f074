"""Pictures drawn on a GPU: the same bytes again, and near the CPU's."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sdgrpc.diffusion.checkpoints.loading import load
from sdgrpc.diffusion.model import Model
from sdgrpc.domain import LoraRef, Output, PreviewKind, PreviewOptions, Scheduler
from sdgrpc.embedded import EMBEDDED
from sdgrpc.engine.local import LocalEngine
from sdgrpc.engine.models.device_options import DeviceOptions
from sdgrpc.engine.options import EngineOptions, LoopOptions
from sdgrpc.lora.store.library import LoraLibrary
from tests.engine.test_agreement import PROMPTS, image_of
from tests.engine.test_local import pixels, run
from tests.support.tasks import task

LORAS = Path("src/sdgrpc/assets/tiny/loras")
NEAR = 2
"""Of 255: what float32's rounding in another order does to the embedded model's pictures."""


@asynccontextmanager
async def engine_of(model: Model, **device):
    options = EngineOptions(LoopOptions(max_rows_per_call=2), device=DeviceOptions(**device))
    engine = LocalEngine([model], LoraLibrary([LORAS]), options)
    try:
        yield engine
    finally:
        await engine.close()


def tasks() -> list:
    names = sorted(path.stem for path in LORAS.glob("*.safetensors"))[:2]
    chosen = [(), (LoraRef(name=names[0]),), tuple(LoraRef(name=name) for name in names)]
    schedulers = (Scheduler.EULER, Scheduler.DPMPP_2M, Scheduler.EULER)
    return [
        task(prompt=prompt, seed=seed, scheduler=scheduler, steps=10, width=128, height=128, loras=loras)
        for seed, (prompt, scheduler, loras) in enumerate(zip(PROMPTS, schedulers, chosen, strict=True))
    ]


def largest_difference(one: bytes, other: bytes) -> float:
    return float(np.abs(pixels(one).astype(float) - pixels(other)).max())


@pytest.mark.usefixtures("exact")
async def test_alone_the_bytes_repeat_and_are_near_the_cpus(embedded) -> None:
    """With and without LoRA sets, resident factors on, compiled nothing."""
    cpu = load("tiny", EMBEDDED, device=torch.device("cpu"), dtype=torch.float32)
    async with engine_of(cpu, compile="off") as engine:
        expected = [image_of(await run(engine, one)) for one in tasks()]
    async with engine_of(embedded, compile="off", resident_factors="on") as engine:
        first = [image_of(await run(engine, one)) for one in tasks()]
        again = [image_of(await run(engine, one)) for one in tasks()]
    assert first == again
    for one, other in zip(first, expected, strict=True):
        assert largest_difference(one, other) <= NEAR


@pytest.mark.usefixtures("exact")
async def test_beside_others_with_previews_while_compiling(embedded, device) -> None:
    """Each job with a set of its own, during compilation and after it: near the eager bytes."""
    mode = "graphs" if device.type == "cuda" else "blocks"
    preview = PreviewOptions(PreviewKind.DECODED, every_n_steps=2)
    async with engine_of(embedded, compile="off", resident_factors="on") as engine:
        expected = [image_of(await run(engine, one)) for one in tasks()]
    asked = [replace(one, output=Output(preview=preview)) for one in tasks()]
    async with engine_of(embedded, compile=mode, resident_factors="on") as engine:
        for compiled in (False, True):
            drawn = await asyncio.gather(*(run(engine, one) for one in asked))
            for events, other in zip(drawn, expected, strict=True):
                assert largest_difference(image_of(events), other) <= NEAR
            served = next(iter(engine._models.pool.resident().values()))
            await asyncio.to_thread(served.evaluator.wait)
            assert served.evaluator.ready or not compiled
