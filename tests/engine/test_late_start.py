"""Steps that run while the LoRA of the job is still being read."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace

import pytest

from sdgrpc.domain import Finished, ImageReady, LoraRef, Prepared, Progress, Scheduler
from sdgrpc.domain.phases import shown
from sdgrpc.errors import LoraMalformed, LoraNotFound
from sdgrpc.lora.dialects.adapt import read_adapter
from sdgrpc.parameters import read_parameters, text_of_picture
from tests.engine.test_local import ONE, TWO, images_of, run
from tests.support.tasks import task

STEPS, SHARE = 8, 0.5


def late(**changes):
    """Eight steps, of which four may run without."""
    return task(**({"steps": STEPS, "late_start": SHARE, "loras": (ONE,)} | changes))


class HeldFile:
    """Holds whoever reads a file until the test lets it go."""

    def __init__(self) -> None:
        self.reached, self.open = threading.Event(), threading.Event()


@pytest.fixture
def held(monkeypatch) -> HeldFile:
    gate = HeldFile()

    def gated(*arguments, **named):
        gate.reached.set()
        assert gate.open.wait(60)
        return read_adapter(*arguments, **named)

    monkeypatch.setattr("sdgrpc.lora.store.contents.read_adapter", gated)
    return gate


def image_of(events: list) -> bytes:
    (image,) = [event.image.data for event in events if isinstance(event, ImageReady)]
    return image


async def drawn_late(engine, held, asked, *, steps: int) -> list:
    """The events of a job whose file is read once that many of its steps are done."""
    events = []
    async for event in engine.submit(asked):
        events.append(event)
        if isinstance(event, Progress) and event.step == steps:
            held.open.set()
    return events


def explicit(asked, events: list):
    """The same request without `late_start`, from the steps that the report tells."""
    (prepared,) = [event for event in events if isinstance(event, Prepared)]
    loras = tuple(
        replace(ref, start=told.start) for ref, told in zip(asked.loras, prepared.loras, strict=True)
    )
    return replace(asked, loras=loras, sampling=replace(asked.sampling, late_start=0.0))


@pytest.mark.parametrize("steps", [1, 2, 4])
async def test_the_first_steps_run_without(open_tiny, held, steps: int) -> None:
    """The report comes with the first step that has it; asked for from there on, the bytes are the same."""
    async with open_tiny() as engine:
        events = await drawn_late(engine, held, late(), steps=steps)
        again = await run(engine, explicit(late(), events))
    kinds = [type(event) for event in events]
    (report,) = next(event for event in events if isinstance(event, Prepared)).loras
    first = report.steps[0].first
    assert steps < first <= STEPS * SHARE + 1
    assert report.steps[0].last == STEPS
    assert report.start == pytest.approx((first - 1) / STEPS)
    assert kinds.index(Prepared) == 1 + first - 1, "accepted, and the steps before"
    assert [event.step for event in events if isinstance(event, Progress)] == list(range(1, STEPS + 1))
    assert image_of(again) == image_of(events), "parameters included"


async def test_the_share_is_a_bound(open_tiny, held) -> None:
    """Four of eight steps run and the fifth waits, however long the file takes; others go on meanwhile."""
    async with open_tiny() as engine:
        other = engine.submit(task(steps=STEPS, seed=3))
        while not isinstance(await anext(other), Prepared):
            pass
        job = engine.submit(late())
        events = [await anext(job) for _ in range(1 + 4)]
        assert [event.step for event in events[1:]] == [1, 2, 3, 4]
        following = asyncio.ensure_future(anext(job))
        rest = [event async for event in other]
        assert isinstance(rest[-1], Finished)
        assert not following.done()
        held.open.set()
        prepared = await following
        assert isinstance(prepared, Prepared)
        assert shown(prepared.loras[0].steps) == "5 to 8"
        assert isinstance([event async for event in job][-1], Finished)


async def test_a_set_that_is_there_is_not_late(open_tiny) -> None:
    """Then the job is as any other: the report comes first, and all steps have the LoRA."""
    async with open_tiny() as engine:
        plain = await images_of(engine, late(late_start=0.0))
        events = await run(engine, late())
    assert [type(event) for event in events[1:3]] == [Prepared, Progress]
    assert shown(events[1].loras[0].steps) == "1 to 8"
    assert events[1].lora_set_cached
    assert image_of(events) == plain[0]


async def test_what_the_parameters_say(open_tiny, held) -> None:
    """The picture names the share from which the LoRA was there."""
    async with open_tiny() as engine:
        events = await drawn_late(engine, held, late(), steps=4)
    (lora,) = read_parameters(text_of_picture(image_of(events))).loras
    assert (lora.name, lora.start, lora.end) == ("one", 0.5, 1.0)


async def test_with_schedulers_of_two_evaluations_and_other_sets(open_tiny, held) -> None:
    """The set begins between steps, not within one; a later LoRA comes in its own time."""
    asked = late(scheduler=Scheduler.HEUN, loras=(replace(ONE, end=0.75), replace(TWO, start=0.75)))
    async with open_tiny() as engine:
        events = await drawn_late(engine, held, asked, steps=2)
        again = await run(engine, explicit(asked, events))
    (prepared,) = [event for event in events if isinstance(event, Prepared)]
    one, two = prepared.loras
    assert one.steps[0].first >= 3
    assert (one.steps[0].last, shown(two.steps), two.start) == (6, "7 to 8", 0.75)
    assert image_of(again) == image_of(events)


async def test_a_file_that_cannot_be_used(open_tiny, held, tmp_path) -> None:
    """The job fails although steps have run; the engine goes on."""
    (tmp_path / "bad.safetensors").write_bytes(b"no LoRA")
    async with open_tiny(loras=tmp_path) as engine:
        steps = []
        with pytest.raises(LoraMalformed):
            async for event in engine.submit(late(loras=(LoraRef(name="bad"),))):
                steps += [event.step] if isinstance(event, Progress) else []
                if steps == [1]:
                    held.open.set()
                assert not isinstance(event, Prepared)
        assert steps
        assert steps[-1] <= 4
        assert isinstance((await run(engine, task(steps=2)))[-1], Finished)


async def test_a_name_that_there_is_not(open_tiny) -> None:
    """It is told before the job is accepted, as ever."""
    async with open_tiny() as engine:
        with pytest.raises(LoraNotFound):
            await anext(engine.submit(late(loras=(LoraRef(name="nowhere"),))))


async def test_a_job_that_is_cancelled_before_its_set_is_there(open_tiny, held) -> None:
    """Nothing of it stays in use."""
    async with open_tiny() as engine:
        job = engine.submit(late())
        async for event in job:
            if isinstance(event, Progress) and event.step == 4:
                break
        await job.aclose()
        held.open.set()
        assert len(await images_of(engine, late())) == 1
        await asyncio.wait_for(engine.drain(), 60)
        assert not [one for one in engine.status().resident_sets if one.in_use]
