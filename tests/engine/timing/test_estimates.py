"""What a job will take, from what was measured."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sdgrpc.domain import GuidanceInterval, StepReuse, Task
from sdgrpc.engine.timing.estimates import ENOUGH, KEPT_CALLS, KEPT_SECONDS, REMEMBERED, Estimates
from tests.support.jobs import make_task


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def estimates(clock) -> Estimates:
    return Estimates(clock)


def measure(estimates: Estimates, seconds: float, rows: int = 1, times: int = ENOUGH, **task) -> None:
    for _ in range(times):
        estimates.called(make_task(**task), rows, seconds)


def sampled(**changes) -> Task:
    """Ten steps with another sampling."""
    task = make_task(steps=10)
    return replace(task, sampling=replace(task.sampling, **changes))


def test_an_unknown_size_has_no_estimate(estimates) -> None:
    """Nor one of which too few calls were seen, nor another size or model."""
    measure(estimates, 1.0, times=ENOUGH - 1)
    assert estimates.alone(make_task()) is None
    measure(estimates, 1.0)
    assert estimates.alone(make_task()) is not None
    assert estimates.alone(make_task(width=128)) is None
    assert estimates.alone(make_task(model="other")) is None


def test_steps_take_the_fastest_of_the_last_calls(estimates) -> None:
    """An outlier refuses nobody; a machine that became slow is noticed."""
    measure(estimates, 0.5)
    measure(estimates, 9.0)
    assert estimates.alone(make_task(steps=10)).steps == pytest.approx(5.0)
    measure(estimates, 2.0, times=KEPT_CALLS)
    assert estimates.alone(make_task(steps=10)).steps == pytest.approx(20.0)


def test_what_is_left_of_a_job(estimates) -> None:
    """Its last steps and its images; nothing is known to be left of another size."""
    measure(estimates, 0.5)
    for _ in range(ENOUGH):
        estimates.finished(make_task(), 2.0)
    assert estimates.left(make_task(steps=10), 4) == pytest.approx(4.0)
    assert estimates.left(make_task(steps=10), 0) == pytest.approx(2.0)
    assert estimates.left(make_task(steps=10, width=128), 4) == 0.0


def test_other_numbers_of_rows_are_in_proportion(estimates) -> None:
    """To the nearest that was measured."""
    measure(estimates, 1.0, rows=2)
    measure(estimates, 3.0, rows=8)
    assert estimates.alone(make_task(steps=1, image_count=4)).steps == pytest.approx(2.0)
    assert estimates.alone(make_task(steps=1, image_count=8)).steps == pytest.approx(3.0)


def test_work_that_is_left_out_counts_for_nothing(estimates) -> None:
    """Steps outside of the interval take half the rows, forecast ones none."""
    measure(estimates, 1.0, rows=1)
    measure(estimates, 3.0, rows=2)
    half = sampled(guidance_scale=2.0, guidance_interval=GuidanceInterval(0.2, 0.5))
    assert estimates.alone(half).steps == pytest.approx(3 * 3.0 + 7 * 1.0)
    assert estimates.share(half, 5) == pytest.approx(5.0)
    forecast = sampled(step_reuse=StepReuse(2))
    assert estimates.alone(forecast).steps == pytest.approx(7.0), "0, 1, 2, 4, 6, 8 and 9"


def test_images_are_decoded_one_by_one(estimates) -> None:
    """Each costs what one did at best; nothing where that is not known."""
    measure(estimates, 1.0)
    assert estimates.alone(make_task(steps=1)).images == 0
    for _ in range(ENOUGH):
        estimates.finished(make_task(image_count=2), 4.0)
    cost = estimates.alone(make_task(steps=1, image_count=3))
    assert cost.images == pytest.approx(6.0)
    assert cost.seconds == pytest.approx(9.0)


def test_a_share_is_that_of_the_best_call(estimates) -> None:
    """Jobs share calls, so what one costs the others is its rows in the fullest call."""
    measure(estimates, 1.0, rows=1)
    measure(estimates, 2.0, rows=8)
    assert estimates.share(make_task(image_count=2), 3) == pytest.approx(3 * 2 * 0.25)
    assert estimates.share(make_task(model="other"), 3) == 0


def test_what_is_old_is_forgotten(estimates, clock) -> None:
    """Refused jobs are not measured, so what refuses them must not hold for ever."""
    measure(estimates, 1.0)
    clock.now += KEPT_SECONDS + 1
    assert estimates.alone(make_task()) is None
    measure(estimates, 2.0)
    assert estimates.alone(make_task(steps=1)).steps == pytest.approx(2.0)


def test_what_is_remembered_is_bounded(estimates) -> None:
    """The size that was drawn longest ago is forgotten first."""
    for side in range(REMEMBERED + 1):
        measure(estimates, 1.0, width=8 * side)
    assert estimates.alone(make_task(width=0)) is None
    assert estimates.alone(make_task(width=8)) is not None
