"""The contract's schedulers: the table of spacings, step counts at the edges, settings that must hold."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch

from sdgrpc.diffusion.sampling import schedulers
from sdgrpc.diffusion.sampling.step_spacing import SPACING_FLAGS, Schedule
from sdgrpc.diffusion.sampling.training_sigmas import alphas_cumprod
from sdgrpc.domain import (
    SUPPORTED_SPACINGS,
    SUPPORTED_TIMESTEP_SPACINGS,
    Scheduler,
    SigmaSpacing,
    TimestepSpacing,
)
from sdgrpc.errors import InvalidRequest, ModelError
from tests.support.models import SD15_SCHEDULER, SDXL_SCHEDULER

EVERY_SPACING = [
    (scheduler, spacing)
    for scheduler in Scheduler
    for spacing in SigmaSpacing
    if spacing in SUPPORTED_SPACINGS[scheduler]
]


def run(scheduler: Scheduler, spacing: SigmaSpacing, steps: int, step_count: int) -> torch.Tensor:
    """Denoise with a made-up prediction, as a job does."""
    built = schedulers.build(SD15_SCHEDULER, scheduler, Schedule(steps, spacing))
    timesteps = schedulers.denoising_timesteps(built, steps, step_count)
    generators = [torch.Generator().manual_seed(1)]
    arguments = schedulers.step_arguments(built, generators)
    latents = torch.randn(1, 4, 2, 2, generator=generators[0]) * built.init_noise_sigma
    for timestep in timesteps:
        prediction = torch.tanh(built.scale_model_input(latents, timestep))
        latents = built.step(prediction, timestep, latents, **arguments, return_dict=False)[0]
    return latents


@pytest.mark.parametrize("scheduler", Scheduler)
def test_table_of_spacings_is_what_diffusers_takes(scheduler: Scheduler) -> None:
    """A spacing is in the table exactly if the class has its option."""
    options = inspect.signature(schedulers.scheduler_class(scheduler).__init__).parameters
    taken = {spacing for spacing, flag in SPACING_FLAGS.items() if flag in options}
    assert SUPPORTED_SPACINGS[scheduler] == taken | {SigmaSpacing.DEFAULT}


@pytest.mark.parametrize("steps", [1, 2, 3, 20])
@pytest.mark.parametrize(("scheduler", "spacing"), EVERY_SPACING)
def test_step_counts(scheduler: Scheduler, spacing: SigmaSpacing, steps: int) -> None:
    """Few and odd step counts run to finite latents, from the start and from the middle."""
    assert torch.isfinite(run(scheduler, spacing, steps, steps)).all()
    assert torch.isfinite(run(scheduler, spacing, steps, (steps + 1) // 2)).all()


@pytest.mark.parametrize("scheduler", Scheduler)
def test_the_most_steps(scheduler: Scheduler) -> None:
    """150 steps run, for LCM and TCD too, whose distillation schedule has 50."""
    assert torch.isfinite(run(scheduler, SigmaSpacing.DEFAULT, 150, 150)).all()


@pytest.mark.parametrize("scheduler", [Scheduler.DPMPP_2M, Scheduler.UNIPC, Scheduler.DPMPP_SDE])
def test_first_timesteps_that_round_to_one_number(scheduler: Scheduler) -> None:
    """Many steps whose first timesteps are equal start at the first sigma and end in bounds."""
    assert torch.isfinite(run(scheduler, SigmaSpacing.BETA, 60, 60)).all()


@pytest.mark.parametrize("scheduler", [Scheduler.LCM, Scheduler.TCD])
def test_long_distillation_schedules_begin_at_noise(scheduler: Scheduler) -> None:
    """More steps than the distillation schedule has still begin at the last training step."""
    timesteps = schedulers.build(
        SD15_SCHEDULER, scheduler, Schedule(120, SigmaSpacing.DEFAULT)
    ).timesteps.tolist()
    assert len(timesteps) == 120
    assert timesteps[0] == 999
    assert timesteps == sorted(set(timesteps), reverse=True)


def test_a_spacing_that_is_not_supported_is_refused_by_name() -> None:
    """The violation names the field and what the scheduler does support."""
    with pytest.raises(
        InvalidRequest, match=r"sampling.sigma_spacing: ddim does not support karras"
    ) as caught:
        schedulers.build(SD15_SCHEDULER, Scheduler.DDIM, Schedule(5, SigmaSpacing.KARRAS))
    assert caught.value.violations[0].field == "sampling.sigma_spacing"


def test_spacings_differ() -> None:
    """Each spacing visits other noise levels."""
    visited = {
        tuple(schedulers.build(SD15_SCHEDULER, Scheduler.EULER, Schedule(7, spacing)).sigmas.tolist())
        for spacing in SigmaSpacing
    }
    assert len(visited) == len(SigmaSpacing)


def test_a_spacing_replaces_the_models_own() -> None:
    """A model saved with Karras spacing can be asked for another one; default keeps its own."""
    config = SD15_SCHEDULER | {"use_karras_sigmas": True}
    beta = schedulers.build(config, Scheduler.EULER, Schedule(5, SigmaSpacing.BETA)).config
    assert (beta.use_karras_sigmas, beta.use_beta_sigmas) == (False, True)
    assert schedulers.build(
        config, Scheduler.EULER, Schedule(5, SigmaSpacing.DEFAULT)
    ).config.use_karras_sigmas


def test_jobs_share_no_scheduler() -> None:
    """Two jobs get two instances, and the model's configuration stays as it was."""
    before = dict(SD15_SCHEDULER)
    first, second = (
        schedulers.build(SD15_SCHEDULER, Scheduler.PNDM, Schedule(5, SigmaSpacing.DEFAULT)) for _ in range(2)
    )
    assert first is not second
    assert before == SD15_SCHEDULER


