"""Second passes through the engine: their steps, calls, threads and ends."""

from __future__ import annotations

import asyncio
import io
from unittest.mock import Mock

import pytest
from PIL import Image

from sdgrpc.domain import (
    Accepted,
    Finished,
    ImageReady,
    Output,
    Prepared,
    PreviewKind,
    PreviewOptions,
    Progress,
    ResizeMode,
    SecondPass,
    SecondPassMode,
    TaskKind,
)
from sdgrpc.engine.job import Job
from sdgrpc.engine.stream import EventStream
from sdgrpc.engine.supervision.runner import UPSCALING_PATIENCE, _following
from sdgrpc.engine.timing.estimates import ENOUGH, Estimates
from sdgrpc.engine.timing.rows import rows_of_steps
from sdgrpc.images import decode
from tests.engine.test_local import ONE, run
from tests.engine.test_loop import Gate, events, harness
from tests.support.jobs import FakeRunner, make_task
from tests.support.tasks import task

BARE = Output(omit_metadata=True)
SECOND = SecondPass(width=96, height=64, strength=0.5, steps=4)
PIXEL = SecondPass(width=96, height=64, strength=0.5, steps=4, mode=SecondPassMode.PIXEL)


def image_of(seen: list) -> Image.Image:
    return Image.open(io.BytesIO(next(event.image.data for event in seen if isinstance(event, ImageReady))))


@pytest.mark.parametrize("second", [SECOND, PIXEL])
async def test_progress_goes_over_both_passes(open_tiny, second) -> None:
    """Steps are counted on; each tells its pass, whose size previews have. The picture has the second."""
    preview = PreviewOptions(PreviewKind.PICTURE)
    asked = task(steps=3, second_pass=second, output=Output(preview=preview))
    async with open_tiny() as engine:
        seen = [event async for event in engine.submit(asked)]
    steps = [event for event in seen if isinstance(event, Progress)]
    assert isinstance(seen[0], Accepted)
    assert [(one.step, one.step_count, one.pass_number) for one in steps] == [
        (1, 5, 1),
        (2, 5, 1),
        (3, 5, 1),
        (4, 5, 2),
        (5, 5, 2),
    ]
    for one in steps:
        for shown in one.previews:
            size = Image.open(io.BytesIO(shown.content.data)).size
            assert size == ((8, 8) if one.pass_number == 1 else (12, 8))
    assert steps[-1].previews == ()
    assert image_of(seen).size == (96, 64)
    assert next(event.unet_calls for event in seen if isinstance(event, Finished)) == 5


async def test_a_lora_holds_for_both_passes(open_tiny) -> None:
    """The whole is the Transform of the first picture, with the same set, to the bit."""
    async with open_tiny() as engine:
        both = image_of(await run(engine, task(loras=(ONE,), second_pass=PIXEL, output=BARE)))
        first = await run(engine, task(loras=(ONE,), output=BARE))
        data = next(event.image.data for event in first if isinstance(event, ImageReady))
        again = task(
            TaskKind.TRANSFORM,
            loras=(ONE,),
            image=decode(data),
            output=BARE,
            width=96,
            height=64,
            strength=0.5,
            steps=4,
            resize_mode=ResizeMode.CROP,
        )
        assert both.tobytes() == image_of(await run(engine, again)).tobytes()
        assert both.tobytes() != image_of(await run(engine, task(second_pass=PIXEL, output=BARE))).tobytes()


async def test_passes_share_calls_with_jobs_of_their_size(open_tiny) -> None:
    """Two that go the same way share every call of both sizes."""
    asked = task(second_pass=SECOND, output=BARE)
    async with open_tiny() as engine:
        alone = image_of(await run(engine, asked))
        together = await asyncio.gather(*(run(engine, asked) for _ in range(2)))
    assert {next(one.largest_batch for one in seen if isinstance(one, Finished)) for seen in together} == {2}
    for seen in together:
        difference = [abs(a - b) for a, b in zip(alone.tobytes(), image_of(seen).tobytes(), strict=True)]
        assert max(difference) <= 2  # sums in another order, as in every shared call


