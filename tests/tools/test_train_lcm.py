"""The distillation's parts: the consistency function, the solver's timesteps and ends, what the file says."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from sdgrpc.domain import Scheduler
from sdgrpc.lora.headers.made_for import made_for
from tools.tiny_model import train_lcm
from tools.tiny_model.models import make_scheduler

POINT = torch.linspace(-1, 1, 4 * 16 * 16).reshape(1, 4, 16, 16)


def to_point(noisy: torch.Tensor, t: torch.Tensor, _texts: torch.Tensor, **_: bool) -> tuple[torch.Tensor]:
    """The exact velocity where all data is one point: every ODE path ends there."""
    alpha = make_scheduler().alphas_cumprod[int(t)]
    noise = (noisy - alpha.sqrt() * POINT) / (1 - alpha).sqrt()
    return (alpha.sqrt() * noise - (1 - alpha).sqrt() * POINT,)


@pytest.mark.parametrize("which", range(train_lcm.STEPS))
def test_the_consistency_function_is_the_schedulers(which: int) -> None:
    """What is trained is what `LCMScheduler.step` calls denoised, at each of its timesteps."""
    scheduler = train_lcm.make_lcm_scheduler()
    t = scheduler.timesteps[which]
    generator = torch.Generator().manual_seed(which)
    noisy, velocity = (torch.randn((2, 4, 16, 16), generator=generator) for _ in range(2))
    predict = train_lcm.predictor(lambda *_, **__: (velocity,), scheduler)
    expected = scheduler.step(velocity, t, noisy, generator=generator).denoised
    torch.testing.assert_close(predict(noisy, int(t), torch.empty(0)), expected)


@pytest.mark.parametrize("which", range(train_lcm.STEPS))
def test_the_solver_begins_where_the_scheduler_is_and_falls(which: int) -> None:
    """From each of the four timesteps on, through all later ones, each once."""
    timesteps = [int(t) for t in train_lcm.make_lcm_scheduler().timesteps]
    steps = train_lcm.solver_timesteps(which, timesteps)
    assert steps[0] == timesteps[which]
    assert all(after < before for before, after in pairwise(steps))
    assert set(timesteps[which:]) <= set(steps)


def test_the_solver_finds_the_only_point_of_the_data() -> None:
    """Where all paths end in one point, chains of noise end there from each timestep; float32 rounds."""
    features = torch.zeros(4, 77, 128)
    pairs = train_lcm.gather(to_point, None, features, torch.Generator().manual_seed(3))
    assert pairs.which.bincount().tolist() == [3] * train_lcm.STEPS
    assert sorted(set(pairs.captions.tolist())) == [1, 2, 3]
    torch.testing.assert_close(pairs.ends, POINT.expand_as(pairs.ends), atol=2e-3, rtol=0)


def test_the_distance_is_zero_only_at_the_end() -> None:
    """Nothing where both are one; almost the absolute difference where they lie far apart."""
    ends = torch.zeros(2, 4, 16, 16)
    assert train_lcm.distance(ends, ends).item() == pytest.approx(0, abs=1e-7)
    assert train_lcm.distance(ends + 10, ends).item() == pytest.approx(10 - train_lcm.HUBER, abs=1e-3)


def test_the_file_says_what_it_was_made_for() -> None:
    """The catalogue reads four steps of LCM without guidance out of its metadata alone."""
    found = made_for("renamed", train_lcm.metadata(steps=1, chains=1))
    assert found is not None
    assert (found.kind, found.scheduler) == ("LCM", Scheduler.LCM)
    assert (found.steps, found.guidance_scale, found.prediction_type) == (4, 1.0, "v_prediction")
