"""The contract's schedulers as diffusers' classes, built anew for each job."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import diffusers
import torch
from diffusers import SchedulerMixin

from sdgrpc.diffusion.sampling.solvers import Ddim, EulerAncestral, Kdpm2Ancestral, Lms, Plms
from sdgrpc.diffusion.sampling.step_spacing import Schedule, set_schedule, spacing_settings
from sdgrpc.diffusion.sampling.training_sigmas import UNCLIPPED, NoiseLevels, ends_without_signal, rescale
from sdgrpc.domain import (
    REFUSES_SAMPLE_PREDICTION,
    SUPPORTED_SPACINGS,
    SUPPORTED_TIMESTEP_SPACINGS,
    Scheduler,
    SigmaSpacing,
)
from sdgrpc.errors import FieldViolation, InvalidRequest, ModelError


@dataclass(frozen=True, slots=True)
class Recipe:
    """A diffusers class and what to set over the model's own configuration.

    `defaults` fill in what the configuration leaves out, `overrides` always hold.
    """

    class_name: str
    defaults: Mapping[str, Any] = field(default_factory=dict)
    overrides: Mapping[str, Any] = field(default_factory=dict)


# diffusers' own table of names in A1111 and k-diffusion:
# https://huggingface.co/docs/diffusers/api/schedulers/overview
RECIPES: Mapping[Scheduler, Recipe] = {
    Scheduler.EULER: Recipe("EulerDiscreteScheduler"),
    Scheduler.EULER_ANCESTRAL: Recipe("EulerAncestralDiscreteScheduler"),
    Scheduler.HEUN: Recipe("HeunDiscreteScheduler", UNCLIPPED),
    Scheduler.DDIM: Recipe("DDIMScheduler", UNCLIPPED),
    Scheduler.DDPM: Recipe("DDPMScheduler", UNCLIPPED),
    # The Runge-Kutta warm-up needs at least four steps and is worse on latents; A1111's PLMS skips it too.
    Scheduler.PNDM: Recipe("PNDMScheduler", {"skip_prk_steps": True}),
    Scheduler.LMS: Recipe("LMSDiscreteScheduler"),
    Scheduler.DPMPP_2M: Recipe("DPMSolverMultistepScheduler", overrides={"algorithm_type": "dpmsolver++"}),
    Scheduler.DPMPP_2M_SDE: Recipe(
        "DPMSolverMultistepScheduler", overrides={"algorithm_type": "sde-dpmsolver++"}
    ),
    Scheduler.DPMPP_SDE: Recipe(
        "DPMSolverSinglestepScheduler",
        overrides={"algorithm_type": "sde-dpmsolver++", "lower_order_final": True},
    ),
    Scheduler.UNIPC: Recipe("UniPCMultistepScheduler"),
    Scheduler.KDPM2: Recipe("KDPM2DiscreteScheduler"),
    Scheduler.KDPM2_ANCESTRAL: Recipe("KDPM2AncestralDiscreteScheduler"),
    Scheduler.DEIS: Recipe("DEISMultistepScheduler"),
    Scheduler.LCM: Recipe("LCMScheduler", UNCLIPPED),
    Scheduler.TCD: Recipe("TCDScheduler", UNCLIPPED),
}

# Where diffusers' own class does not do for every spacing.
MENDED: Mapping[Scheduler, type[Any]] = {
    Scheduler.DDIM: Ddim,
    Scheduler.PNDM: Plms,
    Scheduler.LMS: Lms,
    Scheduler.EULER_ANCESTRAL: EulerAncestral,
    Scheduler.KDPM2_ANCESTRAL: Kdpm2Ancestral,
}
TAKE_DIFFERENCES = frozenset(
    {
        Scheduler.HEUN,
        Scheduler.PNDM,
        Scheduler.LMS,
        Scheduler.KDPM2,
        Scheduler.KDPM2_ANCESTRAL,
        Scheduler.DEIS,
    }
)


def scheduler_class(scheduler: Scheduler) -> type[Any]:
    """The class that implements `scheduler`: of diffusers, or one made of it."""
    found: type[Any] = MENDED.get(scheduler) or getattr(diffusers, RECIPES[scheduler].class_name)
    return found


def scheduler_of(class_name: str) -> Scheduler | None:
    """The contract's name for a class named in a `scheduler_config.json`, None if it has none."""
    names = {recipe.class_name: scheduler for scheduler, recipe in reversed(tuple(RECIPES.items()))}
    return names.get(class_name)