@pytest.mark.parametrize("last", range(1, 6))
async def test_it_can_be_cancelled_at_each_step(open_tiny, last: int) -> None:
    """A reader that goes leaves nothing behind, in whichever pass, and the engine draws on."""
    async with open_tiny() as engine:
        stream = engine.submit(task(steps=3, second_pass=PIXEL))
        async for event in stream:
            if isinstance(event, Progress) and event.step == last:
                break
        await stream.aclose()
        await run(engine, task(steps=1))
        status = engine.status()
        assert (status.running, status.queued, status.jobs_finished) == (0, 0, 1)


async def test_a_job_between_passes_holds_up_no_steps() -> None:
    """What comes between is a finishing thread's; others step meanwhile, and a cancelled one ends there."""
    gate = Gate()
    with harness(FakeRunner(before_follow=gate)) as h:
        job = h.submit(steps=2, second_pass=SecondPass(width=128, height=128, strength=0.5, steps=4))
        await gate.wait()
        assert [type(one) for one in await events(h.submit(steps=5))][-1] is Finished
        h.loop.cancel(job)
        gate.open.set()
        assert [type(one) for one in await events(job)] == [Prepared, Progress, Progress]
        assert job.job_id in h.runner.released
        assert "follow: sdgrpc-finish" in {name.rsplit("_", 1)[0] for name in h.runner.threads}


async def test_no_steps_in_the_second_pass_go_straight_to_the_images() -> None:
    """With strength 0 the job is finished after the first pass' steps."""
    with harness() as h:
        job = h.submit(steps=2, second_pass=SecondPass(width=128, height=128, strength=0, steps=4))
        assert [type(one) for one in await events(job)] == [Prepared, *[Progress] * 2, ImageReady, Finished]


def test_remaining_time_weighs_steps_by_pixels() -> None:
    """Steps of four times the pixels take four times as long, as far as it is guessed."""
    now = [0.0]
    second = SecondPass(width=128, height=128, strength=1.0, steps=2)
    stream: list = []

    class Stream:
        previews_dropped = 0

        def put(self, event, _render=None) -> None:
            stream.append(event)

    job = Job(0, make_task(steps=2, second_pass=second), Stream(), clock=lambda: now[0])
    job.times.stepping, now[0] = 1.0, 3.0
    job.progress(2, 4, 0.0, tuple)
    assert stream[0].remaining_seconds == pytest.approx(2.0 * 8 / 2)
    job.pass_index, now[0] = 1, 11.0
    job.progress(3, 4, 0.0, tuple)
    assert (stream[1].remaining_seconds, stream[1].pass_number) == (pytest.approx(10.0 * 4 / 6), 2)


def test_estimates_know_both_sizes() -> None:
    """The cost is that of either size's steps; unknown while one of them is."""
    estimates = Estimates()
    both = make_task(steps=10, second_pass=SecondPass(width=128, height=128, strength=0.5, steps=8))
    first, second = both.passes
    for _ in range(ENOUGH):
        estimates.called(first, 1, 0.5, 100)
    assert estimates.alone(both) is None
    for _ in range(ENOUGH):
        estimates.called(second, 1, 2.0, 900)
        estimates.finished(both, 3.0)
    cost = estimates.alone(both)
    assert cost is not None
    assert (cost.steps, cost.images) == (pytest.approx(10 * 0.5 + 4 * 2.0), pytest.approx(3.0))
    assert estimates.left(both, 5) == pytest.approx(0.5 + 8.0 + 3.0)
    assert estimates.share(both, 1) == pytest.approx(2.0)
    assert estimates.step_bytes(both) == 900
    assert rows_of_steps(both) == [1] * 14


def test_tiles_between_passes_are_waited_for() -> None:
    """A large network takes minutes a tile on a CPU, which is no hang; without one nothing changes."""
    size = {"width": 128, "height": 128, "steps": 4}
    jobs = [
        Job(0, make_task(second_pass=SecondPass(**size, upscaler=name)), EventStream(Mock()))
        for name in ("", "x")
    ]
    plain, tiled = map(_following, jobs)
    assert (plain.patience, tiled.patience) == (1.0, UPSCALING_PATIENCE)
    assert plain.verb != tiled.verb
