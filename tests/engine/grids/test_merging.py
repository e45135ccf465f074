"""The events of a grid's pictures as those of one job."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sdgrpc.domain import (
    Accepted,
    EncodedImage,
    Finished,
    ImageReady,
    LoraRef,
    LoraReport,
    Prepared,
    Preview,
    Progress,
)
from sdgrpc.engine.grids.merging import Together, merged
from tests.support.tasks import task

GRID = ((0.0, 0.0), (0.5, 0.5), (1.0, 1.0))
STEPS = 2
ASKED = task(steps=STEPS, loras=(LoraRef(name="fixed"), LoraRef(name="led", strength_grid=GRID)))
PICTURE = EncodedImage(b"", "image/png", 8, 8)


def events_of(index: int) -> list:
    """What a picture's own job tells."""
    one = ASKED.pictures[index]
    reports = tuple(LoraReport(ref.name, "", (), {}, 0.0, ref.strength, ref.strength) for ref in one.loras)
    preview = (Preview(0, PICTURE),)
    return [
        Accepted(7 - index, one),
        Prepared(reports, f"set {index}", index > 0, 0.25),
        Progress(1, STEPS, 900.0, 1.0, 1.0, preview),
        Progress(2, STEPS, 100.0, 2.0, 0.0),
        ImageReady(0, 7, PICTURE),
        Finished(0.0, 0.1 * index, 0.2, 0.3, index + 1, STEPS),
    ]


def told(order: list[int]) -> list:
    """What is told where the pictures' events come in that order."""
    together, streams = Together(ASKED), [iter(events_of(index)) for index in range(len(GRID))]
    return [event for index in order for event in together.take(index, next(streams[index]))]


ORDERS = {
    "even": [0, 1, 2] * 6,
    "one by one": [0] * 6 + [1] * 6 + [2] * 6,
    "mixed": [2] * 6 + [1, 0] * 6,
}


@pytest.mark.parametrize("order", ORDERS.values(), ids=list(ORDERS))
def test_the_grammar_of_a_job(order: list[int]) -> None:
    """One of each, every step once and in order, every picture at its place with its strength."""
    seen = told(order)
    kinds = [type(event) for event in seen]
    assert kinds[:2] == [Accepted, Prepared]
    assert kinds[-1] is Finished
    assert (kinds.count(Accepted), kinds.count(Prepared), kinds.count(Finished)) == (1, 1, 1)
    assert [event.step for event in seen if isinstance(event, Progress)] == [1, 2]
    images = sorted((one for one in seen if isinstance(one, ImageReady)), key=lambda one: one.index)
    assert [(one.index, one.lora_strength) for one in images] == [(0, 0.0), (1, 0.5), (2, 1.0)]
    assert (seen[0].queue_position, seen[0].task) == (5, ASKED)
    assert (seen[-1].largest_batch, seen[-1].unet_calls) == (3, 3 * STEPS)


def test_the_report_has_each_strength() -> None:
    """The LoRA that is led once for each picture, at its place; the other one once."""
    prepared = told([0, 1, 2] * 6)[1]
    assert [(one.name, one.strength) for one in prepared.loras] == [
        ("fixed", 1.0),
        ("led", 0.0),
        ("led", 0.5),
        ("led", 1.0),
    ]
    assert (prepared.lora_set_id, prepared.lora_set_cached, prepared.fuse_seconds) == ("set 0", False, 0.75)


def test_previews_are_of_their_pictures() -> None:
    """Those that came since the step before, by the place of the picture."""
    first = next(event for event in told([0, 1, 2] * 6) if isinstance(event, Progress))
    assert [one.image_index for one in first.previews] == [0, 1, 2]


async def test_a_failure_ends_all() -> None:
    """The others' streams are closed, and their ends have been reached."""
    closed = []

    async def stream(index: int):
        try:
            for event in events_of(index)[:3]:
                yield event
            if index == 1:
                raise ValueError("one")
            yield events_of(index)[3]
        finally:
            closed.append(index)

    with pytest.raises(ValueError, match="one"):
        async for _ in merged(ASKED, [stream(index) for index in range(3)]):
            pass
    assert sorted(closed) == [0, 1, 2]


async def test_closing_closes_all() -> None:
    """A reader that leaves after the first event leaves every picture's stream."""
    closed = []

    async def stream(index: int):
        try:
            for event in events_of(index):
                yield event
        finally:
            closed.append(index)

    events = merged(ASKED, [stream(index) for index in range(3)])
    await anext(events)
    await events.aclose()
    assert sorted(closed) == [0, 1, 2]


def test_the_pictures_as_tasks() -> None:
    """Of one image and one seed each, at one pair of strengths; without a grid the task is its own."""
    pictures = ASKED.pictures
    assert [one.loras[1].strength for one in pictures] == [0.0, 0.5, 1.0]
    assert {(one.sampling.image_count, one.sampling.seed, one.grid) for one in pictures} == {(1, 7, ())}
    plain = replace(ASKED, loras=())
    assert plain.pictures == (plain,)