@pytest.mark.parametrize("scheduler", [Scheduler.DDIM, Scheduler.DDPM, Scheduler.LCM, Scheduler.TCD])
def test_latents_are_not_clipped_unless_the_model_says_so(scheduler: Scheduler) -> None:
    """A configuration saved from a class that cannot clip does not make another class clip."""
    silent = {key: value for key, value in SD15_SCHEDULER.items() if key != "clip_sample"}
    assert not schedulers.build(silent, scheduler, Schedule(5, SigmaSpacing.DEFAULT)).config.clip_sample
    clipping = silent | {"clip_sample": True}
    assert schedulers.build(clipping, scheduler, Schedule(5, SigmaSpacing.DEFAULT)).config.clip_sample


def test_the_models_noise_schedule_is_kept() -> None:
    """Every scheduler has the model's betas and prediction type."""
    config: dict[str, Any] = SD15_SCHEDULER | {"beta_end": 0.02, "prediction_type": "v_prediction"}
    expected = alphas_cumprod(config)
    for scheduler in Scheduler:
        built = schedulers.build(config, scheduler, Schedule(5, SigmaSpacing.DEFAULT))
        assert torch.equal(built.alphas_cumprod, expected)
        assert built.config.prediction_type == "v_prediction"


def test_pndm_cannot_predict_the_sample() -> None:
    """A prediction type that a scheduler does not know is told with another scheduler's name."""
    with pytest.raises(ModelError, match="use ddim"):
        schedulers.build(
            SD15_SCHEDULER | {"prediction_type": "sample"}, Scheduler.PNDM, Schedule(5, SigmaSpacing.DEFAULT)
        )


def test_names_of_saved_schedulers() -> None:
    """A folder's scheduler class has a name in the contract, or none."""
    assert schedulers.scheduler_of("DPMSolverMultistepScheduler") is Scheduler.DPMPP_2M
    assert schedulers.scheduler_of("PNDMScheduler") is Scheduler.PNDM
    assert schedulers.scheduler_of("FlowMatchEulerDiscreteScheduler") is None


def test_step_arguments_are_those_that_the_class_takes() -> None:
    """DDIM takes eta and a generator, Heun neither."""
    generators = [torch.Generator()]
    built = {
        scheduler: schedulers.build(SD15_SCHEDULER, scheduler, Schedule(5, SigmaSpacing.DEFAULT))
        for scheduler in (Scheduler.DDIM, Scheduler.HEUN)
    }
    assert schedulers.step_arguments(built[Scheduler.DDIM], generators) == {
        "eta": 0.0,
        "generator": generators,
    }
    assert schedulers.step_arguments(built[Scheduler.HEUN], generators) == {}


@pytest.mark.parametrize("config", [SD15_SCHEDULER, SDXL_SCHEDULER], ids=["SD1", "SDXL"])
@pytest.mark.parametrize(("scheduler", "spacing"), EVERY_SPACING)
def test_one_step_is_at_the_noisiest_level(
    scheduler: Scheduler, spacing: SigmaSpacing, config: dict[str, Any]
) -> None:
    """Whatever spacing the model or the request asks for."""
    schedules = [Schedule(1, spacing)]
    if spacing is SigmaSpacing.DEFAULT:
        schedules += [Schedule(1, timesteps=each) for each in SUPPORTED_TIMESTEP_SPACINGS[scheduler]]
    for schedule in schedules:
        assert schedulers.build(config, scheduler, schedule).timesteps.tolist() == [999]


