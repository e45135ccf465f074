"""Predictions that are forecast: which, by which formula, and what of them reaches the picture."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from sdgrpc.diffusion.model import Model
from sdgrpc.diffusion.prompts.conditioning import encode
from sdgrpc.diffusion.sampling.denoise import StepResult
from sdgrpc.diffusion.sampling.forecasting import Forecaster, weights
from sdgrpc.diffusion.sampling.start import prepare
from sdgrpc.domain import REFUSES_REUSE, GuidanceInterval, Scheduler, StepReuse
from tests.support.tasks import task

USED = sorted(set(Scheduler) - REFUSES_REUSE, key=list(Scheduler).index)


def asked_at(reuse: StepReuse, count: int) -> list[int]:
    return [step for step in range(count) if reuse.asks(step, count)]


def test_what_is_exact() -> None:
    """The first two steps, every second or third, the last."""
    assert asked_at(StepReuse(2), 20) == [0, 1, 2, 4, 6, 8, 10, 12, 14, 16, 18, 19]
    assert asked_at(StepReuse(3), 20) == [0, 1, 3, 6, 9, 12, 15, 18, 19]
    assert asked_at(StepReuse(8), 1) == [0]


@pytest.mark.parametrize("order", [1, 2])
def test_a_polynomial_is_forecast_exactly(order: int) -> None:
    """Of its own degree, at any distance, from the last points that are needed."""

    def value(timestep: float) -> torch.Tensor:
        return torch.tensor([3.0 + sum(timestep**power / 7 for power in range(1, order + 1))])

    forecaster = Forecaster(StepReuse(2, order), 20)
    forecaster.asks(0, 1.0)
    forecaster.note(9.0, torch.tensor([1000.0]))
    for timestep in (5.0, 4.0, 1.0):
        forecaster.note(timestep, value(timestep))
    torch.testing.assert_close(forecaster.forecast(-2.0), value(-2.0))


def test_weights_are_lagranges() -> None:
    """One where a point is known, and one in all."""
    assert weights([3.0], 8.0) == [1.0]
    assert weights([4.0, 2.0], 2.0) == [0.0, 1.0]
    assert weights([4.0, 2.0], 0.0) == [-1.0, 2.0]
    assert weights([3.0, 2.0, 1.0], 0.0) == [1.0, -3.0, 3.0]


def test_a_timestep_that_is_visited_twice_counts_once() -> None:
    """The later prediction is kept."""
    forecaster = Forecaster(StepReuse(2), 20)
    forecaster.asks(0, 1.0)
    for timestep, prediction in ((9.0, 0.0), (8.0, 5.0), (8.0, 1.0)):
        forecaster.note(timestep, torch.tensor(prediction))
    assert float(forecaster.forecast(7.0)) == 2.0
    assert float(forecaster.forecast(8.0)) == 1.0


def run(model: Model, asked, field: Callable[[float], float]) -> tuple[int, list[StepResult], torch.Tensor]:
    """Run a task with predictions that depend on the timestep alone; how many were asked for."""
    steps: list[StepResult] = []
    job = prepare(model, asked, encode(model, "a cat", ""), steps.append)
    calls, prediction = 0, None
    while True:
        try:
            wanted = job.send(prediction)
        except StopIteration as stop:
            return calls, steps, stop.value
        calls += 1
        prediction = torch.full_like(wanted.sample, field(float(wanted.timestep)))


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("scheduler", USED)
def test_every_scheduler_takes_forecasts(model: Model, scheduler: Scheduler, order: int) -> None:
    """Where the predictions lie on a line the picture is that of all calls, by about half as many.

    But for rounding: points of a parabola that lie close together have large weights.
    """

    def field(timestep: float) -> float:
        return 0.2 + timestep / 2000

    whole = task(scheduler=scheduler, steps=12)
    calls, _, expected = run(model, whole, field)
    asked = task(scheduler=scheduler, steps=12, step_reuse=StepReuse(2, order))
    fewer, steps, latents = run(model, asked, field)
    assert fewer < 0.7 * calls
    assert [one.step for one in steps] == list(range(1, 13))
    torch.testing.assert_close(latents, expected, rtol=1e-3, atol=1e-3 if order == 1 else 0.05)
    assert all(torch.isfinite(one.predict_clean()).all() for one in steps)


def test_forecasts_stay_on_their_side_of_an_intervals_ends(model: Model) -> None:
    """Two exact predictions follow each end, and what lay before it is forgotten."""
    asked = task(steps=20, step_reuse=StepReuse(4), guidance_interval=GuidanceInterval(0.25, 0.75))
    job = prepare(model, asked, encode(model, "a cat", ""), lambda _: None)
    seen, prediction = [], None
    scale = asked.sampling.guidance_scale
    timesteps = [950 - 50 * step + 1 for step in range(20)]
    while True:
        try:
            wanted = job.send(prediction)
        except StopIteration:
            break
        seen.append((timesteps.index(int(wanted.timestep)), wanted.guidance_scale == scale))
        prediction = torch.full_like(wanted.sample, 0.1)
    assert [step for step, _ in seen] == [0, 1, 4, 5, 6, 8, 12, 15, 16, 19]
    assert [step for step, guided in seen if guided] == [5, 6, 8, 12]


def test_nothing_is_forecast_unless_it_is_asked_for(model: Model) -> None:
    """The default asks for every prediction."""
    assert run(model, task(steps=12), lambda _: 0.1)[0] == 12
