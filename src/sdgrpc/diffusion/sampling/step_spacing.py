"""The spacing of a job's steps, put into schedulers of diffusers, whose classes take little from outside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import DEISMultistepScheduler, SchedulerMixin

from sdgrpc.diffusion.sampling.solvers import EulerAncestral, Plms
from sdgrpc.diffusion.sampling.timesteps import aligned, leading, linspace, trailing, whole
from sdgrpc.diffusion.sampling.training_sigmas import NoiseLevels
from sdgrpc.domain import SUPPORTED_SPACINGS, Scheduler, SigmaSpacing, TimestepSpacing

SPACING_FLAGS: Mapping[SigmaSpacing, str] = {
    SigmaSpacing.KARRAS: "use_karras_sigmas",
    SigmaSpacing.EXPONENTIAL: "use_exponential_sigmas",
    SigmaSpacing.BETA: "use_beta_sigmas",
}
# Schedulers that count by whole timesteps alone; the others count by noise levels.
WHOLE = frozenset({Scheduler.DDIM, Scheduler.DDPM, Scheduler.PNDM, Scheduler.LCM, Scheduler.TCD})
# These classes know no spacing of timesteps, whatever the model's configuration says.
OWN_TIMESTEPS = frozenset({Scheduler.DPMPP_SDE, Scheduler.LCM, Scheduler.TCD})


@dataclass(frozen=True, slots=True)
class Schedule:
    """How a job's steps are spaced; `timesteps` None is the scheduler's own for the model.

    `is_sdxl` chooses the table of "align your steps". `eta` is the noise that each step draws anew, None the
    scheduler's own.
    """

    steps: int
    sigmas: SigmaSpacing = SigmaSpacing.DEFAULT
    timesteps: TimestepSpacing | None = None
    is_sdxl: bool = False
    eta: float | None = None


def spacing_settings(settings: Mapping[str, Any], scheduler: Scheduler, schedule: Schedule) -> dict[str, Any]:
    """What the class is told of the spacing, over its other settings."""
    wanted = schedule.timesteps
    if wanted is not None or schedule.steps == 1:
        aligns = wanted is TimestepSpacing.ALIGN_YOUR_STEPS
        named = "trailing" if wanted is None or aligns or schedule.steps == 1 else wanted.value
        return dict.fromkeys(SPACING_FLAGS.values(), False) | {"timestep_spacing": named}
    flags = {} if schedule.sigmas is SigmaSpacing.DEFAULT else _flags(schedule.sigmas)
    if _spaces_levels({**settings, **flags}, scheduler):
        # Some classes span only the levels of their timesteps, which under this spacing are all.
        return flags | {"timestep_spacing": "linspace"}
    return flags


def _flags(spacing: SigmaSpacing) -> dict[str, Any]:
    """The flags that select `spacing`; they exclude each other, so all three are set."""
    return {flag: named is spacing for named, flag in SPACING_FLAGS.items()}


def _spaces_levels(settings: Mapping[str, Any], scheduler: Scheduler) -> bool:
    """Whether the class spaces noise levels, from which its timesteps follow."""
    takes_flags = len(SUPPORTED_SPACINGS[scheduler]) > 1
    return takes_flags and any(settings.get(flag) for flag in SPACING_FLAGS.values())


def set_schedule(
    built: SchedulerMixin,
    settings: Mapping[str, Any],
    scheduler: Scheduler,
    schedule: Schedule,
    levels: NoiseLevels,
) -> None:
    """Set the timesteps of a new scheduler, made from `settings`, and its noise levels."""
    spacing = _explicit(settings, scheduler, schedule)
    offset = int(built.config.get("steps_offset") or 0)
    if spacing is None:
        _as_its_class(built, schedule.steps)
        if _spaces_levels(settings, scheduler) and not built.timesteps.is_floating_point():
            # The classes cut what is 998.99… by rounding of the largest level.
            built.timesteps[0] = len(levels.sigmas) - 1
    elif scheduler in WHOLE:
        _place_whole(built, _whole(spacing, schedule, levels, offset))
    elif spacing is TimestepSpacing.ALIGN_YOUR_STEPS:
        _place_levels(built, aligned(levels, schedule.steps, is_sdxl=schedule.is_sdxl), levels)
    elif spacing is TimestepSpacing.LEADING:
        # As the other DPM solvers of diffusers count: of one more step, of which the last is left out.
        built.set_timesteps(timesteps=leading(schedule.steps + 1, len(levels.sigmas), offset)[:-1])
    else:
        _place_levels(built, levels.sigmas[trailing(schedule.steps, len(levels.sigmas))], levels)


def _explicit(
    settings: Mapping[str, Any], scheduler: Scheduler, schedule: Schedule
) -> TimestepSpacing | None:
    """The spacing to lay out here; None where the class does by itself what its settings say."""
    if schedule.steps == 1:
        return TimestepSpacing.TRAILING
    if schedule.timesteps is None and scheduler is Scheduler.PNDM:
        return TimestepSpacing(settings.get("timestep_spacing", TimestepSpacing.LEADING.value))
    if schedule.timesteps is None:
        own = scheduler in OWN_TIMESTEPS or _spaces_levels(settings, scheduler)
        trails = settings.get("timestep_spacing") == TimestepSpacing.TRAILING.value
        return TimestepSpacing.TRAILING if trails and not own else None
    if scheduler in WHOLE or schedule.timesteps not in (TimestepSpacing.LEADING, TimestepSpacing.LINSPACE):
        return schedule.timesteps
    if scheduler is Scheduler.DPMPP_SDE and schedule.timesteps is TimestepSpacing.LEADING:
        return schedule.timesteps
    return None


def _as_its_class(built: SchedulerMixin, steps: int) -> None:
    """Set the timesteps, and for LCM and TCD a distillation schedule that has so many.

    Those two pick their steps out of `original_inference_steps` (50) and refuse more. More are drawn from
    the next longer schedule that divides the training steps evenly, so that it still ends at pure noise.
    """
    original = built.config.get("original_inference_steps")
    if original is None or steps <= original:
        built.set_timesteps(steps)
        return
    train_steps = built.config.num_train_timesteps
    longer = next(n for n in range(steps, train_steps + 1) if train_steps % n == 0)
    built.set_timesteps(steps, original_inference_steps=longer)


def _whole(spacing: TimestepSpacing, schedule: Schedule, levels: NoiseLevels, offset: int) -> np.ndarray:
    steps, train_steps = schedule.steps, len(levels.sigmas)
    if spacing is TimestepSpacing.LEADING:
        return leading(steps, train_steps, offset)
    if spacing is TimestepSpacing.LINSPACE:
        return linspace(steps, train_steps)
    if spacing is TimestepSpacing.TRAILING:
        return trailing(steps, train_steps)
    return whole(levels, aligned(levels, steps, is_sdxl=schedule.is_sdxl))


def _place_whole(built: SchedulerMixin, timesteps: np.ndarray) -> None:
    built.num_inference_steps = len(timesteps)
    if isinstance(built, Plms):
        built.visit(timesteps)
    else:
        built.timesteps = torch.from_numpy(timesteps.astype(np.int64))


def _place_levels(built: SchedulerMixin, sigmas: np.ndarray, levels: NoiseLevels) -> None:
    """Karras' spacing is the one that lets noise levels into every class: ours take their place.

    The classes make timesteps of them, whole ones where they know no others.
    """
    if isinstance(built, EulerAncestral):
        built.visit(sigmas, levels.timestep(sigmas))
        return
    built.register_to_config(use_karras_sigmas=True)
    built._convert_to_karras = lambda *_, **__: sigmas.copy()
    built.set_timesteps(len(sigmas))
    if isinstance(built, DEISMultistepScheduler):
        # Karras' levels end there at the model's smallest, which this class repeats; ours end above it.
        built.sigmas[-1] = float(levels.sigmas[0])
