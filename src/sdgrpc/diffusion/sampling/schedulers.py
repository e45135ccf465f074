"""The contract's schedulers as diffusers' classes, built anew for each job."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import diffusers
import torch
from diffusers import SchedulerMixin

from sdgrpc.domain import SUPPORTED_SPACINGS, Scheduler, SigmaSpacing
from sdgrpc.errors import FieldViolation, InvalidRequest, ModelError


@dataclass(frozen=True, slots=True)
class Recipe:
    """A diffusers class and what to set over the model's own configuration.

    `defaults` fill in what the configuration leaves out, `overrides` always hold.
    """

    class_name: str
    defaults: Mapping[str, Any] = field(default_factory=dict)
    overrides: Mapping[str, Any] = field(default_factory=dict)


# Latents are not bounded as pixels are, so clipping the predicted clean sample to [-1, 1] ruins them.
# Some classes clip unless told otherwise, and configurations saved from other classes do not say.
UNCLIPPED = {"clip_sample": False}

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

SPACING_FLAGS: Mapping[SigmaSpacing, str] = {
    SigmaSpacing.KARRAS: "use_karras_sigmas",
    SigmaSpacing.EXPONENTIAL: "use_exponential_sigmas",
    SigmaSpacing.BETA: "use_beta_sigmas",
}


def scheduler_class(scheduler: Scheduler) -> type[Any]:
    """The diffusers class that implements `scheduler`."""
    found: type[Any] = getattr(diffusers, RECIPES[scheduler].class_name)
    return found


def scheduler_of(class_name: str) -> Scheduler | None:
    """The contract's name for a class named in a `scheduler_config.json`, None if it has none."""
    names = {recipe.class_name: scheduler for scheduler, recipe in reversed(tuple(RECIPES.items()))}
    return names.get(class_name)


def build(
    config: Mapping[str, Any], scheduler: Scheduler, spacing: SigmaSpacing, steps: int
) -> SchedulerMixin:
    """A scheduler of one job, its timesteps set for `steps` steps; never shared.

    `config` is the model's scheduler configuration, from which come the noise schedule and the prediction
    type. `SigmaSpacing.DEFAULT` leaves the spacing as that configuration has it. Timesteps stay on the
    CPU: schedulers read them as numbers, which would wait for the device at every step.

    Raises:
        InvalidRequest: the scheduler has no such spacing.
        ModelError: the scheduler cannot use the model's prediction type.

    """
    if spacing not in SUPPORTED_SPACINGS[scheduler]:
        named = ", ".join(sorted(s.value for s in SUPPORTED_SPACINGS[scheduler]))
        message = f"{scheduler.value} does not support {spacing.value}; it supports {named}"
        raise InvalidRequest([FieldViolation("sampling.sigma_spacing", message)])
    if scheduler is Scheduler.PNDM and config.get("prediction_type") == "sample":
        raise ModelError("the scheduler pndm cannot be used with a model that predicts the sample; use ddim")
    recipe = RECIPES[scheduler]
    settings = {**recipe.defaults, **config, **recipe.overrides, **_spacing_flags(spacing)}
    built = scheduler_class(scheduler).from_config(settings)
    _set_timesteps(built, steps)
    return built


def _spacing_flags(spacing: SigmaSpacing) -> dict[str, bool]:
    """The flags that select `spacing`; the flags exclude each other, so all three are set."""
    if spacing is SigmaSpacing.DEFAULT:
        return {}
    return {flag: named is spacing for named, flag in SPACING_FLAGS.items()}


def _set_timesteps(scheduler: SchedulerMixin, steps: int) -> None:
    """Set the timesteps, and for LCM and TCD a distillation schedule that has so many.

    Those two pick their steps out of `original_inference_steps` (50) and refuse more. More are drawn from
    the next longer schedule that divides the training steps evenly, so that it still ends at pure noise.
    """
    original = scheduler.config.get("original_inference_steps")
    if original is None or steps <= original:
        scheduler.set_timesteps(steps)
        return
    train_steps = scheduler.config.num_train_timesteps
    longer = next(n for n in range(steps, train_steps + 1) if train_steps % n == 0)
    scheduler.set_timesteps(steps, original_inference_steps=longer)


def step_arguments(scheduler: SchedulerMixin, generators: list[torch.Generator]) -> dict[str, Any]:
    """What `scheduler.step` takes beyond prediction, timestep and sample, as diffusers' pipelines pass it.

    Eta is 0, as their default has it: DDIM and TCD add no noise of their own.
    """
    accepted = inspect.signature(scheduler.step).parameters
    arguments = {"eta": 0.0, "generator": generators}
    return {name: value for name, value in arguments.items() if name in accepted}


def denoising_timesteps(scheduler: SchedulerMixin, steps: int, step_count: int) -> torch.Tensor:
    """The timesteps of the last `step_count` of `steps` steps; the scheduler is told where it begins.

    Schedulers of order 2 have two timesteps per step. Source: `get_timesteps` of diffusers' image-to-image
    pipeline.
    """
    begin = (steps - step_count) * scheduler.order
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(begin)
    timesteps: torch.Tensor = scheduler.timesteps[begin:]
    return timesteps


def alphas_cumprod(config: Mapping[str, Any]) -> torch.Tensor:
    """The model's cumulative products of alpha, `[training steps]`, float32."""
    settings = {**UNCLIPPED, **config}
    products: torch.Tensor = diffusers.DDIMScheduler.from_config(settings).alphas_cumprod
    return products
