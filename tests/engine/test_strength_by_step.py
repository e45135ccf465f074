"""Jobs whose steps go through LoRA sets, side by side with others in the engine."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace

import numpy as np
import pytest

from sdgrpc.domain import (
    Finished,
    ImageReady,
    Output,
    Prepared,
    PreviewKind,
    PreviewOptions,
    Progress,
    SecondPass,
    SecondPassMode,
    TaskKind,
)
from sdgrpc.domain.phases import shown
from sdgrpc.errors import LoraMalformed
from sdgrpc.lora.fusing.cache import FusedSets
from tests.engine.test_local import ONE, TWO, images_of, pixels, run
from tests.support.tasks import pixels_of, task

EARLY, LATER = replace(ONE, end=0.5), replace(TWO, start=0.5)
STEPS = 8


def by_step(**changes):
    """Eight steps, of which the first four have one LoRA and the last four another."""
    return task(steps=STEPS, **({"loras": (EARLY, LATER)} | changes))


class Held:
    """Holds the making of the second set until the test lets it go, or has it fail."""

    def __init__(self) -> None:
        self.reached, self.open = threading.Event(), threading.Event()
        self.error: Exception | None = None

    async def wait(self) -> None:
        assert await asyncio.to_thread(self.reached.wait, 60)


@pytest.fixture
def held(monkeypatch) -> Held:
    acquire, gate = FusedSets.acquire, Held()

    def gated(sets, members):
        if [ref.name for _, ref in members] == [TWO.name]:
            gate.reached.set()
            assert gate.open.wait(60)
            if gate.error is not None:
                raise gate.error
        return acquire(sets, members)

    monkeypatch.setattr(FusedSets, "acquire", gated)
    return gate


def image_of(events: list) -> bytes:
    (image,) = [event.image.data for event in events if isinstance(event, ImageReady)]
    return image


async def test_the_events_and_the_report(open_tiny) -> None:
    """One `prepared` tells of both files and their steps; the steps follow without a gap."""
    async with open_tiny() as engine:
        events = await run(engine, by_step())
        status = engine.status()
    (prepared,) = [event for event in events if isinstance(event, Prepared)]
    assert [(one.name, shown(one.steps)) for one in prepared.loras] == [("one", "1 to 4"), ("two", "5 to 8")]
    assert [event.step for event in events if isinstance(event, Progress)] == list(range(1, STEPS + 1))
    assert len(status.resident_sets) == 2
    assert not [one for one in status.resident_sets if one.in_use]


async def test_steps_go_on_while_a_set_is_made(open_tiny, held) -> None:
    """A job that was prepared before is drawn to its end although the preparing thread is held."""
    async with open_tiny() as engine:
        other = engine.submit(task(steps=STEPS, seed=3))
        while not isinstance(await anext(other), Prepared):
            pass
        waiting = asyncio.create_task(run(engine, by_step()))
        await held.wait()
        rest = [event async for event in other]
        assert isinstance(rest[-1], Finished)
        assert not waiting.done()
        held.open.set()
        assert isinstance((await waiting)[-1], Finished)


async def test_jobs_share_the_calls_of_steps_with_one_set(open_tiny) -> None:
    """Two jobs at the same phases, and one that has the first set alone; each has its picture of alone."""
    asked = [by_step(seed=1), by_step(seed=2), task(steps=STEPS, seed=3, loras=(replace(EARLY, end=1.0),))]
    async with open_tiny(max_rows_per_call=8) as engine:
        alone = [await images_of(engine, one) for one in asked]
        together = await asyncio.gather(*(run(engine, one) for one in asked))
    assert max(events[-1].largest_batch for events in together) > 1
    for events, (expected,) in zip(together, alone, strict=True):
        assert np.abs(pixels(image_of(events)) - pixels(expected)).max() <= 2
    assert len({data for (data,) in alone}) == len(asked)


@pytest.mark.parametrize("capacity", [0, 64 << 20])
async def test_a_set_in_use_is_not_evicted(open_tiny, capacity: int) -> None:
    """Where there is room for none, the sets of jobs side by side stay until their phases end."""
    asked = [by_step(seed=1), by_step(seed=2, loras=(replace(TWO, end=0.5), replace(ONE, start=0.5)))]
    async with open_tiny() as engine:
        expected = [await images_of(engine, one) for one in asked]
    async with open_tiny(lora_cache_bytes=capacity) as engine:
        together = await asyncio.gather(*(run(engine, one) for one in asked))
        status = engine.status()
    for events, (alone,) in zip(together, expected, strict=True):
        assert np.abs(pixels(image_of(events)) - pixels(alone)).max() <= 2
    assert not [one for one in status.resident_sets if one.in_use]
    assert bool(status.resident_sets) is bool(capacity)


async def test_a_job_that_is_cancelled_while_its_set_is_made(open_tiny, held) -> None:
    """It ends once the set is made, gives both sets back, and the engine goes on."""
    async with open_tiny() as engine:
        stream = engine.submit(by_step())
        async for event in stream:
            if isinstance(event, Progress) and event.step == 4:
                break
        await held.wait()
        await stream.aclose()
        held.open.set()
        assert len(await images_of(engine, by_step())) == 1
        await asyncio.wait_for(engine.drain(), 60)
        status = engine.status()
        assert (status.running, status.queued) == (0, 0)
        assert not [one for one in status.resident_sets if one.in_use]


async def test_a_later_set_that_fails_ends_its_job_alone(open_tiny, held) -> None:
    """With the failure of the file, after the steps that had another; the next job is drawn."""
    held.error = LoraMalformed("two", "it broke")
    async with open_tiny() as engine:
        other = asyncio.create_task(run(engine, task(steps=STEPS, loras=(ONE,))))
        steps = []
        with pytest.raises(LoraMalformed, match="it broke"):
            async for event in engine.submit(by_step()):
                if isinstance(event, Progress):
                    steps.append(event.step)
                if steps == [1]:
                    held.open.set()
        assert len(steps) <= 4
        assert isinstance((await other)[-1], Finished)
        held.error = None
        assert len(await images_of(engine, by_step())) == 1


async def test_a_bad_file_is_told_before_the_first_step(open_tiny, lora_dir, tmp_path) -> None:
    """Though only the last steps have it."""
    (tmp_path / "one.safetensors").write_bytes((lora_dir / "one.safetensors").read_bytes())
    (tmp_path / "two.safetensors").write_bytes(b"no LoRA")
    async with open_tiny(loras=tmp_path) as engine:
        with pytest.raises(LoraMalformed):
            async for event in engine.submit(by_step()):
                assert not isinstance(event, Prepared | Progress)


async def test_inpainting_keeps_what_is_not_masked(open_tiny) -> None:
    """Over the change of sets too."""
    asked = replace(task(TaskKind.INPAINT, steps=STEPS), loras=(EARLY, LATER))
    async with open_tiny() as engine:
        (image,) = await images_of(engine, asked)
    kept = pixels_of(asked.mask)[..., 0] == 0
    assert (pixels(image)[kept] == pixels_of(asked.image)[kept]).all()


async def test_previews(open_tiny) -> None:
    """Each step has its event, and some their preview, over the change of sets."""
    output = Output(preview=PreviewOptions(PreviewKind.PICTURE))
    async with open_tiny() as engine:
        events = [event async for event in engine.submit(by_step(output=output))]
    steps = [event for event in events if isinstance(event, Progress)]
    assert [event.step for event in steps] == list(range(1, STEPS + 1))
    assert any(event.previews for event in steps)


async def test_the_same_request_gives_the_same_bytes(open_tiny) -> None:
    """Whether the sets are there already or not; and without batching."""
    async with open_tiny() as engine:
        first = await images_of(engine, by_step())
        assert await images_of(engine, by_step()) == first
    async with open_tiny(batching=False) as engine:
        assert await images_of(engine, by_step()) == first


@pytest.mark.parametrize("mode", list(SecondPassMode))
async def test_two_passes_have_the_sets_of_their_own_schedules(open_tiny, mode: SecondPassMode) -> None:
    """The second pass here runs the last half of its schedule, which has the second LoRA alone."""
    second = SecondPass(width=96, height=96, strength=0.5, steps=8, mode=mode)
    plain = task(steps=4, width=64, height=64, second_pass=second)
    by_half = replace(plain, loras=(replace(ONE, end=0.5), replace(TWO, start=0.5)))
    async with open_tiny() as engine:
        events = await run(engine, by_half)
        assert await images_of(engine, by_half) == [image_of(events)]
        others = [await images_of(engine, replace(plain, loras=loras)) for loras in ((ONE,), (TWO,), ())]
    (prepared,) = [event for event in events if isinstance(event, Prepared)]
    assert [shown(one.steps) for one in prepared.loras] == ["1 to 2", "3 to 8"]
    assert [event.step for event in events if isinstance(event, Progress)] == list(range(1, 9))
    assert [image_of(events)] not in others
