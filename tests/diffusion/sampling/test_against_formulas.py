"""Every scheduler, spacing and prediction type against a second implementation in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sdgrpc.diffusion.sampling.step_spacing import Schedule
from sdgrpc.domain import (
    REFUSES_SAMPLE_PREDICTION,
    SUPPORTED_SPACINGS,
    SUPPORTED_TIMESTEP_SPACINGS,
    Scheduler,
    SigmaSpacing,
    TimestepSpacing,
)
from tests.support.float64.compared import Case, Reference, inputs, network, ours
from tests.support.models import SD15_SCHEDULER

STEPS = [1, 2, 4, 20]
TWICE = {Scheduler.HEUN, Scheduler.KDPM2, Scheduler.KDPM2_ANCESTRAL, Scheduler.PNDM}
MODELS: dict[str, dict[str, Any]] = {
    "epsilon": {"prediction_type": "epsilon"},
    "v": {"prediction_type": "v_prediction"},
    "v, zero SNR": {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True},
    "sample": {"prediction_type": "sample"},
}
# Relative to the latents' deviation. float32 keeps 6e-8; a level's share of signal, a product of up to 1000
# factors, is known to 1e-5, and a solver carries that on. Zero terminal SNR multiplies by 4096 at its first
# level, where diffusers' classes keep 2^-24 of signal: 4096 * 6e-8 = 2.4e-4 for each of some steps.
TOLERANCE, ZERO_SNR_TOLERANCE = 5e-4, 3e-3

SCHEDULES = [
    (scheduler, sigmas, timesteps)
    for scheduler in Scheduler
    for sigmas in SigmaSpacing
    for timesteps in (None, *TimestepSpacing)
    if timesteps is None or sigmas is SigmaSpacing.DEFAULT
]


def is_supported(scheduler: Scheduler, sigmas: SigmaSpacing, timesteps: TimestepSpacing | None) -> bool:
    taken = SUPPORTED_TIMESTEP_SPACINGS[scheduler] | {None}
    return sigmas in SUPPORTED_SPACINGS[scheduler] and timesteps in taken


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    ("scheduler", "sigmas", "timesteps"), [one for one in SCHEDULES if is_supported(*one)]
)
def test_formulas(
    scheduler: Scheduler, sigmas: SigmaSpacing, timesteps: TimestepSpacing | None, model: str, steps: int
) -> None:
    """From noise and from half of the way, latents and timesteps are those of the formulas."""
    if model == "sample" and scheduler in REFUSES_SAMPLE_PREDICTION:
        return
    config = SD15_SCHEDULER | MODELS[model]
    for step_count in {steps, (steps + 1) // 2}:
        case = Case(config, scheduler, Schedule(steps, sigmas, timesteps), step_count)
        run = ours(case)
        reference = Reference(case, run.visited)
        expected = reference.run()
        assert len(reference.differences) == len(run.visited)
        whole = sigmas is not SigmaSpacing.DEFAULT or timesteps is TimestepSpacing.ALIGN_YOUR_STEPS
        assert max(reference.differences) <= (1.0 if whole else 0.5), run.visited
        difference = np.abs(run.latents - expected).max() / expected.std()
        assert difference <= (ZERO_SNR_TOLERANCE if "zero" in model else TOLERANCE), run.visited


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("model", ["epsilon", "v", "v, zero SNR"])
@pytest.mark.parametrize(
    "scheduler", [Scheduler.DDIM, Scheduler.EULER_ANCESTRAL, Scheduler.KDPM2_ANCESTRAL, Scheduler.TCD]
)
def test_noise_that_steps_draw(scheduler: Scheduler, model: str, eta: float) -> None:
    """Eta, and TCD's gamma, from none to all, along trailing timesteps."""
    config = SD15_SCHEDULER | MODELS[model]
    case = Case(config, scheduler, Schedule(6, timesteps=TimestepSpacing.TRAILING, eta=eta), 6)
    run = ours(case)
    expected = Reference(case, run.visited).run()
    difference = np.abs(run.latents - expected).max() / expected.std()
    assert difference <= (ZERO_SNR_TOLERANCE if "zero" in model else TOLERANCE)


@pytest.mark.parametrize("scheduler", Scheduler)
def test_previews_of_zero_terminal_snr(scheduler: Scheduler) -> None:
    """The first preview is the clean sample that v stands for at pure noise: minus v."""
    config = SD15_SCHEDULER | MODELS["v, zero SNR"]
    case = Case(config, scheduler, Schedule(4, timesteps=TimestepSpacing.TRAILING), 4)
    run = ours(case)
    noise = inputs()[1].double().numpy()
    first = run.previews[0] if scheduler not in TWICE else None
    if first is not None:
        assert np.abs(first + network(noise, 999.0)).max() <= 2e-3
    assert all(np.isfinite(one).all() for one in run.previews)