@pytest.mark.parametrize("config", [SD15_SCHEDULER, SDXL_SCHEDULER], ids=["SD1", "SDXL"])
@pytest.mark.parametrize(("scheduler", "spacing"), EVERY_SPACING)
def test_spaced_levels_begin_at_the_largest(
    scheduler: Scheduler, spacing: SigmaSpacing, config: dict[str, Any]
) -> None:
    """Karras' and the other levels span the model's, also where its timesteps do not reach its end."""
    if spacing is SigmaSpacing.DEFAULT:
        return
    built = schedulers.build(config, scheduler, Schedule(4, spacing))
    assert float(built.timesteps[0]) == pytest.approx(999, abs=1e-3)
    assert float(built.sigmas.max()) == pytest.approx(14.6146, abs=1e-3)


@pytest.mark.parametrize("scheduler", Scheduler)
def test_trailing_timesteps_of_sdxl(scheduler: Scheduler) -> None:
    """What distilled models were trained for, with every scheduler: each step's first timestep."""
    built = schedulers.build(SDXL_SCHEDULER, scheduler, Schedule(4, timesteps=TimestepSpacing.TRAILING))
    steps = dict.fromkeys(one for one in built.timesteps.tolist() if one == int(one))
    assert list(steps) == [999, 749, 499, 249]


@pytest.mark.parametrize("scheduler", Scheduler)
@pytest.mark.parametrize("steps", [61, 103, 121, 122])
def test_trailing_step_counts_that_floats_miscount(scheduler: Scheduler, steps: int) -> None:
    """`arange` gives one timestep too many for these."""
    config = SDXL_SCHEDULER | {"timestep_spacing": "trailing"}
    asked = Schedule(steps, timesteps=TimestepSpacing.TRAILING)
    for schedule in (asked, Schedule(steps)):
        built = schedulers.build(config, scheduler, schedule)
        timesteps = schedulers.denoising_timesteps(built, steps, steps)
        evaluations = steps * built.order - (built.order - 1) + (scheduler is Scheduler.PNDM)
        assert len(timesteps) == evaluations
        assert min(timesteps.tolist()) >= 0


@pytest.mark.parametrize("steps", [1, 2, 20])
@pytest.mark.parametrize("scheduler", Scheduler)
def test_no_steps_are_no_timesteps(scheduler: Scheduler, steps: int) -> None:
    """Not even for PNDM, which visits one timestep twice, or where spacings are laid out."""
    for spacing in (None, *SUPPORTED_TIMESTEP_SPACINGS[scheduler]):
        built = schedulers.build(SD15_SCHEDULER, scheduler, Schedule(steps, timesteps=spacing))
        assert len(schedulers.denoising_timesteps(built, steps, 0)) == 0


def test_align_your_steps_of_ten() -> None:
    """The published tables, for SD1 and SDXL; other numbers begin and fall as they do."""
    for is_sdxl, table in (
        (False, [999, 850, 736, 645, 545, 455, 343, 233, 124, 24]),
        (True, [999, 845, 730, 587, 443, 310, 193, 116, 53, 13]),
    ):
        for scheduler in (Scheduler.EULER, Scheduler.DDIM, Scheduler.DPMPP_2M):
            schedule = Schedule(10, timesteps=TimestepSpacing.ALIGN_YOUR_STEPS, is_sdxl=is_sdxl)
            built = schedulers.build(SD15_SCHEDULER, scheduler, schedule)
            assert built.timesteps.tolist() == pytest.approx(table, abs=1e-4)
    for steps in (2, 7, 150):
        schedule = Schedule(steps, timesteps=TimestepSpacing.ALIGN_YOUR_STEPS)
        timesteps = schedulers.build(SD15_SCHEDULER, Scheduler.DDIM, schedule).timesteps.tolist()
        assert timesteps[0] == 999
        assert timesteps == sorted(set(timesteps), reverse=True)


def test_spacings_that_exclude_each_other_are_refused() -> None:
    """The field is named, also where the scheduler has no even timesteps to take."""
    both = Schedule(5, SigmaSpacing.KARRAS, TimestepSpacing.TRAILING)
    aligned = Schedule(5, timesteps=TimestepSpacing.ALIGN_YOUR_STEPS)
    for scheduler, schedule in ((Scheduler.EULER, both), (Scheduler.PNDM, aligned)):
        with pytest.raises(InvalidRequest) as caught:
            schedulers.build(SD15_SCHEDULER, scheduler, schedule)
        assert caught.value.violations[0].field == "sampling.timestep_spacing"


def test_predicted_noise_at_pure_noise_is_refused() -> None:
    """Nothing follows from it; a schedule that does not visit that timestep is drawn."""
    config = SD15_SCHEDULER | {"rescale_betas_zero_snr": True, "prediction_type": "epsilon"}
    with pytest.raises(ModelError, match="zero terminal SNR"):
        schedulers.build(config, Scheduler.DDIM, Schedule(4, timesteps=TimestepSpacing.TRAILING))
    assert schedulers.build(config, Scheduler.DDIM, Schedule(4)).timesteps[0] == 751
