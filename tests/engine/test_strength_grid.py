"""Pictures of one seed that differ in one LoRA's strength, in one job."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sdgrpc.domain import (
    Finished,
    ImageReady,
    Output,
    Prepared,
    PreviewKind,
    PreviewOptions,
    Progress,
    TaskKind,
)
from sdgrpc.errors import QueueFull
from sdgrpc.lora.dialects.adapt import read_adapter
from tests.engine.test_local import ONE, TWO, images_of, run
from tests.support.tasks import task

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
STEPS = 3
PAIRS = tuple((strength, strength) for strength in STRENGTHS)


def grid(kind: TaskKind = TaskKind.GENERATE, pairs=PAIRS, **changes):
    led = replace(ONE, strength_grid=pairs)
    return task(kind, **({"steps": STEPS, "loras": (led, TWO), "image_count": len(pairs)} | changes))


def images_in(events: list) -> list[ImageReady]:
    return sorted((event for event in events if isinstance(event, ImageReady)), key=lambda one: one.index)


@pytest.mark.parametrize("kind", list(TaskKind))
async def test_equal_to_five_requests(open_tiny, monkeypatch, kind: TaskKind) -> None:
    """To the byte, parameters included; each LoRA's file is read and parsed once."""
    reads = []

    def counted(source, name, *rest, **named):
        reads.append(name)
        return read_adapter(source, name, *rest, **named)

    monkeypatch.setattr("sdgrpc.lora.store.contents.read_adapter", counted)
    async with open_tiny(batching=False) as engine:
        events = await run(engine, grid(kind))
        read = sorted(reads)
        alone = [await images_of(engine, one) for one in grid(kind).pictures]
    images = images_in(events)
    assert [(one.index, one.seed, one.lora_strength) for one in images] == [
        (index, 7, strength) for index, strength in enumerate(STRENGTHS)
    ]
    assert [[one.image.data] for one in images] == alone
    assert len({one.image.data for one in images}) == len(STRENGTHS)
    assert read == ["one", "two"]
    steps = [event.step for event in events if isinstance(event, Progress)]
    assert steps == list(range(1, len(steps) + 1))


async def test_the_text_encoder_may_keep_its_strength(open_tiny) -> None:
    """Then the prompt is encoded once for all pictures."""
    pairs = tuple((one, 0.5) for one in STRENGTHS)
    async with open_tiny() as engine:
        events = await run(engine, grid(pairs=pairs))
        kept = engine.status().prompts
        await run(engine, grid())
        more = engine.status().prompts
    reports = next(event for event in events if isinstance(event, Prepared)).loras
    assert [(one.strength, one.text_encoder_strength) for one in reports[:5]] == list(pairs)
    assert kept == 2, "the prompt and the negative one"
    assert more == 2 + 2 * (len(STRENGTHS) - 1), "where the text encoder is led too all but one are others"


async def test_previews_and_the_end(open_tiny) -> None:
    """Previews are of every picture, and the calls of all are counted."""
    output = Output(preview=PreviewOptions(PreviewKind.PICTURE))
    async with open_tiny() as engine:
        events = await run(engine, grid(output=output))
    shown = {one.image_index for event in events if isinstance(event, Progress) for one in event.previews}
    assert shown <= set(range(5))
    assert shown
    assert isinstance(events[-1], Finished)
    assert events[-1].unet_calls == STEPS * len(STRENGTHS)


async def test_a_grid_that_does_not_fit_the_queue(open_tiny) -> None:
    """It is refused as a whole, and leaves nothing behind."""
    async with open_tiny(queue_size=2, max_running_jobs=1) as engine:
        with pytest.raises(QueueFull):
            await run(engine, grid(steps=30))
        assert len(await images_of(engine, task(steps=1))) == 1
        await engine.drain()
        assert not [one for one in engine.status().resident_sets if one.in_use]


async def test_cancelling_ends_every_picture(open_tiny) -> None:
    """Nothing of them runs on."""
    async with open_tiny() as engine:
        stream = engine.submit(grid(steps=40))
        async for event in stream:
            if isinstance(event, Progress):
                break
        await stream.aclose()
        assert len(await images_of(engine, task(steps=1))) == 1
        await engine.drain()
        assert engine.status().running == 0


async def test_the_plan(open_tiny) -> None:
    """It is that of all pictures together."""
    async with open_tiny() as engine:
        plan = await engine.plan(grid())
        events = await run(engine, grid())
        held = engine.status().lora_set_bytes
    prepared = next(event for event in events if isinstance(event, Prepared))
    assert [(one.name, one.strength) for one in plan.loras] == [
        (one.name, one.strength) for one in prepared.loras
    ]
    assert plan.unet_steps == STEPS * len(STRENGTHS)
    assert plan.memory_bytes == held
