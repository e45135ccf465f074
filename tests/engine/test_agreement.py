"""What batching changes in a picture: nothing alone, rounding in company, nothing at all when it is off.

The tolerance that README and docs/architecture.md state is 2 of 255 in any channel of any pixel, for float32.
Measured with the embedded model, eight jobs in calls of 16 rows, 20 steps: at most 1.

For bfloat16 and float16 it is relative to what the dtype does by itself: sums in two orders are two roundings
of the same numbers, so they may lie as far apart as two results that each differ from float32 by as much and
know nothing of each other, the square root of 2 times that; 1.5 leaves room for the few pictures compared.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from contextlib import asynccontextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch

from sdgrpc.diffusion.checkpoints.loading import load
from sdgrpc.domain import Finished, GuidanceInterval, ImageReady, Scheduler, StepReuse
from sdgrpc.embedded import EMBEDDED
from sdgrpc.engine.local import LocalEngine
from sdgrpc.engine.options import EngineOptions, LoopOptions
from sdgrpc.engine.runner import LocalRunner
from sdgrpc.lora.store.library import LoraLibrary
from tests.engine.test_local import pixels, run
from tests.support.tasks import task

TOLERANCE = 2
ROUNDINGS = 1.5
PROMPTS = ("a red star on a blue background", "a green heart on a pink background", "a blue square")


@asynccontextmanager
async def embedded_engine(dtype: torch.dtype = torch.float32, **options):
    model = load("tiny", EMBEDDED, device=torch.device("cpu"), dtype=dtype)
    engine = LocalEngine([model], LoraLibrary([]), EngineOptions(LoopOptions(**options)))
    try:
        yield engine
    finally:
        await engine.close()


def tasks() -> list:
    """Jobs at other seeds, prompts, schedulers and step counts, so that they share calls at other steps."""
    schedulers = (Scheduler.EULER, Scheduler.DPMPP_2M, Scheduler.EULER_ANCESTRAL)
    return [
        task(prompt=prompt, seed=seed, scheduler=scheduler, steps=6 + seed, width=128, height=128)
        for seed, (prompt, scheduler) in enumerate(zip(PROMPTS, schedulers, strict=True))
    ]


def less_work() -> list:
    """The same with one that is guided in the middle only, and one of which steps are forecast."""
    first, second, third = tasks()
    interval, reuse = GuidanceInterval(0.2, 0.7), StepReuse(2)
    return [
        replace(first, sampling=replace(first.sampling, guidance_interval=interval)),
        replace(second, sampling=replace(second.sampling, steps=10, step_reuse=reuse)),
        third,
    ]


def image_of(events: list) -> bytes:
    return next(event.image.data for event in events if isinstance(event, ImageReady))


def largest_batch(events: list) -> int:
    return next(event.largest_batch for event in events if isinstance(event, Finished))


@pytest.fixture
def gathered(monkeypatch):
    """A function after which the first call waits until three jobs are prepared, so that they meet."""

    def gather() -> None:
        all_there, count = threading.Event(), itertools.count(1)
        prepare, predict = LocalRunner.prepare, LocalRunner.predict

        def counted(runner, job):
            done = prepare(runner, job)
            if next(count) == len(PROMPTS):
                all_there.set()
            return done

        def waiting(runner, jobs, max_rows):
            assert all_there.wait(120)
            return predict(runner, jobs, max_rows)

        monkeypatch.setattr(LocalRunner, "prepare", counted)
        monkeypatch.setattr(LocalRunner, "predict", waiting)

    return gather


@pytest.mark.parametrize("asked", [tasks(), less_work()], ids=["whole", "less work"])
async def test_batched_pictures_agree_within_the_stated_tolerance(gathered, asked):
    """Trained weights, other schedulers side by side: within 2 of 255, and alone the bytes repeat."""
    async with embedded_engine(max_rows_per_call=8) as engine:
        alone = [image_of(await run(engine, one)) for one in asked]
        assert image_of(await run(engine, asked[0])) == alone[0]
        gathered()
        together = await asyncio.gather(*(run(engine, one) for one in asked))
    assert max(map(largest_batch, together)) > 1
    for events, expected in zip(together, alone, strict=True):
        assert np.abs(pixels(image_of(events)) - pixels(expected)).max() <= TOLERANCE


def distance(some: list[bytes], others: list[bytes]) -> float:
    """The root of the mean square of the differences between pictures, in steps of 255."""
    differences = [pixels(one) - pixels(other) for one, other in zip(some, others, strict=True)]
    return float(np.sqrt(np.square(differences).mean()))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
async def test_half_precision_agrees_within_its_own_rounding(dtype, gathered):
    """Batching moves pictures no more than another rounding does, and alone the bytes repeat."""
    small = [replace(one, width=64, height=64) for one in tasks()]
    async with embedded_engine() as engine:
        exact = [image_of(await run(engine, one)) for one in small]
    async with embedded_engine(dtype, max_rows_per_call=8) as engine:
        alone = [image_of(await run(engine, one)) for one in small]
        assert image_of(await run(engine, small[0])) == alone[0]
        gathered()
        together = await asyncio.gather(*(run(engine, one) for one in small))
    assert max(map(largest_batch, together)) > 1
    rounding = distance(alone, exact)
    assert 0 < rounding < 10
    assert distance([image_of(events) for events in together], alone) <= ROUNDINGS * rounding


@pytest.mark.parametrize("rows", [8, 1])
async def test_without_batching_the_bytes_are_equal(rows):
    """With --no-batching the same requests give the same bytes in company as alone."""
    async with embedded_engine(batching=False, max_rows_per_call=rows) as engine:
        alone = [image_of(await run(engine, one)) for one in less_work()]
        together = await asyncio.gather(*(run(engine, one) for one in less_work()))
    assert [image_of(events) for events in together] == alone
    assert {largest_batch(events) for events in together} == {1}
