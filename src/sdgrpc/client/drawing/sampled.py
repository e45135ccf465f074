"""How a job is denoised: messages -> records."""

from __future__ import annotations

from sdgrpc.domain import (
    GuidanceInterval,
    Sampling,
    Scheduler,
    SecondPass,
    SecondPassMode,
    SigmaSpacing,
    StepReuse,
    Tiling,
    TimestepSpacing,
    Variation,
)
from sdgrpc.domain.decimals import shortest
from sdgrpc.v1 import diffusion_pb2 as pb


def sampling(message: pb.Sampling) -> Sampling:
    """Decode how a job is denoised; floats are the decimals that were meant."""
    timesteps = pb.TimestepSpacing.Name(message.timestep_spacing).removeprefix("TIMESTEP_SPACING_")
    return Sampling(
        steps=message.steps,
        guidance_scale=shortest(message.guidance_scale),
        scheduler=Scheduler[pb.Scheduler.Name(message.scheduler).removeprefix("SCHEDULER_")],
        sigma_spacing=SigmaSpacing[
            pb.SigmaSpacing.Name(message.sigma_spacing).removeprefix("SIGMA_SPACING_")
        ],
        seed=message.seed,
        image_count=message.image_count,
        clip_skip=message.clip_skip,
        timestep_spacing=None if timesteps == "UNSPECIFIED" else TimestepSpacing[timesteps],
        guidance_rescale=shortest(message.guidance_rescale),
        eta=shortest(message.eta) if message.HasField("eta") else None,
        gamma=shortest(message.gamma) if message.HasField("gamma") else None,
        guidance_interval=_interval(message),
        step_reuse=_reuse(message),
        variation=_variation(message),
        tiling=Tiling(message.tiling.horizontal, message.tiling.vertical),
        late_start=shortest(message.late_start),
    )


def _interval(message: pb.Sampling) -> GuidanceInterval | None:
    if not message.HasField("guidance_interval"):
        return None
    interval = message.guidance_interval
    return GuidanceInterval(shortest(interval.start), shortest(interval.end))


def _reuse(message: pb.Sampling) -> StepReuse | None:
    if not message.HasField("step_reuse"):
        return None
    return StepReuse(message.step_reuse.every, message.step_reuse.order)


def second_pass(message: pb.Accepted) -> SecondPass | None:
    """Decode the second pass, its size in pixels; None where there is none."""
    if not message.HasField("second_pass"):
        return None
    told = message.second_pass
    mode = pb.SecondPassMode.Name(told.mode).removeprefix("SECOND_PASS_MODE_")
    return SecondPass(
        width=told.width,
        height=told.height,
        strength=shortest(told.strength),
        steps=told.steps,
        mode=SecondPassMode[mode],
        upscaler=told.upscaler,
    )


def _variation(message: pb.Sampling) -> Variation | None:
    if not message.HasField("variation"):
        return None
    return Variation(shortest(message.variation.strength), message.variation.seed)
