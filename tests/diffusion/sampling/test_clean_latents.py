"""The clean latents of previews: one formula for every scheduler and prediction type."""

from __future__ import annotations

import pytest
import torch

from sdgrpc.diffusion.model import Model
from sdgrpc.diffusion.sampling import schedulers
from sdgrpc.diffusion.sampling.clean_latents import CleanLatents
from sdgrpc.diffusion.sampling.step_spacing import Schedule
from sdgrpc.diffusion.sampling.training_sigmas import alphas_cumprod
from sdgrpc.domain import REFUSES_SAMPLE_PREDICTION, Scheduler, SigmaSpacing
from tests.support.models import SD15_SCHEDULER
from tests.support.tasks import draw, task


def true_prediction(kind: str, alpha: float, clean: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """What a perfect model says."""
    v = alpha**0.5 * noise - (1 - alpha) ** 0.5 * clean
    return {"epsilon": noise, "v_prediction": v, "sample": clean}[kind]


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("scheduler", [s for s in Scheduler if s is not Scheduler.PNDM])
def test_perfect_predictions_give_the_clean_latents(scheduler: Scheduler, kind: str) -> None:
    """What a scheduler noises and scales at any step is undone, so all scale their inputs alike."""
    if kind == "sample" and scheduler in REFUSES_SAMPLE_PREDICTION:
        return
    config = SD15_SCHEDULER | {"prediction_type": kind}
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 1, 4, 3, 3, generator=generator)
    clean_latents = CleanLatents(config)
    for begin in (0, 2, 4):
        built = schedulers.build(config, scheduler, Schedule(5, SigmaSpacing.DEFAULT))
        timestep = schedulers.denoising_timesteps(built, 5, 5 - begin)[0]
        noised = built.add_noise(clean, noise, timestep[None])
        sample = built.scale_model_input(noised, timestep)
        prediction = true_prediction(kind, clean_latents.alpha(float(timestep)), clean, noise)
        torch.testing.assert_close(
            clean_latents(sample, timestep, prediction), clean, rtol=0, atol=0.02, msg=f"{timestep}"
        )


def test_fractional_timesteps_interpolate() -> None:
    """Between two training steps alpha lies between theirs; beyond the ends it stays."""
    alphas = alphas_cumprod(SD15_SCHEDULER).tolist()
    clean_latents = CleanLatents(SD15_SCHEDULER)
    assert clean_latents.alpha(500.0) == pytest.approx(alphas[500], rel=1e-6)
    assert alphas[501] < clean_latents.alpha(500.5) < alphas[500]
    assert clean_latents.alpha(-1.0) == pytest.approx(alphas[0], rel=1e-6)
    assert clean_latents.alpha(2000.0) == pytest.approx(alphas[999], rel=1e-6)


def test_zero_terminal_snr_stays_finite() -> None:
    """A schedule that ends in pure noise has a finite preview at its first step."""
    config = SD15_SCHEDULER | {"rescale_betas_zero_snr": True, "prediction_type": "epsilon"}
    ones = torch.ones(1, 4, 2, 2)
    assert torch.isfinite(CleanLatents(config)(ones, 999.0, ones)).all()


def test_euler_and_ddim_predict_the_same(model: Model) -> None:
    """Two schedulers that keep latents in different scales agree on the clean latents of the first step."""
    first = {}
    for scheduler in (Scheduler.EULER, Scheduler.DDIM):
        steps: list = []
        # One timestep spacing for both, so that the first step is at the same noise.
        spaced = model.scheduler_config | {"timestep_spacing": "trailing"}
        original, model.scheduler_config = model.scheduler_config, spaced
        try:
            draw(model, task(scheduler=scheduler, steps=6), steps)
        finally:
            model.scheduler_config = original
        first[scheduler] = steps[0]
    assert first[Scheduler.EULER].timestep == first[Scheduler.DDIM].timestep == 999
    ours, theirs = (first[s].predict_clean() for s in (Scheduler.EULER, Scheduler.DDIM))
    assert (ours - theirs).abs().max() < 0.01 * theirs.std()


def test_the_last_prediction_is_the_result(model: Model) -> None:
    """Schedulers that end without noise end at the last predicted clean latents."""
    steps: list = []
    final = draw(model, task(scheduler=Scheduler.EULER), steps)
    assert (steps[-1].predict_clean() - final).abs().max() < 1e-3 * final.std()