def build(config: Mapping[str, Any], scheduler: Scheduler, schedule: Schedule) -> SchedulerMixin:
    """A scheduler of one job, its timesteps set; never shared.

    `config` is the model's scheduler configuration, from which come the noise schedule and the prediction
    type. Spacings of noise levels (Karras and others) reach from the model's largest level to its smallest,
    as k-diffusion's; a single step is at the largest, whatever the spacing. Timesteps stay on the CPU:
    schedulers read them as numbers, which would wait for the device at every step.

    Raises:
        InvalidRequest: the scheduler has no such spacing, or the two exclude each other.
        ModelError: the scheduler cannot use what the model predicts, or nobody can at these timesteps.

    """
    _check(config, scheduler, schedule)
    recipe = RECIPES[scheduler]
    settings = {**recipe.defaults, **config, **recipe.overrides}
    settings |= spacing_settings(settings, scheduler, schedule)
    built = scheduler_class(scheduler).from_config(settings)
    rescale(built, config)
    if isinstance(built, Kdpm2Ancestral):
        built.eta, built.dtype = schedule.eta, latents_dtype(config, scheduler)
    set_schedule(built, settings, scheduler, schedule, NoiseLevels(config))
    if hasattr(built, "sigmas"):
        built.sigmas = built.sigmas.to(latents_dtype(config, scheduler))
    if config.get("prediction_type", "epsilon") == "epsilon" and _begins_without_signal(built, config):
        raise ModelError(
            "the model predicts the noise, but its first step here is at a timestep that is nothing else "
            "(zero terminal SNR), from which no picture follows; write "
            '{"prediction_type": "v_prediction"} or {"zero_terminal_snr": false} into its card'
        )
    return built


def _check(config: Mapping[str, Any], scheduler: Scheduler, schedule: Schedule) -> None:
    field, message = "", ""
    if schedule.sigmas not in (taken := SUPPORTED_SPACINGS[scheduler]):
        field = "sigma_spacing"
        named = ", ".join(sorted(one.value for one in taken))
        message = f"{scheduler.value} does not support {schedule.sigmas.value}; it supports {named}"
    elif schedule.timesteps is not None and schedule.sigmas is not SigmaSpacing.DEFAULT:
        field = "timestep_spacing"
        message = f"timesteps follow from {schedule.sigmas.value}; set one of the two spacings"
    elif schedule.timesteps and schedule.timesteps not in (takes := SUPPORTED_TIMESTEP_SPACINGS[scheduler]):
        field = "timestep_spacing"
        named = ", ".join(sorted(one.value for one in takes))
        message = f"{scheduler.value} does not support {schedule.timesteps.value}; it supports {named}"
    if message:
        raise InvalidRequest([FieldViolation(f"sampling.{field}", message)])
    if scheduler in REFUSES_SAMPLE_PREDICTION and config.get("prediction_type") == "sample":
        raise ModelError(
            f"the scheduler {scheduler.value} cannot be used with a model that predicts the sample; use ddim"
        )


def latents_dtype(config: Mapping[str, Any], scheduler: Scheduler) -> torch.dtype:
    """In what to keep the latents between steps: float32, but float64 where they lose too much of it.

    With zero terminal SNR the noise is 4096 times the signal, and these take differences of numbers of that
    size. (Others would draw their noise in float64 too, which is other noise.)
    """
    exact = scheduler in TAKE_DIFFERENCES and ends_without_signal(config)
    return torch.float64 if exact else torch.float32


def _begins_without_signal(scheduler: SchedulerMixin, config: Mapping[str, Any]) -> bool:
    last = int(scheduler.config.num_train_timesteps) - 1
    return round(float(scheduler.timesteps[0])) >= last and ends_without_signal(config)


def step_arguments(
    scheduler: SchedulerMixin, generators: list[torch.Generator], eta: float | None = None
) -> dict[str, Any]:
    """What `scheduler.step` takes beyond prediction, timestep and sample.

    `eta` None is the scheduler's own: 0 for DDIM and TCD (whose gamma it is), as diffusers' pipelines pass
    it, 1 for the ancestral ones.
    """
    accepted = inspect.signature(scheduler.step).parameters
    own = 1.0 if isinstance(scheduler, EulerAncestral) else 0.0
    arguments = {"eta": own if eta is None else eta, "generator": generators}
    return {name: value for name, value in arguments.items() if name in accepted}


def denoising_timesteps(scheduler: SchedulerMixin, steps: int, step_count: int) -> torch.Tensor:
    """The timesteps of the last `step_count` of `steps` steps; the scheduler is told where it begins.

    Schedulers of order 2 have two timesteps per step. Source: `get_timesteps` of diffusers' image-to-image
    pipeline.
    """
    begin = (steps - step_count) * scheduler.order
    if isinstance(scheduler, Plms):
        return scheduler.timesteps_from(begin)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(begin)
    timesteps: torch.Tensor = scheduler.timesteps[begin:]
    return timesteps
