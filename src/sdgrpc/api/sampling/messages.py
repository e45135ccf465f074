"""The contract's Sampling <-> domain, every default filled in."""

from __future__ import annotations

import secrets

from sdgrpc import domain
from sdgrpc.api.rules import given
from sdgrpc.domain import ModelInfo
from sdgrpc.domain.decimals import shortest
from sdgrpc.v1 import diffusion_pb2 as pb

RANDOM_SEEDS = 2**32  # every tool can read these, also those whose numbers are JavaScript's


def scheduler(message: pb.Sampling, model: ModelInfo) -> domain.Scheduler:
    """The scheduler asked for; unspecified is the model's."""
    if message.scheduler == pb.SCHEDULER_UNSPECIFIED:
        return model.scheduler
    return domain.Scheduler[pb.Scheduler.Name(message.scheduler).removeprefix("SCHEDULER_")]


def spacing(message: pb.Sampling) -> domain.SigmaSpacing:
    """The spacing of noise levels asked for; unspecified is the scheduler's own."""
    if message.sigma_spacing == pb.SIGMA_SPACING_UNSPECIFIED:
        return domain.SigmaSpacing.DEFAULT
    return domain.SigmaSpacing[pb.SigmaSpacing.Name(message.sigma_spacing).removeprefix("SIGMA_SPACING_")]


def timestep_spacing(message: pb.Sampling, model: ModelInfo) -> domain.TimestepSpacing | None:
    """The spacing of timesteps asked for; unspecified is the model's, where the scheduler takes it."""
    if message.timestep_spacing != pb.TIMESTEP_SPACING_UNSPECIFIED:
        name = pb.TimestepSpacing.Name(message.timestep_spacing)
        return domain.TimestepSpacing[name.removeprefix("TIMESTEP_SPACING_")]
    if model.timestep_spacing is None or spacing(message) is not domain.SigmaSpacing.DEFAULT:
        return None
    taken = domain.SUPPORTED_TIMESTEP_SPACINGS[scheduler(message, model)]
    return model.timestep_spacing if model.timestep_spacing in taken else None


def guidance_interval(message: pb.Sampling) -> domain.GuidanceInterval | None:
    """Where to guide; None is everywhere."""
    if not message.HasField("guidance_interval"):
        return None
    interval = message.guidance_interval
    return domain.GuidanceInterval(shortest(interval.start), shortest(interval.end))


def step_reuse(message: pb.Sampling) -> domain.StepReuse | None:
    """Which predictions to forecast; None is none."""
    if not message.HasField("step_reuse"):
        return None
    return domain.StepReuse(message.step_reuse.every, message.step_reuse.order or domain.DEFAULT_REUSE_ORDER)


def variation(message: pb.Sampling, seed: int) -> domain.Variation | None:
    """The other seed, the next one where it is left open; None varies nothing."""
    if not message.HasField("variation"):
        return None
    asked = message.variation
    return domain.Variation(shortest(asked.strength), asked.seed if asked.HasField("seed") else seed + 1)


def sampling(message: pb.Sampling, model: ModelInfo) -> domain.Sampling:
    """How to denoise, every default filled in."""
    chosen = scheduler(message, model)
    seed = message.seed if message.HasField("seed") else secrets.randbelow(RANDOM_SEEDS)
    return domain.Sampling(
        steps=message.steps or model.steps,
        guidance_scale=given(message, "guidance_scale", model.guidance_scale),
        scheduler=chosen,
        sigma_spacing=spacing(message),
        seed=seed,
        image_count=message.image_count or 1,
        clip_skip=message.clip_skip,
        timestep_spacing=timestep_spacing(message, model),
        guidance_rescale=given(message, "guidance_rescale", model.guidance_rescale),
        eta=given(message, "eta", domain.DEFAULT_ETA.get(chosen)),
        gamma=given(message, "gamma", domain.DEFAULT_GAMMA.get(chosen)),
        guidance_interval=guidance_interval(message),
        step_reuse=step_reuse(message),
        variation=variation(message, seed),
        tiling=domain.Tiling(message.tiling.horizontal, message.tiling.vertical),
        late_start=shortest(message.late_start),
    )


def sampling_message(values: domain.Sampling) -> pb.Sampling:
    """How to denoise, as it is reported."""
    return pb.Sampling(
        steps=values.steps,
        guidance_scale=values.guidance_scale,
        scheduler=scheduler_value(values.scheduler),
        sigma_spacing=pb.SigmaSpacing.Value(f"SIGMA_SPACING_{values.sigma_spacing.name}"),
        seed=values.seed,
        image_count=values.image_count,
        clip_skip=values.clip_skip,
        timestep_spacing=timestep_spacing_value(values.timestep_spacing),
        guidance_rescale=values.guidance_rescale,
        eta=values.eta,
        gamma=values.gamma,
        guidance_interval=_interval_message(values.guidance_interval),
        step_reuse=_reuse_message(values.step_reuse),
        variation=_variation_message(values.variation),
        tiling=_tiling_message(values.tiling),
        late_start=values.late_start,
    )


def _interval_message(interval: domain.GuidanceInterval | None) -> pb.GuidanceInterval | None:
    return None if interval is None else pb.GuidanceInterval(start=interval.start, end=interval.end)


def _reuse_message(reuse: domain.StepReuse | None) -> pb.StepReuse | None:
    return None if reuse is None else pb.StepReuse(every=reuse.every, order=reuse.order)


def _variation_message(variation: domain.Variation | None) -> pb.Variation | None:
    return None if variation is None else pb.Variation(seed=variation.seed, strength=variation.strength)


def _tiling_message(tiling: domain.Tiling) -> pb.Tiling | None:
    return pb.Tiling(horizontal=tiling.horizontal, vertical=tiling.vertical) if tiling else None


def scheduler_value(scheduler: domain.Scheduler) -> pb.Scheduler.ValueType:
    """A scheduler as the contract's number."""
    return pb.Scheduler.Value(f"SCHEDULER_{scheduler.name}")


def timestep_spacing_value(spacing: domain.TimestepSpacing | None) -> pb.TimestepSpacing.ValueType:
    """A spacing as the contract's number; none is unspecified."""
    return pb.TimestepSpacing.Value(f"TIMESTEP_SPACING_{spacing.name if spacing else 'UNSPECIFIED'}")
